"""The tftp service on a real socket: what it serves, refuses and survives, and how it says that it cannot start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bootlink_events import BootId
from bootlink_runtime import StartupError
from bootlink_tftp import endpoint, sending
from bootlink_tftp import service as module
from bootlink_wire import tftp
from bootlink_wire.tftp import ErrorCode
from lab.boot_plans import BOOT_ID, plan, refused
from lab.tftp import Address, Refused, address_of, get, loader_bytes, serving, snapshot
from lab.udp_proxy import Impairment, proxied

TOKEN = "52-54-00-12-34-56"
IPXE = (("blksize", "1432"), ("tsize", "0"))
WAIT = 20.0


async def ask(server: Address, datagram: bytes, *, source: str = "127.0.0.1") -> tftp.Packet | None:
    """The first answer to one datagram; None if there is none."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        await loop.sock_sendto(sock, datagram, server)
        try:
            async with asyncio.timeout(0.5):
                return tftp.decode(await loop.sock_recv(sock, 65_536))
        except TimeoutError:
            return None


async def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds()`."""
    async with asyncio.timeout(WAIT):
        while not holds():
            await asyncio.sleep(0.02)


async def test_a_loader_arrives_whole_under_every_name_that_firmware_gives_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        server = address_of(chassis)
        for name in (
            b"undionly.kpxe",
            b"/undionly.kpxe",
            b"UNDIONLY.KPXE",
            b"\\undionly.kpxe\xff",
            f"boot/{BOOT_ID}/undionly.kpxe".encode(),
            f"\\Boot\\{BOOT_ID}\\Undionly.kpxe".encode(),
        ):
            assert await get(server, name, options=IPXE) == loader_bytes(74_213)
        assert await get(server, "snponly.efi", options=(("blksize", "1468"),)) == loader_bytes(146_800)
        assert await get(server, "tiny") == loader_bytes(10)


async def test_netascii_translates_and_mail_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        (tmp_path / "loaders" / "text").write_bytes(b"one\ntwo\n")
        assert await get(address_of(chassis), "text", mode="netascii") == b"one\r\ntwo\r\n"
        with pytest.raises(Refused) as caught:
            await get(address_of(chassis), "text", mode="mail")
        assert caught.value.code == ErrorCode.ILLEGAL_OPERATION


async def test_a_missing_file_is_error_1_and_names_the_file(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        with pytest.raises(Refused, match=r"no file missing\.efi here") as caught:
            await get(address_of(chassis), f"boot/{BOOT_ID}/missing.efi")
        assert caught.value.code == ErrorCode.NOT_FOUND


async def test_the_server_is_read_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        for name in (b"new", b"undionly.kpxe", b"../new"):
            answer = await ask(address_of(chassis), tftp.encode(tftp.WriteRequest(name)))
            assert isinstance(answer, tftp.Error)
            assert answer.code == ErrorCode.ACCESS_VIOLATION
        assert chassis.health.counters["tftp_write_refused"] == 3
    assert sorted(p.name for p in (tmp_path / "loaders").iterdir()) == ["snponly.efi", "tiny", "undionly.kpxe"]


async def test_links_and_folders_are_refused_and_nothing_outside_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    async with serving(tmp_path) as chassis:
        (tmp_path / "loaders" / "link").symlink_to(tmp_path / "secret")
        (tmp_path / "loaders" / "folder").mkdir()
        for name in ("link", "folder", "../secret", "..\\secret", "/../secret", "C:\\secret"):
            with pytest.raises(Refused) as caught:
                await get(address_of(chassis), name)
            assert caught.value.code == ErrorCode.ACCESS_VIOLATION
        assert await get(address_of(chassis), "tiny") == loader_bytes(10), "it serves on"


async def test_rubbish_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    rubbish = random.Random(4)
    async with serving(tmp_path) as chassis:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(500):
                head = rubbish.choice(
                    [b"", b"\0\1", b"\0\2", b"\0\3", b"\0\4\0\0", b"\0\5", b"\0\6", b"\0\1a\0octet\0"]
                )
                sock.sendto(head + rubbish.randbytes(rubbish.randrange(600)), address_of(chassis))
                await asyncio.sleep(0)
        await until(lambda: chassis.health.counters["tftp_malformed"] > 100)
        assert await get(address_of(chassis), "tiny") == loader_bytes(10)
        assert chassis.health.counters["tftp_internal_errors"] == 0


async def test_an_option_that_was_not_asked_for_is_not_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        request = tftp.ReadRequest(b"tiny", "octet", (("windowsize", "4"),))
        answer = await ask(address_of(chassis), tftp.encode(request))
        assert answer == tftp.OptionAck((("windowsize", "4"),))


async def test_a_script_is_rendered_from_the_plan_in_the_boot_that_its_name_carries(tmp_path: Path) -> None:
    snapshot(tmp_path / "data", plan())
    async with serving(tmp_path) as chassis:
        server = address_of(chassis)
        script = (await get(server, f"boot/{BOOT_ID}/{TOKEN}.ipxe", options=IPXE)).decode()
        assert script.startswith("#!ipxe\n")
        assert f"set initiator-iqn iqn.2026-11.io.bootlink:{TOKEN}:{BOOT_ID}\n" in script
        assert f"tftp://127.0.0.1:{server[1]}/boot/{BOOT_ID}/{TOKEN}.attach.ipxe" in script


async def test_a_pc_that_our_dhcp_has_not_seen_begins_its_boot_here(tmp_path: Path) -> None:
    snapshot(tmp_path / "data", refused("no_link", "Nothing is linked."))
    async with serving(tmp_path, advertise="10.77.0.1") as chassis:
        script = (await get(address_of(chassis), f"{TOKEN}.ipxe")).decode()
        assert "Nothing is linked." in script
        (line,) = [line for line in script.splitlines() if line.startswith("chain")]
        url = line.split()[3]
        assert url.startswith("tftp://10.77.0.1:")
        assert url.endswith(f"/{TOKEN}.ipxe")
        BootId.parse(url.split("/")[4])


async def test_the_gateway_is_the_target_in_the_networks_that_are_on_link(tmp_path: Path) -> None:
    snapshot(tmp_path / "data", plan(portals=("127.0.0.9:3260",)))
    for on_link, expected in (("127.0.0.0/8", True), ("none", False), ("10.0.0.0/8, 127.0.0.0/30", False)):
        async with serving(tmp_path, on_link=on_link) as chassis:
            script = (await get(address_of(chassis), f"boot/{BOOT_ID}/{TOKEN}.ipxe")).decode()
            assert ("set netX/gateway 127.0.0.9" in script) is expected


async def test_two_hundred_pcs_at_once_all_get_their_loader(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        server = address_of(chassis)
        fetched = await asyncio.gather(
            *(get(server, "undionly.kpxe", options=IPXE, source=f"127.0.1.{index + 1}") for index in range(200))
        )
        assert all(loader == loader_bytes(74_213) for loader in fetched)
        assert chassis.health.counters["tftp_sent"] == 200


async def test_beyond_capacity_a_pc_is_not_refused_but_served_when_it_asks_again(tmp_path: Path) -> None:
    async with serving(tmp_path, transfers_max=5, transfers_per_client_max=2) as chassis:
        server = address_of(chassis)
        fetched = await asyncio.gather(
            *(get(server, "tiny", source=f"127.0.2.{index // 4 + 1}") for index in range(40)),
        )
        assert fetched == [loader_bytes(10)] * 40
        assert chassis.health.counters["tftp_over_capacity"] > 0


async def test_one_address_cannot_take_all_transfers(tmp_path: Path) -> None:
    async with serving(tmp_path, transfers_per_client_max=3) as chassis:
        server = address_of(chassis)
        request = tftp.encode(tftp.ReadRequest(b"undionly.kpxe", "octet", IPXE))
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
        for sock in socks:
            sock.bind(("127.0.3.1", 0))
            sock.sendto(request, server)
        await until(lambda: chassis.health.counters["tftp_over_capacity"] == 7)
        assert await get(server, "tiny", source="127.0.3.2") == loader_bytes(10)
        for sock in socks:
            sock.close()


async def test_a_forged_source_gets_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    """The victim never answers: for one request without options it gets one block, and nothing by the clock."""
    async with serving(tmp_path) as chassis:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
            victim.bind(("127.0.4.1", 0))
            victim.settimeout(2.5)
            victim.sendto(tftp.encode(tftp.ReadRequest(b"undionly.kpxe")), address_of(chassis))
            received = []
            for _ in range(2):
                try:
                    received.append(await asyncio.to_thread(victim.recv, 65_536))
                except TimeoutError:
                    break
        assert [len(datagram) for datagram in received] == [4 + 512]


async def test_requests_with_forged_sources_lock_no_pc_out(tmp_path: Path) -> None:
    """Each takes a place for the seconds in which a PC could still answer, under the victim's address or any."""
    async with serving(tmp_path, transfers_max=20, transfers_per_client_max=4) as chassis:
        server = address_of(chassis)
        with contextlib.ExitStack() as forged:
            for index in range(60):
                sock = forged.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind((f"127.0.5.{index % 15 + 1}", 0))
                sock.sendto(tftp.encode(tftp.ReadRequest(b"undionly.kpxe", "octet", IPXE)), server)
            await until(lambda: chassis.health.counters["tftp_over_capacity"] == 40)
            for victim in ("127.0.5.1", "127.0.5.99"):
                async with asyncio.timeout(3.0):  # the forged ones hold their places for 5 s
                    assert await get(server, "tiny", source=victim) == loader_bytes(10)
            assert chassis.health.counters["tftp_made_room"] > 0


async def test_a_pc_that_answers_keeps_its_place(tmp_path: Path) -> None:
    async with serving(tmp_path, transfers_max=1) as chassis:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pc:
            pc.setblocking(False)
            pc.bind(("127.0.0.1", 0))
            await loop.sock_sendto(pc, tftp.encode(tftp.ReadRequest(b"snponly.efi")), address_of(chassis))
            _, transfer = await loop.sock_recvfrom(pc, 65_536)
            await loop.sock_sendto(pc, tftp.encode(tftp.Ack(1)), transfer)
            await loop.sock_recvfrom(pc, 65_536)
            await asyncio.sleep(endpoint.UNANSWERED_YIELDS + 0.1)
            assert await ask(address_of(chassis), tftp.encode(tftp.ReadRequest(b"tiny")), source="127.0.5.1") is None
            await loop.sock_sendto(pc, tftp.encode(tftp.Ack(2)), transfer)
            assert tftp.decode(await loop.sock_recv(pc, 65_536)) == tftp.Data(3, loader_bytes(1468 * 100)[1024:1536])


@pytest.mark.parametrize(
    ("first", "answers", "again", "silence"),
    [
        (b"snponly.efi", 1, b"tiny", sending.SILENT_SECONDS),  # reset in the middle of a transfer
        (b"snponly.efi", 1, b"snponly.efi", sending.STALE_SECONDS),  # the same, where names carry no boot id
        (b"snponly.efi", 0, b"tiny", 0.0),  # nothing had come of it yet
        (b"tiny", 0, b"snponly.efi", 0.0),  # it had all of it, and does not confirm
    ],
)
async def test_a_rom_that_uses_one_port_for_all_its_transfers_is_served_anew_after_a_reset(
    tmp_path: Path, first: bytes, answers: int, again: bytes, silence: float
) -> None:
    async with serving(tmp_path) as chassis:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rom:
            rom.setblocking(False)
            rom.bind(("127.0.0.1", 0))
            await loop.sock_sendto(rom, tftp.encode(tftp.ReadRequest(first)), address_of(chassis))
            for block in range(1, answers + 1):
                _, transfer = await loop.sock_recvfrom(rom, 65_536)
                await loop.sock_sendto(rom, tftp.encode(tftp.Ack(block)), transfer)
            _, transfer = await loop.sock_recvfrom(rom, 65_536)
            await asyncio.sleep(silence + 0.1)
            await loop.sock_sendto(rom, tftp.encode(tftp.ReadRequest(again)), address_of(chassis))
            async with asyncio.timeout(0.9):
                while True:
                    datagram, peer = await loop.sock_recvfrom(rom, 65_536)
                    if peer != transfer:
                        break
            whole = loader_bytes(10 if again == b"tiny" else 1468 * 100)
            assert tftp.decode(datagram) == tftp.Data(1, whole[:512])


async def test_a_request_under_a_pcs_port_does_not_end_its_transfer(tmp_path: Path) -> None:
    """Forged, or a late copy of its own: the PC has answered a moment ago."""
    async with serving(tmp_path) as chassis:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pc:
            pc.setblocking(False)
            pc.bind(("127.0.0.1", 0))
            await loop.sock_sendto(pc, tftp.encode(tftp.ReadRequest(b"snponly.efi")), address_of(chassis))
            for block in range(1, 20):
                datagram, transfer = await loop.sock_recvfrom(pc, 65_536)
                assert tftp.decode(datagram) == tftp.Data(block, loader_bytes(1468 * 100)[512 * (block - 1) :][:512])
                if block > 1:  # until it has answered, its port is anybody's
                    for name in (b"snponly.efi", b"tiny"):
                        await loop.sock_sendto(pc, tftp.encode(tftp.ReadRequest(name)), address_of(chassis))
                    await asyncio.sleep(0.01)
                await loop.sock_sendto(pc, tftp.encode(tftp.Ack(block)), transfer)


async def test_a_large_file_is_not_copied_for_netascii(tmp_path: Path) -> None:
    """Each transfer would hold a translated copy of its own, and anybody can ask for five hundred."""
    async with serving(tmp_path) as chassis:
        folder = tmp_path / "loaders"
        (folder / "kernel").write_bytes(bytes(endpoint.NETASCII_MAX + 1))
        (folder / "text").write_bytes(b"x" * endpoint.NETASCII_MAX)
        with pytest.raises(Refused, match="netascii") as caught:
            await get(address_of(chassis), "kernel", mode="netascii")
        assert caught.value.code == ErrorCode.ACCESS_VIOLATION
        assert len(await get(address_of(chassis), "text", mode="netascii")) == endpoint.NETASCII_MAX


async def test_a_stranger_cannot_speak_in_a_transfer(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        loop = asyncio.get_running_loop()
        pc = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with pc, stranger:
            pc.setblocking(False)
            pc.bind(("127.0.0.1", 0))
            await loop.sock_sendto(pc, tftp.encode(tftp.ReadRequest(b"undionly.kpxe")), address_of(chassis))
            _, transfer = await loop.sock_recvfrom(pc, 65_536)
            stranger.sendto(tftp.encode(tftp.Error(0, "stop")), transfer)
            stranger.sendto(tftp.encode(tftp.Ack(1)), transfer)
            await asyncio.sleep(0.1)
            await loop.sock_sendto(pc, tftp.encode(tftp.Ack(1)), transfer)
            packet = tftp.decode(await loop.sock_recv(pc, 65_536))
            assert isinstance(packet, tftp.Data)
            assert packet.block == 2


async def test_the_answer_comes_from_the_address_that_was_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, host="0.0.0.0") as chassis:
        loop = asyncio.get_running_loop()
        _, port = address_of(chassis)
        for asked in ("127.0.0.1", "127.0.5.5"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.bind(("127.0.0.1", 0))
                for name in (b"tiny", b"missing"):
                    await loop.sock_sendto(sock, tftp.encode(tftp.ReadRequest(name)), (asked, port))
                    async with asyncio.timeout(WAIT):
                        _, answerer = await loop.sock_recvfrom(sock, 65_536)
                    assert answerer[0] == asked


@pytest.mark.parametrize("seed", range(3))
async def test_a_loader_arrives_whole_over_a_bad_link(tmp_path: Path, seed: int) -> None:
    bad = Impairment(lost=0.03, repeated=0.05, late=0.05)
    async with serving(tmp_path) as chassis, proxied(address_of(chassis), bad, seed=seed) as proxy:
        assert await get(proxy.address, "undionly.kpxe", options=IPXE) == loader_bytes(74_213)
        assert proxy.lost > 0


async def test_a_client_that_dies_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        for _ in range(3):
            answer = await ask(address_of(chassis), tftp.encode(tftp.ReadRequest(b"undionly.kpxe", "octet", IPXE)))
            assert isinstance(answer, tftp.OptionAck)
        # Its socket is closed: the OACK's repeat after a second brings ICMP port unreachable.
        await until(lambda: chassis.health.counters["tftp_broken_off"] == 3)


async def test_a_transfer_under_way_is_finished_before_the_service_stops(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        server = address_of(chassis)
        fetching = asyncio.create_task(get(server, "snponly.efi"))
        await until(lambda: chassis.health.counters["tftp_requests"] == 1)
        chassis.stopping.set()
        assert await fetching == loader_bytes(146_800)


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        _, port = address_of(chassis)
        with pytest.raises(StartupError) as caught:
            async with serving(tmp_path / ".", port=port, data=tmp_path / "second"):
                pass
        assert f"127.0.0.1:{port}" in caught.value.problem
        assert "BOOTLINK_TFTP_PORT" in caught.value.remedy


async def test_a_missing_privilege_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: int) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(endpoint, "bind", refuse)
    with pytest.raises(StartupError, match="CAP_NET_BIND_SERVICE"):
        async with serving(tmp_path, port=69):
            pass


async def test_without_any_loader_the_service_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEBIAN_LOADERS", tmp_path / "absent")
    with pytest.raises(StartupError) as caught:
        async with serving(tmp_path, loaders=""):
            pass
    assert "apt install ipxe" in caught.value.remedy
    assert str(tmp_path / "data" / "tftp" / "loaders") in caught.value.remedy


async def test_a_loader_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="BOOTLINK_TFTP_LOADERS"):
        async with serving(tmp_path, loaders=str(tmp_path / "absent")):
            pass


async def test_the_users_folder_takes_precedence_over_debians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debian, own = tmp_path / "debian", tmp_path / "data" / "tftp" / "loaders"
    for folder in (debian, own):
        folder.mkdir(parents=True)
    (debian / "undionly.kpxe").write_bytes(b"debian")
    (debian / "snponly.efi").write_bytes(b"debian")
    (own / "undionly.kpxe").write_bytes(b"own")
    monkeypatch.setattr(module, "DEBIAN_LOADERS", debian)
    async with serving(tmp_path, loaders="") as chassis:
        assert await get(address_of(chassis), "undionly.kpxe") == b"own"
        assert await get(address_of(chassis), "snponly.efi") == b"debian"


async def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        await get(address_of(chassis), "tiny")
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - each entry is looked at once, nothing is opened
        for _ in range(20):
            await get(address_of(chassis), "tiny")
            with pytest.raises(Refused):
                await get(address_of(chassis), "missing")
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)  # noqa: PTH208


async def test_with_a_single_port_everything_comes_from_the_request_port(tmp_path: Path) -> None:
    async with serving(tmp_path, single_port=True) as chassis:
        server = address_of(chassis)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rom:
            rom.setblocking(False)
            rom.connect(server)  # as a ROM that takes answers from this port alone
            got, last = b"", tftp.encode(tftp.ReadRequest(b"snponly.efi", "octet", (("blksize", "1468"),)))
            async with asyncio.timeout(WAIT):
                while True:
                    await loop.sock_sendall(rom, last)
                    packet = tftp.decode(await loop.sock_recv(rom, 65_536))
                    if isinstance(packet, tftp.OptionAck):
                        last = tftp.encode(tftp.Ack(0))
                        continue
                    assert isinstance(packet, tftp.Data)
                    got += packet.payload
                    last = tftp.encode(tftp.Ack(packet.block))
                    if len(packet.payload) < 1468:
                        await loop.sock_sendall(rom, last)
                        break
        assert got == loader_bytes(146_800)
        await until(lambda: chassis.health.counters["tftp_sent"] == 1)
        # Many at once, and a stranger's ACK.
        rooms = [f"127.0.0.{n}" for n in range(2, 52)]
        many = await asyncio.gather(*(get(server, "undionly.kpxe", options=IPXE, source=pc) for pc in rooms))
        assert all(content == loader_bytes(74_213) for content in many)
        assert await ask(server, tftp.encode(tftp.Ack(7))) is None
        assert chassis.health.counters["tftp_stray"] >= 1
        assert chassis.health.counters["tftp_internal_errors"] == 0
