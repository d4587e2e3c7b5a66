"""What scripts may rely on: with --json one document on stdout and nothing else, whose fields do not go away."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootDiskDetached,
    BootFailed,
    BootId,
    BootStarted,
    EventData,
)
from bootlink_events.access import SERVICES
from bootlink_events.subjects import kind_of
from lab.chassis import bus_on
from lab.disks import MIB, sparse_disk
from lab.up import Up, bootlink, error_of

MAC = "52:54:00:aa:00:01"


@pytest.fixture(scope="module")
def room(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Up:
    """The system with an image, a client and a default link."""
    disk = sparse_disk(tmp_path_factory.mktemp("images") / "golden.img", 4 * MIB)
    up.query("image", "add", "golden", str(disk))
    up.query("client", "add", MAC, "--name", "desk-1", "--group", "desks")
    up.query("link", "set", "--default", "golden")
    return up


def boot_events(boot_id: BootId) -> list[EventData]:
    """A boot up to the system's login."""
    zero = datetime.now(UTC) - timedelta(seconds=60)
    stage: dict[str, Any] = {"mac": MAC, "client": "desk-1", "boot_id": boot_id}

    def span(start: float, end: float) -> dict[str, datetime]:
        return {"started": zero + timedelta(seconds=start), "ended": zero + timedelta(seconds=end)}

    disk: dict[str, Any] = {"lun": 0, "image": "golden", "version": 1, "policy": "discard", "peer": "10.77.0.50"}
    return [
        BootStarted(**stage, **span(0, 0), arch="bios", firmware="PXE"),
        BootAddressed(**stage, **span(0, 1), pass_="firmware", address=IPv4Address("10.77.0.50"), boot_file="x"),
        BootDiskAttached(**stage, **span(3, 3.1), **disk, initiator="firmware", session="1"),
        BootDiskDetached(
            **stage,
            **span(3, 20),
            initiator="firmware",
            lun=0,
            session="1",
            reason="a newer login took over",
            reads=10,
            bytes_read=5 * MIB,
            writes=0,
            bytes_written=0,
            first_read=zero + timedelta(seconds=3.2),
            last_io=zero + timedelta(seconds=8),
        ),
        BootDiskAttached(**stage, **span(20, 20.1), **disk, initiator="os", session="2"),
    ]


async def tell(up: Up, events: list[EventData]) -> None:
    """As the services do, each with its own key."""
    for service in SERVICES:
        theirs = [event for event in events if kind_of(event).publishers[0] == service]
        async with bus_on(up.facts["nats"], service=service, access=up.access(service), make=False) as bus:
            for event in theirs:
                bus.emit(event)


def stages_seen(up: Up, boot_id: BootId, count: int) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done = up.bootlink("boot", "show", str(boot_id), "--json")
        if done.returncode == 0 and len(json.loads(done.stdout)["stages"]) == count:
            return dict(json.loads(done.stdout))
        time.sleep(0.2)
    raise AssertionError(f"the registry has not recorded {count} stages of {boot_id}")


def test_every_listing_show_and_status_prints_one_json_document_and_nothing_else(room: Up) -> None:
    for command in ("image list", "client list", "link list", "boot list", "cache"):
        assert isinstance(room.query(*command.split()), list), command
    for command in ("image show golden", "client show desk-1", "link show --default", "status"):
        assert isinstance(room.query(*command.split()), dict), command


def test_json_fields_that_scripts_read_are_there(room: Up) -> None:
    image = room.query("image", "show", "golden")
    assert {"name", "channels", "versions", "created"} <= image.keys()
    assert {"number", "format", "path", "virtual_size", "file_size", "disk_usage", "fault"} <= image["versions"][
        0
    ].keys()
    client = room.query("client", "show", "desk-1")
    assert {"name", "mac", "group", "address", "target", "portals", "link", "plan", "last_boot"} <= client.keys()
    assert client["target"] == "iqn.2026-11.io.bootlink:52-54-00-aa-00-01"
    assert client["portals"] == [room.facts["services"]["blockstore"]["iscsi"]]
    link = room.query("link", "show", "--default")
    assert {"scope", "name", "image", "channel", "version", "policy"} <= link.keys()
    status = room.query("status")
    assert {"nats", "ready", "services", "silent"} <= status.keys()
    assert {"service", "node", "ready", "addresses", "checks", "counters"} <= status["services"][0].keys()
    (cache,) = room.query("cache")
    assert {"node", "budget", "used", "hits", "misses", "hit_ratio", "layers"} <= cache.keys()


def test_people_see_what_scripts_see(room: Up) -> None:
    assert re.search(r"golden +1 +raw +4\.0 MiB", room.bootlink("image", "list").stdout)
    assert re.search(r"desk-1 +52:54:00:aa:00:01 +desks", room.bootlink("client", "list").stdout)
    assert re.search(r"default +0 +golden +production +discard", room.bootlink("link", "list").stdout)
    shown = room.bootlink("client", "show", "desk-1").stdout
    assert re.search(r"boots +golden:production \(version 1\), policy discard", shown)
    assert re.search(r"decided by +the default link", shown)
    cache = room.bootlink("cache").stdout
    assert re.search(r"0\.0 MiB of 1\.0 GiB used, hit ratio -", cache)
    assert "no layer is open" in cache
    status = room.bootlink("status").stdout
    assert re.search(r"registry .* yes ", status)
    assert re.search(r"dhcp +does not answer, so no PC is given an address", status), "it does not run here"
    assert "blockstore  does not answer" not in status
    assert "\x1b" not in status  # no colour where no terminal is


