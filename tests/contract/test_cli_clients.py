"""The commands for clients, groups, enrolment, disks, menus and whole rosters, against a registry that runs."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import bootlink_runtime
from bootlink import api, app
from bootlink_events import BootId, ClientSeen
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import TOKEN, Registry, raw_disk, registry_on, until

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))
Run = Callable[..., Awaitable[str]]


@pytest.fixture(autouse=True)
def log(tmp_path: Path) -> Iterator[None]:
    """The registry's log goes to a file: it is in the process of the commands, whose output is looked at."""
    with (tmp_path / "registry.log").open("w") as file:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(file))
        yield
        structlog.reset_defaults()


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    """With two images and two clients."""
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        for name in ("win11", "games"):
            await running.add_image(name, raw_disk(tmp_path / f"{name}.img"))
        await running.add_client(A, "pc-1", group="room-1")
        await running.add_client(B, "pc-2", group="room-1")
        yield running


@pytest.fixture
def run(registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, in a thread: the registry has the event loop. Returns what it prints."""
    monkeypatch.setenv("BOOTLINK_API", str(registry.http.base_url))
    monkeypatch.setenv("BOOTLINK_TOKEN", TOKEN)
    monkeypatch.setattr(bootlink_runtime, "configure", lambda *_: None)  # logs are the whole process's
    made: list[api.Api] = []
    real = api.from_environment

    def remembered() -> api.Api:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(api, "from_environment", remembered)

    async def done(*arguments: str, fails: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["bootlink", *arguments])

        def call() -> int:
            try:
                app.main()
            except SystemExit as end:
                return int(end.code or 0)
            finally:
                while made:
                    made.pop().close()  # a command leaves that to the end of its process
            return 0

        capsys.readouterr()
        code = await asyncio.to_thread(call)
        out, errors = capsys.readouterr()
        assert code == fails, errors
        return errors if fails else out

    return done


async def query(run: Run, *arguments: str) -> Any:
    text = await run(*arguments, "--json")  # and the lines that the registry logs here, which begin with their date
    return json.loads("\n".join(line for line in text.splitlines() if not line.startswith("20")))


async def test_clients_are_changed_renamed_disabled_and_removed(run: Run) -> None:
    await run("client", "set", "pc-1", "--address", "10.77.0.9", "--note", "by the door", "--group", "desks")
    client = await query(run, "client", "show", "pc-1")
    assert (client["address"], client["note"], client["group"]) == ("10.77.0.9", "by the door", "desks")
    assert "by the door" in await run("client", "list")
    await run("client", "set", "pc-1", "--no-address", "--no-group", "--note", "")
    client = await query(run, "client", "rename", "pc-1", "front")
    assert (client["name"], client["address"], client["group"], client["note"]) == ("front", None, None, "")
    assert "disabled  yes" in await run("client", "disable", "front")
    assert "switched off" in await run("client", "show", "front")
    assert (await query(run, "client", "enable", "front"))["disabled"] is False
    await run("client", "remove", "front")
    assert "there is no client 'front'" in await run("client", "remove", "front", fails=1)
    assert "is called pc-2 already" in await run("client", "add", C, "--name", "pc-2", fails=1)
    assert "nothing to change" in await run("client", "set", "pc-2", fails=2)


async def test_a_further_disk_is_linked_shown_and_taken_away(run: Run) -> None:
    games = ("--group", "room-1", "--lun", "1")
    await run("link", "set", "--default", "win11")
    assert "LUN      1" in await run("link", "set", "games", *games)
    shown = await run("client", "show", "pc-1")
    assert "win11:production (version 1), policy discard" in shown
    assert "games:production (version 1), policy discard" in shown
    assert (await query(run, "link", "show", *games))["image"] == "games"
    assert [link["lun"] for link in await query(run, "link", "list")] == [0, 1]
    without = ("link", "set", "pc-1", "--lun", "1", "--no-disk")
    assert "no disk" in await run(*without)
    assert "games" not in await run("client", "show", "pc-1")
    assert re.search(r"client pc-1 +1 +no disk", await run("link", "list"))
    assert "leave games out" in await run(*without, "games", fails=2)
    assert "as in --lun 1" in await run("link", "set", "pc-1", "--no-disk", fails=2)
    await run("link", "remove", "pc-1", "--lun", "1")
    assert "group room-1, LUN 1" in await run("link", "remove", *games)
    assert "group room-1 has no link for LUN 1" in await run("link", "remove", *games, fails=1)
    assert "default, LUN 0" in await run("link", "remove", "--default")


async def test_a_menu_grows_entry_by_entry_and_goes_with_its_last(run: Run) -> None:
    menu = ("link", "menu")
    assert "no default link" in await run(*menu, "add", "--default", "play", "games", fails=1)
    await run("link", "set", "--default", "win11")
    assert "has no boot menu" in await run(*menu, "show", "--default", fails=1)
    await run(*menu, "add", "--default", "play", "games", "--title", "Games")
    await run(*menu, "add", "--default", "old", "win11", "--version", "1", "--policy", "keep")
    await run(*menu, "set", "--default", "--entry", "play", "--seconds", "0", "--title", "Windows 11")
    shown = await run(*menu, "show", "--default")
    assert "never: it waits for a choice" in shown
    assert [line.split()[0] for line in shown.splitlines()[-3:]] == ["link", "play", "old"]
    assert "Windows 11, Games, win11" in await run("client", "show", "pc-1")
    held = await query(run, *menu, "add", "--default", "play", "games", "--title", "More games")
    assert [entry["title"] for entry in held["entries"]] == ["More games", ""]
    held = await query(run, *menu, "remove", "--default", "play")
    assert (held["default"], held["seconds"]) == ("link", 0), "the default went, and the link itself takes its place"
    assert "no entry gone; there are: old" in await run(*menu, "remove", "--default", "gone", fails=1)
    assert "the menu" in await run(*menu, "remove", "--default", "old")
    assert "has no boot menu" in await run(*menu, "clear", "--default", fails=1)
    assert "name one of" in await run(*menu, "show", "--client", "pc-1", "--default", fails=2)


async def test_of_two_who_change_a_menu_at_once_the_second_is_told_and_changes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    menu = ("link", "menu")
    await run("link", "set", "--default", "win11")
    await run(*menu, "add", "--default", "play", "games")
    read = api.Api.get_to_change
    others = 0

    def read_then_overtaken(registry: api.Api, *path: str) -> tuple[Any, str]:
        nonlocal others
        others += 1
        held, etag = read(registry, *path)
        other = {name: held[name] for name in ("entries", "default", "seconds")} | {"title": f"change {others}"}
        registry.put(*path, body=other)
        return held, etag

    monkeypatch.setattr(api.Api, "get_to_change", read_then_overtaken)
    for change in (("add", "old", "win11"), ("remove", "play"), ("set", "--seconds", "3")):
        told = await run(*menu, *change, "--default", fails=1)
        assert "somebody else has changed it meanwhile, and nothing was done" in told
        assert "give the command again" in told
    held = await query(run, *menu, "show", "--default")
    assert (held["title"], held["seconds"], [one["name"] for one in held["entries"]]) == ("change 3", 10, ["play"])


async def test_what_a_request_holds_that_is_wrong_is_told_in_the_words_of_the_command(run: Run) -> None:
    told = await run("client", "add", "52:54:00:00:00:77", "--name", "p c/7", fails=1)
    assert "error: name: " in told
    assert "the command's --help says what it takes" in told
    for word in ("openapi", "request", "body"):
        assert word not in told
    assert "bootlink client enable pc-1" in await run("client", "disable", "pc-1") + await run("client", "show", "pc-1")


async def test_groups_are_listed_shown_renamed_and_joined(run: Run) -> None:
    await run("link", "set", "--group", "room-1", "win11")
    assert "room-1  2        win11 (production, discard)" in await run("group", "list")
    assert "clients  2" in await run("group", "rename", "room-1", "library")
    assert "clients  1" in await run("group", "move", "annex", "pc-2")
    shown = await query(run, "group", "show", "library")
    assert [client["name"] for client in shown["members"]] == ["pc-1"]
    assert "pc-2" in await run("group", "show", "annex")
    assert "these are no clients: pc-9" in await run("group", "move", "annex", "pc-1", "pc-9", fails=1)


async def test_unknown_pcs_are_let_in_by_rule_or_by_hand(run: Run, nats: NatsServer) -> None:
    shown = await run("enrolment", "set", "--policy", "refuse", "--name", "lab-{n}", "--group", "new")
    assert "waits for `bootlink client accept`" in shown
    assert "lab-{n}" in await run("enrolment", "show")
    assert "is no pattern" in await run("enrolment", "set", "--name", "lab", fails=1)
    async with bus_on(nats.url) as bus:
        bus.emit(ClientSeen(mac=C, boot_id=BootId.mint(), arch="bios", vendor_class="PXEClient"))

        async def seen() -> bool:
            return C in await run("client", "sightings")

        await until(seen, "the sighting")
    accepted = await run("client", "accept", C, "--note", "new today")
    assert "client  lab-1" in accepted
    assert "group   new" in accepted
    assert "no unknown PC was seen" in await run("client", "sightings")
    assert "was seen" in await run("client", "forget", C, fails=1)
    assert (await query(run, "enrolment", "set", "--no-group", "--policy", "accept"))["group"] is None


async def test_a_roster_is_exported_changed_and_imported_again(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    await run("client", "export", str(file))
    file.write_text(file.read_text().replace("pc-1", "desk-1") + f"- mac: {C}\n  image: win11\n")
    assert "would be added      1" in await run("client", "import", str(file), "--dry-run")
    answer = await query(run, "client", "import", str(file))
    assert answer == {"added": 1, "changed": 1, "unchanged": 1, "dry_run": False}
    csv = await run("client", "export")
    assert f"\n{A},desk-1,room-1,,no,,,,,,,,\n" in csv
    bad = tmp_path / "bad.csv"
    bad.write_text(f"mac,name\n{A},pc 1\n{B},desk-1\nx,y\n")
    told = await run("client", "import", str(bad), fails=1)
    assert [line.split(":")[0] for line in told.splitlines()] == ["error", "  line 2", "  line 4", "  what to do"]
    assert "say --format csv or --format yaml" in await run("client", "import", str(tmp_path / "x.txt"), fails=2)
    assert "cannot be read" in await run("client", "import", str(tmp_path / "gone.csv"), fails=1)


async def test_waking_without_a_dhcp_service_says_what_is_missing(run: Run) -> None:
    assert "no dhcp service runs" in await run("client", "wake", "pc-1", fails=1)
    assert "there is no group 'gone'" in await run("client", "wake", "--group", "gone", fails=1)
    assert "name clients, or a --group" in await run("client", "wake", fails=2)


async def test_a_groups_dhcp_options_and_loaders_are_set_listed_and_removed(run: Run) -> None:
    await run("group", "option", "set", "room-1", "42", "addresses", "10.77.0.5")
    await run("group", "option", "set", "room-1", "252", "text", "http://wpad/wpad.dat")
    text = await run("group", "option", "set", "room-1", "42", "addresses", "10.77.0.6")
    assert "10.77.0.6" in text
    assert "10.77.0.5" not in text
    assert [one["code"] for one in await query(run, "group", "option", "list", "room-1")] == [42, 252]
    await run("group", "loader", "set", "room-1", "shim.efi", "snponly.efi", "--arch", "uefi-x64")
    assert "uefi-x64" in await run("group", "loader", "list", "room-1")
    shown = await run("group", "show", "room-1")
    assert "42 = 10.77.0.6" in shown
    assert "uefi-x64: shim.efi, snponly.efi" in shown
    await run("group", "option", "remove", "room-1", "252")
    await run("group", "loader", "remove", "room-1", "--arch", "uefi-x64")
    refused = await run("group", "option", "remove", "room-1", "252", fails=1)
    assert "room-1 has no option 252" in refused
    held = (await query(run, "group", "show", "room-1"))["dhcp"]
    assert [one["code"] for one in held["options"]] == [42]
    assert held["loaders"] == []


async def test_of_two_who_change_a_groups_dhcp_settings_at_once_the_second_changes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run("group", "option", "set", "room-1", "252", "text", "http://wpad/wpad.dat")
    await run("group", "loader", "set", "room-1", "shim.efi", "--arch", "uefi-x64")
    read = api.Api.get_to_change
    others = 0

    def read_then_overtaken(registry: api.Api, *path: str) -> tuple[Any, str]:
        nonlocal others
        others += 1
        held, etag = read(registry, *path)
        option = {"code": 42, "type": "addresses", "value": f"10.77.0.{others}"}
        kept = [one for one in held["options"] if one["code"] != option["code"]]
        registry.put(*path, body={"options": [*kept, option], "loaders": held["loaders"]})
        return held, etag

    monkeypatch.setattr(api.Api, "get_to_change", read_then_overtaken)
    for change in (
        ("option", "set", "room-1", "42", "addresses", "10.77.0.99"),
        ("option", "remove", "room-1", "252"),
        ("loader", "set", "room-1", "ipxe.efi", "--arch", "uefi-x64"),
        ("loader", "remove", "room-1", "--arch", "uefi-x64"),
    ):
        assert "somebody else has changed it meanwhile, and nothing was done" in await run("group", *change, fails=1)
    held = (await query(run, "group", "show", "room-1"))["dhcp"]
    assert {one["code"]: one["value"] for one in held["options"]} == {252: "http://wpad/wpad.dat", 42: "10.77.0.4"}
    assert [rule["loaders"] for rule in held["loaders"]] == [["shim.efi"]]


async def test_an_option_that_is_not_the_administrators_is_named_once(run: Run) -> None:
    told = await run("group", "option", "set", "room-1", "53", "byte", "3", fails=1)
    assert told.count("option 53") == 1
