"""A real `bootlink up` with registry and blockstore on loopback: used, broken, killed and stopped."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootlink_events import target_iqn
from lab.disks import MIB, sparse_disk
from lab.netns import Cable
from lab.programs import alive
from lab.up import BOOTLINK, Up, bootlink, clean_environment, error_of

MAC = "52:54:00:12:34:56"


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """One system for the tests of this module; each leaves it working."""
    with Up() as system:
        yield system


def eventually_gone(pids: list[int], *, seconds: float = 15) -> list[int]:
    """The processes of `pids` that still run after so long."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_an_image_a_client_and_a_link_make_a_plan_and_their_events_are_told(up: Up, tmp_path: Path) -> None:
    disk = sparse_disk(tmp_path / "disk.img", 8 * MIB)
    image = up.query("image", "add", "debian", str(disk))
    assert (image["name"], image["channels"]) == ("debian", {"production": 1})
    client = up.query("client", "add", MAC, "--name", "pc-07", "--group", "room-1")
    assert (client["mac"], client["name"], client["group"]) == (MAC, "pc-07", "room-1")
    link = up.query("link", "set", "--group", "room-1", "debian:production", "--policy", "keep")
    assert (link["scope"], link["name"], link["policy"]) == ("group", "room-1", "keep")

    shown = up.query("client", "show", "pc-07")
    assert shown["target"] == target_iqn(MAC)
    assert shown["portals"] == [up.facts["services"]["blockstore"]["iscsi"]]
    assert shown["plan"]["refusal"] is None
    assert up.query("client", "show", MAC)["name"] == "pc-07"

    status = up.query("status")
    assert {s["service"]: s["ready"] for s in status["services"]} == {"registry": True, "blockstore": True}
    assert status["ready"] is True
    registry = next(s for s in status["services"] if s["service"] == "registry")
    assert f"http://{registry['addresses']['api']}" == up.facts["api"]

    lines = up.bootlink("events", "--json").stdout.splitlines()
    told = {json.loads(line)["type"].removeprefix("bootlink.v1.") for line in lines}
    aside = {"job.changed", "job.progress", "spindle.shared"}  # of a checksum's background, and of this machine's disks
    assert told - aside == {"image.version_added", "image.published", "client.changed", "link.changed"}
    lines = up.bootlink("events", "--json", "--subject", "image.published.debian").stdout.splitlines()
    assert [json.loads(line)["data"]["image"] for line in lines] == ["debian"]
    assert "link.changed" in up.bootlink("events", "--since", "1h").stdout


def test_followed_events_come_as_they_happen_and_only_new_ones(up: Up, tmp_path: Path) -> None:
    up.query("image", "add", "before", str(sparse_disk(tmp_path / "a.img", MIB)))
    env = clean_environment() | {"BOOTLINK_NATS_URL": up.facts["nats"], "BOOTLINK_DATA": up.facts["data"]}
    command = [*BOOTLINK, "events", "--follow", "--json", "--subject", "image.published.*"]
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    try:
        assert follower.stdout is not None
        for number in range(20):  # until it follows
            up.query("image", "add", f"after-{number}", str(sparse_disk(tmp_path / f"{number}.img", MIB)))
            if select.select([follower.stdout], [], [], 2)[0]:
                break
        assert json.loads(follower.stdout.readline())["data"]["image"].startswith("after-")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
    finally:
        follower.kill()
        follower.wait()
        if follower.stdout:
            follower.stdout.close()


