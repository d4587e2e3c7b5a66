"""The whole system with a part gone, a disk full or its clock wrong: PCs boot and work on, and nothing is lost.

`bootlink up` runs on a LAN of the test's own. One PC works on its disk throughout, others are switched on while the
part is away. What people see of each outage is in docs/operations.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import BootId
from lab.blockstore import digest, make_image
from lab.disks import MIB
from lab.netns import Cable
from lab.registry import until
from lab.up import Up
from lab.working_pc import WorkingPc, boot

PC_ADDRESS = "10.77.0.9"  # the PCs' end of the cable, below the pool
NATS_DISK = 40 * MIB
WAIT = 60.0
STAGES = {"boot.started", "boot.addressed", "boot.script_served", "boot.disk_attached"}
pytestmark = pytest.mark.timeout(240)
MACS = [f"52:54:00:0b:00:{n:02x}" for n in range(1, 17)]  # known clients: nobody has to be enrolled in an outage


class System:
    """`bootlink up` on the server's end of a cable, with an image that every PC boots."""

    def __init__(self, up: Up, cable: Cable, image: Path) -> None:
        self.up = up
        self.cable = cable
        self.image = image
        self.macs = iter(MACS)
        self._bytes = digest(image)

    def kill(self, name: str) -> int:
        """kill -9; returns how much `up` had said before."""
        told = len(self.up.said)
        os.kill(self.up.pid_of(name), signal.SIGKILL)
        return told

    async def back(self, name: str, *, after: int) -> None:
        await asyncio.to_thread(
            self.up.until, lambda s: s["event"] == "service_ready" and s["service"] == name, seconds=WAIT, after=after
        )

    @contextlib.contextmanager
    def halted(self, *names: str) -> Iterator[None]:
        """As if they were gone and did not come back: nobody answers, and connections stay open."""
        pids = [self.up.pid_of(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def pc(self) -> AsyncIterator[WorkingPc]:
        """A PC that boots and works; at the end all that it wrote is there, and the image is what it was."""
        script = await boot(self.cable, next(self.macs), source=PC_ADDRESS)
        async with WorkingPc(self.cable, script) as pc:
            yield pc
            await pc.goes_on()
        assert await pc.every_page_is_there() > 0
        assert digest(self.image) == self._bytes

    async def query(self, *arguments: str) -> Any:
        return await asyncio.to_thread(self.up.query, *arguments)

    async def told_whole(self, boot_id: str) -> None:
        """Wait until the registry knows every stage of this boot."""

        async def known() -> bool:
            shown = await asyncio.to_thread(self.up.bootlink, "boot", "show", boot_id, "--json")
            return not shown.returncode and {s["kind"] for s in json.loads(shown.stdout)["stages"]} >= STAGES

        await until(known, f"every stage of {boot_id}", seconds=WAIT)

    async def works(self) -> None:
        """What an administrator does is done: a change reaches a PC that boots afterwards."""

        async def changed() -> bool:
            done = await asyncio.to_thread(self.up.bootlink, "link", "set", "--default", "gold")
            return done.returncode == 0

        await until(changed, "a change of a link", seconds=WAIT)


@contextlib.contextmanager
def running(cable: Cable, folder: Path, **env: str) -> Iterator[System]:
    """The system; its NATS writes to a small disk of its own."""
    store = folder / "data" / "nats"
    store.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={NATS_DISK}", "tmpfs", str(store)], check=True)
    try:
        up = Up("--interface", cable.server_card, data=folder / "data", env=env)
        up.prefix = Cable.inside(cable.server)
        with up:
            image = make_image(folder / "gold.img", 4 * MIB)
            up.query("image", "add", "gold", str(image))
            up.query("link", "set", "--default", "gold")
            roster = folder / "pcs.csv"
            roster.write_text("mac,name\n" + "".join(f"{mac},pc-{n:02}\n" for n, mac in enumerate(MACS)))
            assert up.bootlink("client", "import", str(roster)).returncode == 0
            while not up.query("client", "show", MACS[-1])["plan"]["delivered"]:
                time.sleep(0.1)
            yield System(up, cable, image)
    finally:
        subprocess.run(["umount", str(store)], check=True)


@pytest.fixture(scope="module")
def lan() -> Iterator[Cable]:
    with Cable(client_address=f"{PC_ADDRESS}/24") as made:
        yield made


@pytest.fixture(scope="module")
def system(lan: Cable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(lan, tmp_path_factory.mktemp("up")) as made:
        yield made


async def outlives(system: System, engine: str) -> int:
    """One PC works and another boots while it is killed and comes back; returns how much `up` had said before."""
    async with system.pc() as pc:
        told = system.kill(engine)
        during = await boot(system.cable, next(system.macs), source=PC_ADDRESS)
        await pc.goes_on()
        await system.back(engine, after=told)
        assert pc.logins == 1, "its session never ended"
    async with WorkingPc(system.cable, during):
        await system.told_whole(during.boot_id)
    await system.works()
    return told


async def test_nats_is_killed_and_comes_back(system: System) -> None:
    await outlives(system, "nats")


async def test_postgresql_is_killed_and_comes_back(system: System) -> None:
    told = await outlives(system, "postgres")
    assert not [s for s in system.up.said[told:] if s["event"] == "died" and s["service"] != "postgres"]


async def test_pcs_boot_while_the_registry_is_away_and_it_hears_of_them_later(system: System) -> None:
    async with system.pc() as pc:
        with system.halted("registry", "postgres"):
            scripts = [await boot(system.cable, next(system.macs), source=PC_ADDRESS) for _ in range(3)]
            await pc.goes_on()
        for script in scripts:
            async with WorkingPc(system.cable, script):
                await system.told_whole(script.boot_id)


async def test_a_client_goes_on_over_the_death_of_its_block_store(system: System) -> None:
    async with system.pc() as pc:
        for _ in range(3):
            told = system.kill("blockstore")
            await system.back("blockstore", after=told)
            await pc.goes_on()
        assert pc.logins == 4


async def test_a_full_disk_under_nats_keeps_events_waiting_and_boots_nobody_less(system: System) -> None:
    store = system.up.data / "nats"
    async with system.pc() as pc:
        told = len(system.up.said)
        filler = store / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        during = await boot(system.cable, next(system.macs), source=PC_ADDRESS)
        await pc.goes_on()

        async def seen() -> bool:
            status = await system.query("status")
            return any("Is its disk full?" in service["checks"]["nats"]["detail"] for service in status["services"])

        await until(seen, "the status says that nothing is stored", seconds=WAIT)
        said = await asyncio.to_thread(
            system.up.until,
            lambda s: s["event"] == "log" and s["service"] == "nats" and "stores nothing" in s["message"],
            seconds=WAIT,
            after=told,
        )
        assert "free 64 MiB" in said["fields"]["remedy"]
        filler.unlink()
        subprocess.run(["mount", "-o", f"remount,size={NATS_DISK + 128 * MIB}", str(store)], check=True)
        await system.back("nats", after=told)
        assert pc.logins == 1
    async with WorkingPc(system.cable, during):
        await system.told_whole(during.boot_id)
    await system.works()


async def test_a_clock_that_jumps_back_by_an_hour_keeps_no_pc_from_its_disk(
    tmp_path: Path, empty_database: str
) -> None:
    """The clock of the four services. NATS and PostgreSQL keep the true time, and are told by nobody."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    assert library, "libfaketime is missing: apt-get install libfaketime"
    offset = tmp_path / "offset"
    offset.write_text("+0")
    fake = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "BOOTLINK_DATABASE_URL": empty_database,
    }
    with Cable(client_address=f"{PC_ADDRESS}/24") as lan, running(lan, tmp_path, **fake) as system:
        mac = next(system.macs)
        before = await boot(lan, mac, source=PC_ADDRESS)
        async with system.pc() as pc, WorkingPc(lan, before):
            await system.told_whole(before.boot_id)
            offset.write_text("-3600")
            await asyncio.sleep(2)
            await pc.goes_on()
            assert pc.logins == 1
        after = await boot(lan, mac, source=PC_ADDRESS)
        assert BootId.parse(after.boot_id) > BootId.parse(before.boot_id), (
            "or the block store would take it for an older one"
        )
        async with WorkingPc(lan, after):
            await system.told_whole(after.boot_id)
        fresh = await boot(lan, next(system.macs), source=PC_ADDRESS)
        assert BootId.parse(fresh.boot_id) < BootId.parse(before.boot_id), "the clock did jump"
        async with WorkingPc(lan, fresh):
            await system.told_whole(fresh.boot_id)
