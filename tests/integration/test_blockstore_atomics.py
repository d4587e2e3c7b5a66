"""Atomic commands of several sessions on one real disk: no update is lost, and none is seen by halves."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from lab.blockstore import Policy, digest, make_image, plan, serving
from lab.iscsi import ISID, CheckConditionSeen, Initiator

ROUNDS = 40
SESSIONS = 4


async def compare_and_write(who: Initiator, lba: int, expected: bytes, wanted: bytes) -> bool:
    """False if the disk holds something else."""
    data = expected + wanted
    cdb = struct.pack(">BBQ3xBxx", 0x89, 0, lba, len(expected) // 512)
    who.send(who.command(cdb, expected=len(data), write=True, data=data))
    answer = await who.receive()
    assert isinstance(answer, pdu.ScsiResponse)
    if answer.status:
        seen = CheckConditionSeen(answer.data)
        assert (seen.key, seen.code) == (0x0E, 0x1D00)
    return answer.status == 0


async def write_atomic(who: Initiator, lba: int, data: bytes) -> None:
    cdb = struct.pack(">BBQ2xHxx", 0x9C, 0, lba, len(data) // 512)
    who.send(who.command(cdb, expected=len(data), write=True, data=data[:65536]))
    answer = await who.receive()
    if isinstance(answer, pdu.ReadyToTransfer):
        part = data[answer.offset : answer.offset + answer.desired]
        for number, at in enumerate(range(0, len(part), 65536)):
            last = at + 65536 >= len(part)
            who.send(
                pdu.DataOut(
                    flags=codes.FINAL if last else 0,
                    itt=answer.itt,
                    ttt=answer.ttt,
                    datasn=number,
                    offset=answer.offset + at,
                    data=part[at : at + 65536],
                )
            )
        answer = await who.receive()
    assert isinstance(answer, pdu.ScsiResponse)
    assert answer.status == 0


@pytest.mark.parametrize("policy", ["discard", "keep"])
async def test_no_compare_and_write_of_several_sessions_is_lost(tmp_path: Path, policy: Policy) -> None:
    base = make_image(tmp_path / "base.img")
    before = digest(base)
    async with serving(tmp_path, plan(base, policy=policy)) as lab:
        sessions = [
            await Initiator.logged_in(lab.host, lab.port, isid=ISID[:-1] + bytes((n,))) for n in range(SESSIONS)
        ]
        await sessions[0].write(8 * 512, bytes(512))

        async def count(who: Initiator) -> int:
            misses = done = 0
            while done < ROUNDS:
                held = await who.read(8 * 512, 512)
                number = int.from_bytes(held[:8], "big") + 1
                hit = await compare_and_write(who, 8, held, number.to_bytes(8, "big") * 64)
                done += hit
                misses += not hit
            return misses

        misses = sum(await asyncio.gather(*map(count, sessions)))
        assert await sessions[0].read(8 * 512, 512) == (SESSIONS * ROUNDS).to_bytes(8, "big") * 64
        assert misses > 0, "the sessions never met, so nothing was shown"
        for who in sessions:
            await who.close()
    assert digest(base) == before


async def test_plain_writes_into_the_same_page_and_compare_and_writes_lose_nothing_of_each_other(
    tmp_path: Path,
) -> None:
    base = make_image(tmp_path / "base.img")
    before = digest(base)
    async with serving(tmp_path, plan(base)) as lab:
        counter, writer, trimmer = [
            await Initiator.logged_in(lab.host, lab.port, isid=ISID[:-1] + bytes((n,))) for n in range(3)
        ]
        image = await counter.read(0, 4096)

        async def count() -> None:
            for number in range(ROUNDS):
                held = image[512:1024] if number == 0 else number.to_bytes(8, "big") * 64
                assert await compare_and_write(counter, 1, held, (number + 1).to_bytes(8, "big") * 64)

        async def write() -> None:
            for number in range(ROUNDS):
                await writer.write(1024, bytes((number,)) * 1024)

        async def trim() -> None:
            for _ in range(ROUNDS):
                data = struct.pack(">HH4xQI4x", 22, 16, 4, 4)
                cdb = struct.pack(">B6xHx", 0x42, len(data))
                trimmer.send(trimmer.command(cdb, expected=len(data), write=True, data=data))
                answer = await trimmer.receive()
                assert isinstance(answer, pdu.ScsiResponse)
                assert answer.status == 0

        await asyncio.gather(count(), write(), trim())
        wanted = image[:512] + ROUNDS.to_bytes(8, "big") * 64 + bytes((ROUNDS - 1,)) * 1024 + bytes(2048)
        assert await counter.read(0, 4096) == wanted
        for who in (counter, writer, trimmer):
            await who.close()
    assert digest(base) == before


async def test_an_atomic_write_is_never_mixed_with_another(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img")
    before = digest(base)
    size = 256 * 512
    async with serving(tmp_path, plan(base)) as lab:
        sessions = [
            await Initiator.logged_in(lab.host, lab.port, isid=ISID[:-1] + bytes((n,))) for n in range(SESSIONS)
        ]

        async def write(who: Initiator, mark: int) -> None:
            for _ in range(ROUNDS // 4):
                await write_atomic(who, 8, bytes((mark,)) * size)

        await asyncio.gather(*(write(who, n + 1) for n, who in enumerate(sessions)))
        assert len(set(await sessions[0].read(8 * 512, size))) == 1
        for who in sessions:
            await who.close()
    assert digest(base) == before
