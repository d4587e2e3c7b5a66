"""Reservations over real sessions: they hold within a boot, and lock no PC out that boots anew."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bootlink_events import BootId
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.scsi_sense import Status
from lab.blockstore import Lab, identity, make_image, plan, serving
from lab.iscsi import IPXE_ISID, ISID, Initiator, read_10

EXCLUSIVE_ACCESS = 3


async def persist(who: Initiator, action: int, key: int, action_key: int = 0, kind: int = 0) -> int:
    """The status of a PERSISTENT RESERVE OUT."""
    cdb = struct.pack(">BBBxxIx", 0x5F, action, kind, 24)
    data = struct.pack(">QQ8x", key, action_key)
    who.send(who.command(cdb, expected=24, write=True, data=data))
    answer = await who.receive()
    assert isinstance(answer, pdu.ScsiResponse)
    return answer.status


async def reads(who: Initiator) -> int:
    """The status of a read."""
    who.send(who.command(read_10(0, 8), expected=4096))
    answer = await who.receive()
    return answer.status if isinstance(answer, pdu.ScsiResponse) else 0


@pytest.fixture
async def sessions() -> AsyncIterator[list[Initiator]]:
    """What is in it at the end is closed."""
    opened: list[Initiator] = []
    yield opened
    for who in opened:
        await who.close()


async def session(opened: list[Initiator], lab: Lab, boot: BootId, isid: bytes) -> Initiator:
    who = await Initiator.connect(lab.host, lab.port, name=identity(boot), isid=isid)
    opened.append(who)
    await who.log_in()
    return who


async def reserved(opened: list[Initiator], lab: Lab, boot: BootId) -> Initiator:
    """A session that has the disk for itself."""
    who = await session(opened, lab, boot, ISID)
    await who.attentions()
    assert await persist(who, 0, 0, 7) == 0
    assert await persist(who, 1, 7, kind=EXCLUSIVE_ACCESS) == 0
    return who


async def test_a_reservation_holds_for_the_other_sessions_of_the_boot_and_outlives_its_own(
    tmp_path: Path, sessions: list[Initiator]
) -> None:
    boot = BootId.mint()
    async with serving(tmp_path, plan(make_image(tmp_path / "base.img"))) as lab:
        holder = await reserved(sessions, lab, boot)
        other = await session(sessions, lab, boot, IPXE_ISID)
        await other.attentions()
        assert await reads(other) == Status.RESERVATION_CONFLICT
        await holder.close()
        assert await reads(other) == Status.RESERVATION_CONFLICT
        again = await session(sessions, lab, boot, ISID)
        await again.attentions()
        assert await reads(again) == 0  # the same initiator port: it holds the reservation still
        assert await persist(again, 2, 7, kind=EXCLUSIVE_ACCESS) == 0
        assert await reads(other) == 0


async def test_a_pc_that_boots_anew_finds_no_reservation(tmp_path: Path, sessions: list[Initiator]) -> None:
    former = BootId.mint()
    async with serving(tmp_path, plan(make_image(tmp_path / "base.img"), policy="keep")) as lab:
        await reserved(sessions, lab, former)
        firmware = await session(sessions, lab, BootId.mint(after=former), IPXE_ISID)
        await firmware.attentions()
        assert await reads(firmware) == 0


async def test_a_restart_of_the_block_store_is_a_power_on_and_leaves_no_reservation(
    tmp_path: Path, sessions: list[Initiator]
) -> None:
    boot, base = BootId.mint(), make_image(tmp_path / "base.img")
    async with serving(tmp_path, plan(base)) as lab:
        await reserved(sessions, lab, boot)
    async with serving(tmp_path, plan(base)) as lab:
        other = await session(sessions, lab, boot, IPXE_ISID)
        other.send(other.command(bytes(6)))
        told = await other.receive()
        assert isinstance(told, pdu.ScsiResponse)
        assert told.data[2:][12:14].hex() == "2900"
        assert await reads(other) == 0
