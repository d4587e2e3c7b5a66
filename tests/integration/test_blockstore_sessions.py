"""The block store over real connections: reinstatement, fencing, back-pressure, and peers that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bootlink_blockstore import connection, disk, portal
from bootlink_blockstore.image import Buffer
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.writeback import Manifest, Writebacks
from bootlink_events import BootDiskAttached, BootDiskDetached, BootDiskUsed, BootFailed, BootId
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_codes import LoginStatus
from bootlink_wire.iscsi_digest import Digests
from lab.blockstore import MAC, Lab, digest, identity, make_image, plan, serving
from lab.iscsi import (
    IPXE_ISID,
    IPXE_KEYS,
    OPEN_ISCSI_KEYS,
    CheckConditionSeen,
    Initiator,
    LoginFailed,
    Speaker,
    read_10,
    write_10,
)
from lab.slow_disk import SlowDisk

SIZE = 8 << 20


def boot_id(hours_ago: float = 1.0) -> BootId:
    return BootId.mint(now_ms=int((time.time() - hours_ago * 3600) * 1000))


@contextlib.asynccontextmanager
async def lab(tmp_path: Path, **more: Any):  # type: ignore[no-untyped-def]
    base = make_image(tmp_path / "base.img", SIZE)
    before = digest(base)
    async with serving(tmp_path, plan(base), **more) as running:
        yield running
    assert digest(base) == before, "the image's bytes have changed"


def open_paths() -> set[str]:
    return {str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir()}


async def client(running: Lab, name: str, **more: object) -> Initiator:
    return await Initiator.logged_in(running.host, running.port, name=name, **more)


async def test_a_whole_disk_is_read_as_it_is_and_written_apart(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        pc = await client(running, identity(boot_id()))
        image = (tmp_path / "base.img").read_bytes()
        for offset in range(0, SIZE, 1 << 20):
            assert await pc.read(offset, 1 << 20) == image[offset : offset + (1 << 20)]
        await pc.write(513 * 512, b"w" * (300 * 512))
        await pc.write(0, b"z" * (3 << 20), fua=True)
        assert await pc.read(0, 3 << 20) == b"z" * (3 << 20)
        assert await pc.read(3 << 20, 1 << 20) == image[3 << 20 : 4 << 20]
        await pc.close()


async def test_rule_10_a_session_with_digests_notices_a_bit_that_flips_on_the_way(tmp_path: Path) -> None:
    keys = [*OPEN_ISCSI_KEYS[2:], ("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C,None")]
    async with lab(tmp_path) as running:
        pc = await client(running, identity(boot_id()), keys=keys)
        assert pc.digests == Digests(header=True, data=True)
        assert await pc.read(0, 1 << 20) == (tmp_path / "base.img").read_bytes()[: 1 << 20]
        await pc.write(4096, b"w" * 300_032)
        assert await pc.read(4096, 300_032) == b"w" * 300_032
        flipped = bytearray(b"".join(pc.digests.seal([pc.command(read_10(0, 8), expected=4096).encode()])))
        flipped[33] ^= 1
        pc.writer.write(flipped)
        assert await pc.gone()
        assert running.told.counters["header_digest_wrong"] == 1
        await pc.close()


async def test_a_firmware_that_waits_for_acknowledgements_within_a_pdu_gets_them_at_once(tmp_path: Path) -> None:
    """iPXE sends a header, and its text once that was acknowledged; a delayed acknowledgement is 40 ms late."""

    async def acknowledged(pc: Initiator) -> float:
        started = time.perf_counter()
        sock = pc.writer.get_extra_info("socket")
        while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
            await asyncio.sleep(0.001)
        return time.perf_counter() - started

    async with lab(tmp_path) as running:
        waited = []
        for _ in range(8):
            pc = await Initiator.connect(running.host, running.port, name=identity(boot_id()), isid=IPXE_ISID)
            names = [("InitiatorName", pc.name), ("TargetName", pc.target), ("AuthMethod", "None")]
            for flags, pairs in ((0x81, names), (0x87, IPXE_KEYS)):
                request = pdu.LoginRequest(
                    flags=flags, isid=pc.isid, itt=7, cmdsn=1, data=text.encode(pairs), immediate=True
                ).encode()
                pc.writer.write(request[:48])
                waited.append(await acknowledged(pc))
                pc.writer.write(request[48:])
                assert isinstance(await pc.receive(), pdu.LoginResponse)
            await pc.close()
        # The machine may be busy; what the kernel keeps back, it keeps back every time.
        assert sorted(waited)[len(waited) // 4] < 0.02
        assert min(waited[1::2]) < 0.02, waited


async def test_rule_2_an_operating_system_takes_over_from_its_firmware_without_losing_a_write(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        name = identity(boot_id())
        firmware = await client(running, name, isid=IPXE_ISID, keys=IPXE_KEYS)
        await firmware.write(0, b"flag" * 128)
        system = await client(running, name)
        assert await system.read(0, 512) == b"flag" * 128
        await system.write(512, b"more" * 128)
        assert await firmware.read(0, 1024) == b"flag" * 128 + b"more" * 128
        attached = [event for event in running.told.of(BootDiskAttached) if isinstance(event, BootDiskAttached)]
        assert [event.initiator for event in attached] == ["firmware", "os"]
        assert {event.boot_id for event in attached} == {attached[0].boot_id}
        await firmware.close()
        await system.close()


async def test_a_connection_that_is_reset_is_told_in_words(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        pc = await client(running, identity(boot_id()))
        # The kernel that a firmware has left answers a late segment with RST: so does a close that lingers for 0 s.
        reset = struct.pack("ii", 1, 0)
        pc.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        await pc.close()
        async with asyncio.timeout(5):
            while not (told := running.told.of(BootDiskDetached)):
                await asyncio.sleep(0.01)
        assert isinstance(told[0], BootDiskDetached)
        assert told[0].reason == "connection lost: Connection reset by peer"


async def test_a_session_ends_with_an_event_that_says_what_it_did(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        pc = await client(running, identity(boot_id()))
        await pc.read(0, 4096)
        await pc.read(0, 4096)
        await pc.write(0, b"x" * 1024)
        pc.send(pdu.LogoutRequest(itt=9, cmdsn=pc.cmdsn, immediate=True))
        assert isinstance(await pc.receive(), pdu.LogoutResponse)
        assert await pc.gone()
        await asyncio.sleep(0.05)
        (event,) = running.told.of(BootDiskDetached)
        assert isinstance(event, BootDiskDetached)
        assert (event.reads, event.bytes_read, event.writes, event.bytes_written) == (2, 8192, 1, 1024)
        assert event.reason == "logout"
        assert event.first_read is not None
        assert event.last_io is not None
        assert event.started <= event.first_read <= event.last_io <= event.ended
        assert [name for name, _, _ in running.told.spans] == [
            "iscsi.login",
            "iscsi.first_read",
            "iscsi.reads_until_idle",
        ]
        assert [name for name, _ in running.told.linked] == ["iscsi.session"]
        await pc.close()


async def test_a_session_that_falls_silent_tells_once_what_it_did_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.1)
    async with lab(tmp_path) as running:
        idle = await client(running, identity(boot_id(2.0), MAC))
        running.store.portal.tick()
        assert running.told.of(BootDiskUsed) == [], "it has not used its disk yet"
        await idle.read(0, 4096)
        running.store.portal.tick()
        assert running.told.of(BootDiskUsed) == [], "it may go on at once"
        await asyncio.sleep(0.15)
        running.store.portal.tick()
        await idle.read(0, 4096)
        await asyncio.sleep(0.15)
        running.store.portal.tick()
        (event,) = running.told.of(BootDiskUsed)
        assert isinstance(event, BootDiskUsed)
        assert (event.reads, event.bytes_read, event.writes) == (1, 4096, 0)
        assert event.last_io is not None
        assert event.last_io < event.ended
        await idle.close()


async def test_rule_1_a_login_with_the_same_isid_ends_the_former_session_first(tmp_path: Path) -> None:
    """PROTOCOLS 2.2 #1."""
    async with lab(tmp_path) as running:
        name = identity(boot_id())
        first = await client(running, name)
        first.send(first.command(read_10(0, 8), expected=4096, write=True))  # a write whose data never comes
        second = await client(running, name)
        assert await first.gone()
        assert await second.read(0, 512) == (tmp_path / "base.img").read_bytes()[:512]
        await first.close()
        await second.close()