@pytest.mark.parametrize(
    "command",
    ["image list", "image log golden", "image show golden:1", "client list", "link list", "job list", "status"],
)
def test_listings_fit_a_terminal_of_80_columns(room: Up, command: str) -> None:
    room.bootlink("client", "set", "desk-1", "--address", "10.77.0.107", "--note", "by the door; its fan is loud")
    lines = room.on_terminal(80, *command.split())
    assert lines
    assert max(map(len, lines)) <= 80, lines


async def test_a_boot_is_listed_and_drawn_from_what_the_registry_stored(room: Up) -> None:
    boot_id = BootId.mint()
    events = boot_events(boot_id)
    await tell(room, events)
    stages_seen(room, boot_id, len(events))

    listed = room.query("boot", "list", "--client", "desk-1", "--limit", "1")
    assert [(boot["id"], boot["state"], boot["client"]) for boot in listed] == [(str(boot_id), "running", "desk-1")]
    drawn = room.bootlink("boot", "show", "--client", "desk-1").stdout
    assert drawn == room.bootlink("boot", "show", str(boot_id)).stdout
    assert re.search(r"\+0\.000 +1\.000 +dhcp|lab +address 10\.77\.0\.50 to firmware", drawn)
    assert re.search(r"\+8\.000 +12\.000 +idle: no request from the PC +·+", drawn)
    assert "10 reads, 5.0 MiB; first read 0.200 s after login" in drawn
    assert "20.100 s to the operating system's login" in drawn
    assert re.search(r"last boot .*running", room.bootlink("client", "show", "desk-1").stdout)


async def test_a_failed_boot_says_why_and_what_to_do(room: Up) -> None:
    boot_id, now = BootId.mint(), datetime.now(UTC)
    stage: dict[str, Any] = {"mac": "52:54:00:aa:00:02", "boot_id": boot_id, "started": now, "ended": now}
    await tell(
        room,
        [
            BootStarted(**stage, arch="bios", firmware="PXE"),
            BootFailed(**stage, stage="loader", cause="no loader for arm64", remedy="put one into DATA/tftp/loaders"),
        ],
    )
    stages_seen(room, boot_id, 2)
    drawn = room.bootlink("boot", "show", str(boot_id)).stdout
    assert "failed (loader): no loader for arm64" in drawn
    assert "  what to do: put one into DATA/tftp/loaders" in drawn


def test_a_link_can_be_set_for_client_group_and_default_by_channel_or_version(room: Up) -> None:
    link = room.query("link", "set", MAC, "golden:production", "--policy", "keep")
    assert (link["scope"], link["name"], link["channel"], link["policy"]) == ("client", "desk-1", "production", "keep")
    link = room.query("link", "set", "--group", "desks", "golden", "--version", "1")
    assert (link["scope"], link["name"], link["channel"], link["version"]) == ("group", "desks", None, 1)
    assert room.query("link", "show", "desk-1")["policy"] == "keep"
    asked = room.query("link", "set", MAC, "golden:production", "--chap", "mutual")
    assert (asked["chap"], asked["policy"]) == ("mutual", "discard")
    assert room.query("link", "show", "--group", "desks")["version"] == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("link set desk-1 nothing-there", "there is no image 'nothing-there'"),
        ("link set desk-1 golden:beta", "image golden has no channel beta"),
        ("link set nobody golden", "there is no client 'nobody'"),
        ("image show nothing-there", "there is no image 'nothing-there'"),
        ("client show nobody", "there is no client 'nobody'"),
        ("client add not-a-mac", "is no MAC address"),
        ("client add 52:54:00:aa:00:01", "is client desk-1 already"),
        ("boot show 0199a3b4-0000-7000-8000-000000000000", "boot"),
        ("boot show not-a-boot", "boot"),
        ("image add golden /etc/hostname", "there is an image golden already"),
        ("image add ghost /nowhere/at-all.vhd", "/nowhere/at-all.vhd"),
        ("image add text /etc/passwd", "/etc/passwd"),
    ],
)
def test_a_request_that_cannot_be_done_is_one_line_and_what_to_do(room: Up, command: str, says: str) -> None:
    done = room.bootlink(*command.split())
    problem, remedy = error_of(done)
    assert done.stdout == ""
    assert says in problem
    assert remedy


def test_an_image_is_named_from_the_folder_one_is_in(room: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse_disk(tmp_path / "here.img", MIB)
    monkeypatch.chdir(tmp_path)
    assert room.query("image", "add", "here", "here.img")["versions"][0]["path"] == str(tmp_path / "here.img")


def test_a_token_is_made_used_listed_and_taken_away(room: Up) -> None:
    made = room.query("token", "add", "anna", "--role", "operator", "--note", "front desk", "--expires", "90d")
    assert {"name", "role", "note", "created", "expires", "used", "token"} <= set(made)
    assert [(t["name"], t["role"]) for t in room.query("token", "list")] == [("anna", "operator")]
    assert made["token"] not in room.bootlink("token", "list").stdout
    as_anna = {"BOOTLINK_API": room.facts["api"], "BOOTLINK_TOKEN": made["token"]}
    assert bootlink("client", "list", env=as_anna).returncode == 0
    problem, remedy = error_of(bootlink("token", "list", env=as_anna))
    assert "'anna' is of role operator, and this needs admin" in problem
    assert "bootlink token add NAME --role admin" in remedy
    assert room.bootlink("token", "remove", "anna").returncode == 0
    problem, remedy = error_of(bootlink("client", "list", env=as_anna))
    assert "not known, or has expired" in problem
    assert "BOOTLINK_TOKEN" in remedy
