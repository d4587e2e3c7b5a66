"""NATS servers of an administrator's own, by `bootlink nats` or with an operator, and one that had no accounts yet."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from bootlink.engines.nats import NatsEngine, free_port
from bootlink_events import EVENTS_STREAM, BootId, ClientSeen, CloudEvent
from bootlink_runtime import BusUnavailable, StartupError, connect_once, follow
from bootlink_runtime.access import NatsAccess, access
from lab.chassis import bus_on
from lab.nats_operator import Operator
from lab.process import Process
from lab.up import bootlink, error_of

WAIT = 20


class OwnServer:
    """A nats-server that is told by a file alone, and has its store in this folder."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.port = free_port("127.0.0.1")
        self.url = f"nats://127.0.0.1:{self.port}"
        self.file = folder / "own.conf"
        engine = NatsEngine(folder, host="127.0.0.1", port=self.port)
        self.answers = engine.answers
        (program, *_) = engine.command
        self.process = Process([program, "--config", str(self.file)], log=folder / "own.log")

    def start(self, told: str) -> None:
        self.file.write_text(told)
        self.process.start(self.answers)

    def reload(self, told: str) -> None:
        self.file.write_text(told)
        os.kill(self.process.pid, signal.SIGHUP)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path)
    yield server
    server.process.kill()


def said(*arguments: str) -> str:
    done = bootlink("nats", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen(number: int) -> ClientSeen:
    return ClientSeen(mac=f"52:54:00:00:00:{number:02x}", boot_id=BootId.mint())


async def admits(url: str, shown: NatsAccess) -> bool:
    try:
        client = await connect_once(url, "test", shown)
    except BusUnavailable:
        return False
    await client.close()
    return True


async def test_a_server_of_ones_own_lets_an_integration_in_once_it_has_read_its_configuration_anew(
    own: OwnServer, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    made = json.loads(said("keys", "--keys", str(keys), "--json"))
    assert {"dhcp", "tftp", "blockstore", "registry", "command", "reader"} <= made.keys()
    assert {Path(file).stat().st_mode & 0o777 for file in made.values()} == {0o600}
    config = ["config", "--keys", str(keys), "--listen", f"127.0.0.1:{own.port}", "--store", str(own.store)]
    own.start(said(*config))
    assert not {Path(file).read_text().strip() for file in made.values()} & set(own.file.read_text().split('"'))

    def key_of(role: str) -> NatsAccess:
        return access(url=own.url, credentials_file=keys, name=role)

    async with bus_on(own.url, access=key_of("registry")), bus_on(own.url, access=key_of("dhcp"), make=False) as bus:
        await bus.publish(CloudEvent.of(seen(1), source="/dhcp/lab"))
        added = json.loads(said("integration", "billing", "--keys", str(keys), "--json"))
        theirs = access(url=own.url, credentials_file=Path(added["file"]))
        assert added["inbox"] == theirs.inbox
        assert not await admits(own.url, theirs)
        own.reload(said(*config))
        async with asyncio.timeout(WAIT):
            while not await admits(own.url, theirs):
                await asyncio.sleep(0.05)
            async with bus_on(own.url, access=theirs, make=False) as reader:
                assert [event.data["mac"] async for event in follow(reader, wait=False)] == [seen(1).mac]
        # Those that were in stay in.
        assert await bus.publish(CloudEvent.of(seen(2), source="/dhcp/lab"))
    assert json.loads(said("integration", "billing", "--keys", str(keys), "--json")) == added


async def test_the_accounts_alone_go_into_a_configuration_that_is_there(own: OwnServer, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    (tmp_path / "accounts.conf").write_text(said("config", "--keys", str(keys), "--accounts"))
    own.start(f"listen: 127.0.0.1:{own.port}\njetstream {{ store_dir: '{own.store}' }}\ninclude ./accounts.conf\n")
    assert await admits(own.url, access(url=own.url, credentials_file=keys, name="dhcp"))
    assert not await admits(own.url, NatsAccess())


def test_a_key_that_is_none_is_named_and_what_to_do(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    said("keys", "--keys", str(keys))
    (keys / "tftp.nk").write_text("SU and no more\n")
    problem, remedy = error_of(bootlink("nats", "config", "--keys", str(keys)))
    assert str(keys / "tftp.nk") in problem
    assert "make it anew" in remedy
    for text in ("no key", f"SU{'A' * 56}"):
        (keys / "tftp.nk").write_text(text)
        with pytest.raises(StartupError, match=r"BOOTLINK_NATS_CREDENTIALS_FILE \(.*keys\) holds no key"):
            access(url="nats://127.0.0.1", credentials_file=keys, name="tftp")
        with pytest.raises(StartupError, match="BOOTLINK_NATS_CREDENTIALS holds no key"):
            access(url="nats://127.0.0.1", credentials=text)
    problem, remedy = error_of(bootlink("nats", "integration", "Big Bill", "--keys", str(keys)))
    assert "Big Bill" in problem
    assert "a-z" in remedy


async def test_a_server_with_an_operator_takes_a_creds_file(own: OwnServer, tmp_path: Path) -> None:
    operator = Operator()
    jetstream = {"jetstream": {"store_dir": str(own.store)}, "listen": f"127.0.0.1:{own.port}"}
    own.start(json.dumps(operator.configuration() | jetstream))
    file = tmp_path / "service.creds"
    file.write_text(operator.creds)
    shown = access(url=own.url, credentials_file=file)
    async with bus_on(own.url, access=shown) as bus:
        assert await bus.publish(CloudEvent.of(seen(1), source="/dhcp/lab"))
        own.process.kill()
        own.process.start(own.answers)
        async with asyncio.timeout(WAIT):
            await bus.epoch_after(1)
        assert [event.data["mac"] async for event in follow(bus, wait=False)] == [seen(1).mac]
    assert not await admits(own.url, access(url=own.url, credentials=Operator().creds))


async def test_streams_of_a_server_without_accounts_are_kept_when_it_gets_them(tmp_path: Path) -> None:
    """What an `up` from before the accounts has stored is there for one of today, at once and at each later start."""
    folder = tmp_path / "nats"
    engine = NatsEngine(folder, host="127.0.0.1", port=0)
    engine.folder.mkdir()
    former = folder / "former.conf"
    former.write_text(json.dumps({"listen": f"127.0.0.1:{engine.port}", "jetstream": {"store_dir": f"{folder}/store"}}))
    (program, *_) = engine.command
    old = Process([program, "--config", str(former)], log=tmp_path / "former.log")
    old.start(engine.answers)
    client = Client()
    await client.connect(engine.url)
    await client.jetstream().add_stream(name=EVENTS_STREAM, subjects=["bootlink.v1.>"])
    event = CloudEvent.of(seen(1), source="/dhcp/lab")
    await client.jetstream().publish(event.nats_subject, event.payload())
    await client.close()
    assert old.stop() == 0

    for _ in range(2):
        engine.prepare()
        new = Process(engine.command, log=tmp_path / "new.log")
        new.start(engine.answers)
        try:
            shown = access(url=engine.url, credentials_file=engine.keys.folder, name="registry")
            async with bus_on(engine.url, access=shown) as bus:
                assert [event.data["mac"] async for event in follow(bus, wait=False)] == [seen(1).mac]
        finally:
            new.stop()
