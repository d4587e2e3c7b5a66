"""A PC that boots by DHCP and TFTP as firmware does, and then works on its disk whatever happens to the servers."""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass
from typing import Final

from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpPacket
from lab.dhcp_client import FIRMWARE_PATIENCE, FIRMWARE_TRIES, discover, request
from lab.iscsi import Initiator, LoginFailed
from lab.netns import Cable, entered
from lab.raw_pc import RawPc
from lab.tftp import get

PAGE: Final = 4096
PAGES: Final = 256  # of the disk, that it works on
AGAIN_SECONDS: Final = 0.2  # between tries to log in
PATIENCE: Final = 60.0  # seconds; Linux waits 120 for its iSCSI disk (open-iscsi's replacement_timeout)


@dataclass(frozen=True, slots=True)
class Script:
    """What the PC's script tells it."""

    boot_id: str
    initiator: str
    target: str
    portal: tuple[str, int]


async def boot(cable: Cable, mac: str, *, source: str) -> Script:
    """Power on: twice through DHCP, then the script. `source` is an address of the cable's client end.

    AssertionError where the way ends, with what the script shows.
    """
    with RawPc(cable, mac) as pc:
        await _addressed(pc)
        ack = await _addressed(pc)
    name = ack.file or opt.BOOT_FILE_NAME.decode(ack.options[opt.BOOT_FILE_NAME.code])
    path = name.decode() if isinstance(name, bytes) else name
    server, _, file = path.removeprefix("tftp://").partition("/")
    with entered(cable.client):
        script = (await get((server, 69), file, source=source)).decode()
    initiator = re.search(r"set initiator-iqn (\S+)", script)
    disk = re.search(r"iscsi:([\d.]+)::(\d+):[^:]*:(iqn\S+)", script)
    assert initiator, script
    assert disk, script
    return Script(initiator[1].rpartition(":")[2], initiator[1], disk[3], (disk[1], int(disk[2] or 3260)))


async def _addressed(pc: RawPc) -> DhcpPacket:
    """The ACK; asks again where nobody answers, as firmware does."""
    for _ in range(FIRMWARE_TRIES):
        asked = discover("ipxe", pc.mac, random.getrandbits(32))
        offer = await pc.ask(asked, seconds=FIRMWARE_PATIENCE)
        ack = await pc.ask(request(offer, asked), seconds=FIRMWARE_PATIENCE) if offer else None
        if ack is not None:
            return ack
    raise AssertionError(f"dhcp does not answer {pc.mac}")


class WorkingPc:
    """Writes and reads pages of its disk, one after the other. When its session ends, it logs in again as the same
    boot, as an operating system does, and goes on. Every page must be what was last acknowledged."""

    def __init__(self, cable: Cable, script: Script) -> None:
        self.cable = cable
        self.script = script
        self.exchanges = 0
        self.logins = 0
        self.longest_pause = 0.0  # seconds between two exchanges
        self._acknowledged: dict[int, bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._off = False

    async def __aenter__(self) -> WorkingPc:
        self._task = asyncio.create_task(self._work())
        await self.goes_on()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._off = True  # after the exchange that it is at: of that one it must know the end
        await self._task

    async def goes_on(self, exchanges: int = 50) -> None:
        """Wait until it has made so many exchanges more. Raises what stopped it."""
        assert self._task is not None
        wanted = self.exchanges + exchanges
        deadline = time.monotonic() + PATIENCE
        while self.exchanges < wanted:
            if self._task.done():
                self._task.result()
            assert time.monotonic() < deadline, f"{self.script.initiator} stands still"
            await asyncio.sleep(0.02)

    async def every_page_is_there(self) -> int:
        """Read all that was ever acknowledged, once it is off; returns how many pages that are."""
        with entered(self.cable.client):
            session = await self._log_in()
        assert session is not None
        try:
            for page, data in self._acknowledged.items():
                assert await session.read(page * PAGE, PAGE) == data, page
        finally:
            await session.close()
        return len(self._acknowledged)

    async def _work(self) -> None:
        chosen = random.Random(self.script.initiator)
        session: Initiator | None = None
        last = time.monotonic()
        try:
            while not self._off:
                if session is None:
                    with entered(self.cable.client):
                        session = await self._log_in()
                    if session is None:
                        await asyncio.sleep(AGAIN_SECONDS)
                        continue
                    self.logins += 1
                page, data = chosen.randrange(PAGES), chosen.randbytes(PAGE)
                try:
                    if page in self._acknowledged:
                        assert await session.read(page * PAGE, PAGE) == self._acknowledged[page], page
                    await session.write(page * PAGE, data)
                except (OSError, EOFError, TimeoutError):
                    # What was on its way may be there or not: only what is written next is known.
                    self._acknowledged.pop(page, None)
                    await session.close()
                    session = None
                    continue
                self._acknowledged[page] = data
                self.exchanges += 1
                self.longest_pause = max(self.longest_pause, time.monotonic() - last)
                last = time.monotonic()
                await asyncio.sleep(0.005)  # it shares its loop with whoever breaks the servers
        finally:
            if session is not None:
                await session.close()

    async def _log_in(self) -> Initiator | None:
        """A session; None while nobody answers. LoginFailed passes where the target refuses this boot for good."""
        try:
            return await Initiator.logged_in(*self.script.portal, name=self.script.initiator, target=self.script.target)
        except (OSError, EOFError, TimeoutError):
            return None
        except LoginFailed as refused:
            if refused.status >> 8 == 3:  # target error: not now (RFC 7143, 11.13.5)
                return None
            raise
