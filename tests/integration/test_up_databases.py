"""PostgreSQL is real everywhere: `bootlink up` with the embedded one, and with a server of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.postgres import OwnServer
from lab.registry import raw_disk
from lab.up import Up

MAC = "52:54:00:12:34:56"


@pytest.fixture(params=["embedded", "own"])
def system(request: pytest.FixtureRequest) -> Iterator[Up]:
    """A running system with registry and block store on this kind of database."""
    if request.param == "embedded":
        with Up() as up:
            assert any(said.get("service") == "postgres" for said in up.said)
            yield up
        return
    with OwnServer() as server, Up(env={"BOOTLINK_DATABASE_URL": server.url}) as up:
        assert not any(said.get("service") == "postgres" for said in up.said)
        assert OwnServer.PASSWORD not in json.dumps(up.said), "the password is told nowhere"
        yield up


def test_what_was_set_is_there_after_a_restart_on_either_database(system: Up, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = system.bootlink(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("image", "add", "demo", str(raw_disk(tmp_path / "demo.img")))
    run("client", "add", MAC, "--name", "pc-07", "--group", "room")
    run("link", "set", "--group", "room", "demo", "--policy", "keep")
    before = json.loads(run("client", "show", "pc-07", "--json"))
    assert before["link"]["image"] == "demo"
    assert system.stop() == 0
    system.start()
    after = json.loads(run("client", "show", "pc-07", "--json"))
    assert (after["link"], after["name"], after["group"]) == (before["link"], "pc-07", "room")