async def test_rule_2_a_newer_boot_ends_the_older_one_and_starts_from_the_image(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        older, newer = identity(boot_id(2)), identity(boot_id(1))
        first = await client(running, older)
        await first.write(0, b"old!" * 128)
        second = await client(running, newer)
        assert await first.gone()
        assert await second.read(0, 512) == (tmp_path / "base.img").read_bytes()[:512]
        with pytest.raises(LoginFailed) as caught:
            await client(running, older)
        assert caught.value.status == LoginStatus.AUTHORIZATION_FAILURE
        assert len(running.told.of(BootFailed)) == 1
        await second.write(0, b"new!" * 128)
        assert await second.read(0, 512) == b"new!" * 128
        await first.close()
        await second.close()


async def test_a_client_without_a_plan_is_refused(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        with pytest.raises(LoginFailed) as caught:
            await client(running, "iqn.x:a", target="iqn.2026-11.io.bootlink:52-54-00-00-00-99")
        assert caught.value.status == LoginStatus.NOT_FOUND
        with pytest.raises(LoginFailed) as caught:
            await client(running, "iqn.x:a", target="iqn.other:target")
        assert caught.value.status == LoginStatus.NOT_FOUND


async def test_rule_3_fifty_logins_without_logout_leave_room_for_the_next(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        names = [identity(boot_id()), *["iqn.x:a"] * 50]
        pcs = [await client(running, name, isid=bytes([n] * 6)) for n, name in enumerate(names)]
        assert await pcs[-1].read(0, 512) == (tmp_path / "base.img").read_bytes()[:512]
        for pc in pcs:
            await pc.close()


async def test_a_client_that_does_not_read_is_not_read_from_and_delays_nobody(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        name = identity(boot_id())
        lazy = await client(running, name)
        lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(20):
            lazy.send(lazy.command(read_10(0, 8192), expected=4 << 20))
        await asyncio.sleep(0.3)
        (held,) = [c for c in running.store.portal.connections if c._paused]
        assert held._transport is not None
        assert held._transport.get_write_buffer_size() <= connection.WRITE_HIGH + (12 << 20)
        other = await client(running, name, isid=bytes(6))
        for _ in range(20):
            assert len(await other.read(0, 65536)) == 65536
        lazy.reader._transport.resume_reading()  # type: ignore[attr-defined]
        received = 0
        while received < 20 * (4 << 20):
            answer = await lazy.receive()
            assert isinstance(answer, pdu.DataIn)
            received += len(answer.data)
        await lazy.close()
        await other.close()


async def test_a_client_that_does_not_read_costs_no_turn_of_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    real = connection.Connection._go_on

    def counted(self: connection.Connection) -> None:
        nonlocal turns
        turns += 1
        real(self)

    monkeypatch.setattr(connection.Connection, "_go_on", counted)
    async with lab(tmp_path) as running:
        lazy = await client(running, identity(boot_id()))
        for at in range(8):
            await lazy.read(at << 20, 1 << 20)  # into the cache: from here on no task is needed
        lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(20):
            lazy.send(lazy.command(read_10(0, 8192), expected=4 << 20))
        await asyncio.sleep(0.3)
        before = turns
        await asyncio.sleep(0.3)
        assert turns == before
        lazy.reader._transport.resume_reading()  # type: ignore[attr-defined]
        await lazy.close()


async def test_rule_1_a_login_waits_for_the_writes_of_a_session_whose_connection_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 1, where the connection ends first: as it does when a PC has lost its link and comes back."""
    go, under_way = threading.Event(), threading.Event()
    real = Overlay.write

    def slow(self: Overlay, offset: int, buffers: Sequence[Buffer]) -> None:
        under_way.set()
        assert go.wait(10)
        real(self, offset, buffers)

    monkeypatch.setattr(disk, "INLINE_WRITE", 0)
    monkeypatch.setattr(Overlay, "write", slow)
    async with lab(tmp_path) as running:
        name = identity(boot_id())
        first = await client(running, name)
        first.send(first.command(write_10(0, 1), expected=512, write=True, data=b"x" * 512))
        assert await asyncio.to_thread(under_way.wait, 10)
        first.writer.transport.abort()
        again = asyncio.create_task(client(running, name))
        await asyncio.sleep(0.2)
        assert not again.done(), "admitted while a write of the former session can still land"
        go.set()
        second = await again
        assert await second.read(0, 512) == b"x" * 512
        assert len(running.told.of(BootDiskDetached)) == 1
        await second.close()


async def test_a_connection_that_does_not_log_in_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOGIN_SECONDS", 0.2)
    async with lab(tmp_path) as running:
        idle = await Initiator.connect(running.host, running.port)
        idle.writer.write(Speaker().login().encode()[:50])
        assert await idle.gone()
        assert running.told.counters["logins_overdue"] == 1
        await idle.close()


async def test_half_open_logins_are_few_per_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOGINS_PER_PEER", 4)
    async with lab(tmp_path) as running:
        half = [await Initiator.connect(running.host, running.port) for _ in range(4)]
        await asyncio.sleep(0.05)
        fifth = await Initiator.connect(running.host, running.port)
        assert await fifth.gone()
        for one in (*half, fifth):
            await one.close()
        await asyncio.sleep(0.05)
        pc = await client(running, identity(boot_id()))
        await pc.close()
        assert not running.store.portal.logins


async def test_a_thousand_half_open_logins_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROTOCOLS 6. They come from 40 addresses, in two halves: what they may have, and beyond."""
    monkeypatch.setattr(portal, "LOGINS_LIMIT", 500)
    async with lab(tmp_path) as running:
        pc = await client(running, identity(boot_id(2.0)))
        half: list[asyncio.StreamWriter] = []
        first = Speaker().login().encode()
        for number in range(1_000):
            address = (f"127.0.1.{number // 25 + 1}", 0)
            _, writer = await asyncio.open_connection(running.host, running.port, local_addr=address)
            writer.write(first[: number % len(first)])
            half.append(writer)
            if number % 100 == 99:
                assert len(await pc.read(number * 4096, 4096)) == 4096
                assert running.store.portal.logins.total() <= 500
        newer = await client(running, identity(boot_id(1.0)))
        assert len(await newer.read(0, 65536)) == 65536
        assert running.told.counters["logins_crowded_out"] >= 500
        assert len(running.store.portal.connections) <= 501
        for writer in half:
            writer.transport.abort()
        await pc.close()
        await newer.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: target\r\n\r\n" + bytes(48),
        os.urandom(4096),
        b"\x43" + b"\xff" * 47,
        b"\x16\x03\x01" + bytes(200),
        bytes(48),
    ],
    ids=["http", "noise", "huge login", "tls", "nop"],
)
async def test_a_stranger_that_speaks_no_iscsi_is_closed_and_the_next_login_works(
    tmp_path: Path, garbage: bytes
) -> None:
    async with lab(tmp_path) as running:
        stranger = await Initiator.connect(running.host, running.port)
        stranger.writer.write(garbage)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                while await stranger.reader.read(1 << 16):
                    pass
        pc = await client(running, identity(boot_id()))
        assert len(await pc.read(0, 512)) == 512
        assert "commands_failed_unforeseen" not in running.told.counters
        await stranger.close()
        await pc.close()


async def test_what_a_disk_cannot_do_costs_one_command(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        pc = await client(running, identity(boot_id()))
        with pytest.raises(CheckConditionSeen) as caught:
            await pc.read(SIZE, 512)
        assert (caught.value.key, caught.value.code) == (5, 0x2100)
        (boot,) = running.store.attachments.boots
        boot.disks[0].disk.failed = "its overlay could not be synced"
        with pytest.raises(CheckConditionSeen) as caught:
            await pc.read(0, 512)
        assert (caught.value.key, caught.value.code) == (4, 0x4400)
        await pc.close()


async def test_an_error_nobody_foresaw_costs_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bug() -> list[bytes]:
        raise ZeroDivisionError

    async with lab(tmp_path) as running:
        pc = await client(running, identity(boot_id()))
        (boot,) = running.store.attachments.boots
        monkeypatch.setattr(boot.disks[0].disk, "hit", lambda *_: None)
        monkeypatch.setattr(boot.disks[0].disk, "read", lambda *_: bug())
        with pytest.raises(CheckConditionSeen) as caught:
            await pc.read(0, 512)
        assert caught.value.key == 4
        assert running.told.counters["commands_failed_unforeseen"] == 1
        monkeypatch.undo()
        assert len(await pc.read(0, 512)) == 512
        await pc.close()


async def test_a_slow_layer_delays_only_those_who_miss(tmp_path: Path) -> None:
    """PROTOCOLS section 2: hits go on while a disk answers nothing."""
    async with lab(tmp_path) as running:
        name = identity(boot_id())
        hit, miss = await client(running, name), await client(running, name, isid=bytes(6))
        await hit.read(0, 4096)
        with SlowDisk(0.5):
            waiting = asyncio.ensure_future(miss.read(4 << 20, 4096))
            served = 0
            while not waiting.done():
                await hit.read(0, 4096)
                served += 1
        assert served > 10
        assert await waiting == (tmp_path / "base.img").read_bytes()[4 << 20 :][:4096]
        await hit.close()
        await miss.close()


async def test_closing_the_store_closes_every_connection_and_every_file(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with lab(tmp_path) as running:
        pcs = [await client(running, identity(boot_id()), isid=bytes([n] * 6)) for n in range(3)]
        assert running.plans[MAC].client == "pc-001"
    for pc in pcs:
        assert await pc.gone()
        await pc.close()
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


async def test_rule_13_a_stop_asks_operating_systems_to_log_out_and_waits_for_them(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        name = identity(boot_id())
        system, deaf = await client(running, name), await client(running, name, isid=bytes(6))
        firmware = await client(running, name, isid=IPXE_ISID, keys=IPXE_KEYS)
        system.send(system.command(write_10(0, 8), expected=4096, write=True, data=b"w" * 2048, final=False))
        closing = asyncio.create_task(running.store.close(drain=1.0))
        while not isinstance(asked := await system.receive(), pdu.AsyncMessage):
            pass
        assert (asked.event, asked.parameter3) == (1, 1)
        with pytest.raises(OSError):
            await Initiator.connect(running.host, running.port)
        assert await system.read(8192, 4096) == (tmp_path / "base.img").read_bytes()[8192:12288], "it serves meanwhile"
        system.send(pdu.LogoutRequest(itt=9, cmdsn=system.cmdsn, immediate=True))
        assert await system.gone()
        assert not closing.done(), "the other one still has time"
        assert isinstance(await deaf.receive(), pdu.AsyncMessage)
        assert await deaf.gone()
        with pytest.raises(ConnectionError):
            await firmware.receive()  # not a single PDU
        await closing
        reasons = [event.reason for event in running.told.of(BootDiskDetached) if isinstance(event, BootDiskDetached)]
        assert sorted(reasons) == ["logout", "the block store stops", "the block store stops"]
        for pc in (system, deaf, firmware):
            await pc.close()


async def test_a_stop_while_a_login_waits_for_its_disk_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning = threading.Event()
    real = Writebacks.begin

    def slow(self: Writebacks, *plan_and_boot: Any) -> list[tuple[Manifest, Overlay]]:
        beginning.set()
        time.sleep(0.2)
        return real(self, *plan_and_boot)

    monkeypatch.setattr(Writebacks, "begin", slow)
    async with lab(tmp_path) as running:
        pc = await Initiator.connect(running.host, running.port, name=identity(boot_id()))
        pc.send(pc.login())
        assert await asyncio.to_thread(beginning.wait, 10)
    await pc.close()
    assert running.store.attachments.boots == []
    assert running.told.counters["logins_failed_unforeseen"] == 0
    assert not [path for path in tmp_path.glob("writebacks/*/*.overlay") if str(path) in open_paths()]