def test_a_webhook_is_made_looked_at_changed_and_removed_and_its_secret_is_shown_once(up: Up) -> None:
    made = up.query("webhook", "add", "helpdesk", "http://127.0.0.1:9/hook", "--filter", "type=client.changed")
    assert made["secret"].startswith("whsec_")
    up.query("client", "add", "52:54:00:12:34:99", "--name", "pc-99")
    deadline = time.monotonic() + 20
    while not (shown := up.query("webhook", "show", "helpdesk"))["problem"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "BOOTLINK_REGISTRY_WEBHOOK_NETWORKS" in shown["problem"]
    assert (shown["waiting"], shown["dead"]) == (1, 0)
    listed = up.bootlink("webhook", "list").stdout
    assert "failing" in listed
    assert "type=client.changed" in listed
    assert up.bootlink("webhook", "dead", "helpdesk").stdout == "no event was given up for helpdesk\n"
    assert up.bootlink("webhook", "resend", "helpdesk").stdout == "nothing was given up for helpdesk\n"
    changed = up.query("webhook", "change", "helpdesk", "--off", "--every")
    assert (changed["enabled"], changed["filters"]) == (False, [])
    said = up.bootlink("webhook", "secret", "helpdesk").stdout
    assert "shown this once" in said
    assert made["secret"] not in said + listed + str(shown)
    assert up.bootlink("webhook", "remove", "helpdesk").returncode == 0
    assert (
        error_of(up.bootlink("webhook", "show", "helpdesk"))[1] == "bootlink webhook list shows the webhooks there are"
    )


def test_what_was_added_is_there_after_a_stop_and_a_new_start_and_all_is_below_the_data_folder(tmp_path: Path) -> None:
    with Up() as up:
        up.query("image", "add", "debian", str(sparse_disk(tmp_path / "disk.img", MIB)))
        assert up.stop() == 0
        assert eventually_gone(up.pids, seconds=1) == []
        stops = [said["service"] for said in up.said if said["event"] == "stopped"]
        assert stops == ["blockstore", "registry", "postgres", "nats"]
        held = ["admin.token", "blockstore", "cluster.key", "nats", "postgres", "registry", "up.lock"]
        assert sorted(p.name for p in up.data.iterdir()) == held
        for secret in ("cluster.key", "admin.token"):
            assert stat.S_IMODE((up.data / secret).stat().st_mode) == 0o600
        up.start()
        assert [image["name"] for image in up.query("image", "list")] == ["debian"]


def test_a_second_up_on_the_same_data_says_so_and_disturbs_nothing(up: Up) -> None:
    second = bootlink("up", "--services", "registry", "--data", str(up.data))
    problem, remedy = error_of(second)
    assert problem == f"another `bootlink up` (process {up.process.pid}) is using {up.data}"
    assert "--data" in remedy
    assert up.query("status")["ready"] is True


@pytest.mark.parametrize("victim", ["registry", "blockstore", "nats", "postgres"])
def test_whoever_is_killed_comes_back_where_it_was_and_the_system_works(up: Up, victim: str, tmp_path: Path) -> None:
    addresses = up.facts["services"]
    told = len(up.said)
    os.kill(up.pid_of(victim), signal.SIGKILL)
    again = up.until(lambda s: s["event"] == "service_ready" and s["service"] == victim, seconds=60, after=told)
    if victim in addresses:
        assert {k: v for k, v in again["addresses"].items() if k != "health"} == {
            k: v for k, v in addresses[victim].items() if k != "health"
        }
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if up.bootlink("image", "add", f"after-{victim}", str(sparse_disk(tmp_path / "d.img", MIB))).returncode == 0:
            break
        time.sleep(0.5)
    assert f"after-{victim}" in [image["name"] for image in up.query("image", "list")]
    assert up.query("status")["ready"] is True
    assert {said["service"] for said in up.said[told:] if said["event"] == "died"} == {victim}


def test_a_killed_up_leaves_no_child_and_a_new_one_takes_over_at_once(up: Up) -> None:
    children = [up.pid_of(name) for name in ("nats", "postgres", "registry", "blockstore")]
    assert all(alive(pid) for pid in children)
    up.process.kill()
    up.process.wait()
    up.start()  # waits for the lock, which the children hold until the last of them has ended
    assert eventually_gone(children, seconds=1) == []
    assert up.query("status")["ready"] is True


def test_all_four_services_run_on_a_network_card_and_the_portal_is_its_address() -> None:
    with Cable() as cable:
        up = Up("--interface", cable.server_card)
        up.prefix = Cable.inside(cable.server)
        with up:
            services = up.facts["services"]
            assert set(services) == {"registry", "blockstore", "tftp", "dhcp"}
            assert services["dhcp"]["dhcp"] == "10.77.0.1:67"
            assert services["tftp"]["tftp"] == "10.77.0.1:69"
            assert services["blockstore"]["iscsi"].startswith("10.77.0.1:")
            assert services["registry"]["api"].startswith("127.0.0.1:")
            assert up.facts["nats"].startswith("nats://127.0.0.1:")
            assert up.stop(signal.SIGINT) == 0
            assert eventually_gone(up.pids, seconds=1) == []
