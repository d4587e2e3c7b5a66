"""The dhcp service beside other people's DHCP servers: real dnsmasq and real Kea on one LAN give out the addresses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bootlink_dhcp.settings import DEBIAN_LOADERS
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType
from guest.firmware import UEFI, UEFI_HTTP
from guest.lan import Lan
from guest.pc import PC
from lab.address_server import FIRST, LAST, Host, dnsmasq, kea
from lab.boot_service import BootService
from lab.dhcp_client import Firmware, discover, request, with_options
from lab.loaders import put_loaders
from lab.netns import entered
from lab.process import Process
from lab.raw_pc import RawPc
from lab.sniffer import Sniffer, http_request

MAC = "52:54:00:12:34:56"
SHIM = Path("/usr/lib/shim/shimx64.efi")
US, OTHER = IPv4Address("10.77.0.1"), "10.77.0.2/24"
AddressServer = Callable[[Host, Path], AbstractContextManager[Process]]


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan() as made:
        yield made


def proxy(lan: Lan, folder: Path, **settings: str) -> BootService:
    return BootService(lan, folder, mode="proxy", loaders=str(put_loaders(folder / "loaders")), **settings)


async def boot_pass(pc: RawPc, firmware: Firmware, xid: int) -> tuple[DhcpPacket, DhcpPacket]:
    """Both servers' OFFERs, put together as firmware does it, and the other's ACK. Returns our OFFER and the ACK."""
    asked = discover(firmware, MAC, xid)
    offers = await pc.answers(asked, count=2)
    (ours,) = [offer for offer in offers if offer.yiaddr == NO_ADDRESS]
    (theirs,) = [offer for offer in offers if offer.yiaddr != NO_ADDRESS]
    assert ours.get(opt.SERVER_ID) == US
    assert not theirs.file
    ack = await pc.ask(request(theirs, asked))
    assert ack is not None
    assert ack.message_type is MessageType.ACK
    return ours, ack


@pytest.mark.parametrize("server", [dnsmasq, kea])
async def test_a_pc_gets_its_address_from_the_other_and_its_boot_files_from_us(
    lan: Lan, tmp_path: Path, server: AddressServer
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(server(stack.enter_context(Host(lan, OTHER)), tmp_path / "other"))
        ours = stack.enter_context(proxy(lan, tmp_path))
        with RawPc(stack.enter_context(Host(lan)), MAC) as pc:
            loader, first = await boot_pass(pc, "ovmf", 1)
            script, second = await boot_pass(pc, "ipxe", 2)
            assert IPv4Address(FIRST) <= first.yiaddr == second.yiaddr <= IPv4Address(LAST)
            boot_id = loader.file.decode().split("/")[1]
            assert loader.file.decode() == f"boot/{boot_id}/snponly.efi"
            assert script.file.decode() == f"tftp://10.77.0.1/boot/{boot_id}/52-54-00-12-34-56.ipxe"
            await ours.logs('"another server"', "10.77.0.2", "gives out addresses", '"info"')
            await ours.logs('"addressed"', str(first.yiaddr))


async def test_an_operating_system_is_left_to_the_other_server(lan: Lan, tmp_path: Path) -> None:
    with (
        Host(lan, OTHER) as other,
        Host(lan) as desk,
        dnsmasq(other, tmp_path / "other"),
        proxy(lan, tmp_path),
        RawPc(desk, MAC) as pc,
    ):
        offers = await pc.answers(discover("os", MAC, 1), count=2, seconds=2)
    assert [offer.get(opt.SERVER_ID) for offer in offers] == [IPv4Address("10.77.0.2")]


@pytest.mark.parametrize("port", [68, 4011])
async def test_port_4011_answers_to_the_port_that_asked(lan: Lan, tmp_path: Path, port: int) -> None:
    with Host(lan, "10.77.0.50/24") as desk, proxy(lan, tmp_path):
        with entered(desk.client):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with sock:
            sock.bind(("10.77.0.50", port))
            asked = with_options(
                replace(discover("ovmf", MAC, 7), ciaddr=IPv4Address("10.77.0.50")),
                opt.MESSAGE_TYPE.encode(MessageType.REQUEST),
            )
            sock.sendto(dhcp.encode(asked), ("10.77.0.1", 4011))
            async with asyncio.timeout(10):
                data, source = await asyncio.get_running_loop().sock_recvfrom(sock, 2000)
    ack = dhcp.decode(data)
    assert source == ("10.77.0.1", 4011)
    assert (ack.message_type, ack.xid, ack.siaddr) == (MessageType.ACK, 7, US)
    assert ack.file.endswith(b"/snponly.efi")


@pytest.mark.parametrize("there", [True, False])
async def test_auto_is_what_is_missing(lan: Lan, tmp_path: Path, there: bool) -> None:
    with contextlib.ExitStack() as stack:
        if there:
            stack.enter_context(dnsmasq(stack.enter_context(Host(lan, OTHER)), tmp_path / "other"))
        loaders = str(put_loaders(tmp_path / "loaders"))
        ours = stack.enter_context(BootService(lan, tmp_path, mode="auto", loaders=loaders))
        pc = stack.enter_context(RawPc(stack.enter_context(Host(lan)), MAC))
        await ours.logs('"serving"', f'"mode": "{"proxy" if there else "server"}"')
        offers = await pc.answers(discover("ovmf", MAC, 1), count=2, seconds=10 if there else 1)
        assert {(offer.get(opt.SERVER_ID), bool(offer.file), offer.yiaddr != NO_ADDRESS) for offer in offers} == (
            {(US, True, False), (IPv4Address("10.77.0.2"), False, True)} if there else {(US, True, True)}
        )


async def test_a_second_server_that_comes_up_is_told_with_what_to_do_before_any_pc_asks(
    lan: Lan, tmp_path: Path
) -> None:
    loaders = str(put_loaders(tmp_path / "loaders"))
    with (
        BootService(lan, tmp_path, loaders=loaders, probe_seconds="1") as ours,
        Host(lan, OTHER) as other,
        dnsmasq(other, tmp_path / "other", "--dhcp-boot=pxelinux.0"),
    ):
        await ours.logs('"another server"', "10.77.0.2", "pxelinux.0", "BOOTLINK_DHCP_MODE=proxy", '"warning"')


async def test_another_proxy_is_told_too(lan: Lan, tmp_path: Path) -> None:
    with proxy(lan, tmp_path, probe_seconds="1") as ours, Host(lan, OTHER) as other:
        pxe = ("--dhcp-range=10.77.0.0,proxy", "--pxe-service=x86PC,Rogue,evil")
        with dnsmasq(other, tmp_path / "other", *pxe):
            await ours.logs('"another server"', "10.77.0.2", "tells PCs what to boot", "options 66, 67 and 60")


async def test_port_4011_that_is_taken_is_said_with_who_has_it(lan: Lan, tmp_path: Path) -> None:
    with entered(lan.namespace):
        holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with holder:
        holder.bind(("", 4011))
        with pytest.raises(RuntimeError, match="UDP port 4011 on br0 is taken by"):
            proxy(lan, tmp_path).__enter__()


async def test_ovmf_takes_the_other_shape_too_asks_port_4011_and_starts_a_shim_and_what_lies_beside_it(
    lan: Lan, tmp_path: Path
) -> None:
    """Debian's shim, which loads grubx64.efi from where it came from. Secure Boot is off: nobody has signed this iPXE.

    The first shape, which real firmware is offered first, is in tests/e2e/test_proxy.py.
    """
    own = tmp_path / "data" / "tftp" / "loaders"
    own.mkdir(parents=True)
    shutil.copy(SHIM, own / "shimx64.efi")
    shutil.copy(DEBIAN_LOADERS / "snponly.efi", own / "grubx64.efi")
    rules = json.dumps([{"arch": "uefi-x64", "loaders": ["shimx64.efi"]}])
    learned = {"among": [], "at": 0, "failed": 0, "shape": "binl", "proved": True}
    (tmp_path / "data" / "dhcp").mkdir()
    (tmp_path / "data" / "dhcp" / "leases.jsonl").write_text(json.dumps(["firmware", MAC, learned]) + "\n")
    with Host(lan, OTHER) as other, dnsmasq(other, tmp_path / "other"), contextlib.ExitStack() as stack:
        stack.enter_context(BootService(lan, tmp_path, mode="proxy", loader_rules=rules))
        tftp = stack.enter_context(BootService(lan, tmp_path, "tftp"))
        pc = PC(lan, MAC, tmp_path, firmware=UEFI)
        sniffer = stack.enter_context(Sniffer(lan.namespace, pc.tap))
        async with pc:
            await pc.power_on()
            asked = await sniffer.hears(lambda one: bool(one.file and one.file.endswith(".ipxe")), seconds=120)
        files = [one.file for one in sniffer.datagrams if one.file]
        offers = [one.dhcp for one in sniffer.said(MessageType.OFFER) if one.source == US]
        questions = [one for one in sniffer.said(MessageType.REQUEST) if one.target_port == 4011]
    assert asked.file is not None
    folder = asked.file.rpartition("/")[0]
    assert list(dict.fromkeys(files)) == [
        f"{folder}/shimx64.efi",
        *(f"{folder}/{name}" for name in ("revocations_sku.efi", "revocations_sbat.efi", "shim_certificate_0.efi")),
        f"{folder}/grubx64.efi",
        asked.file,
    ]
    assert offers[0] is not None
    assert (offers[0].file, offers[0].get(opt.VENDOR_SPECIFIC)) == (b"", None)
    assert {(str(one.source), one.source_port) for one in questions} == {(str(asked.source), 4011)}
    assert '"boot failed"' not in tftp.log.read_text(), "what a shim only looks for is not missed"


@pytest.mark.timeout(300)  # 15 s of emulation, on a busy machine several times that
async def test_ovmf_that_boots_over_http_takes_its_url_from_us_and_its_address_from_the_other(
    lan: Lan, tmp_path: Path
) -> None:
    with Host(lan, OTHER) as other, dnsmasq(other, tmp_path / "other"), contextlib.ExitStack() as stack:
        stack.enter_context(BootService(lan, tmp_path, mode="proxy", tftp_http_port="80"))
        stack.enter_context(BootService(lan, tmp_path, "tftp", http_port="80"))
        pc = PC(lan, MAC, tmp_path, firmware=UEFI_HTTP)
        sniffer = stack.enter_context(Sniffer(lan.namespace, pc.tap))
        async with pc:
            await pc.power_on()
            script = await sniffer.hears(lambda one: bool(one.file and one.file.endswith(".ipxe")), seconds=120)
        heads = [head for frame in sniffer.frames if (head := http_request(frame)) is not None]
        files = {one.file for one in sniffer.datagrams if one.file}
        asked, *_ = [one for one in sniffer.said(MessageType.REQUEST) if one.dhcp]
    assert script.file is not None
    loader = script.file.rpartition("/")[0] + "/snponly.efi"
    assert [head.split(b"\r\n")[0].decode() for head in heads] == [
        f"{verb} /{loader} HTTP/1.1" for verb in ("HEAD", "GET")
    ]
    assert files == {script.file}, "what the firmware loads comes over HTTP"
    assert asked.dhcp is not None
    assert asked.dhcp.get(opt.SERVER_ID) == other.address, "and its address from the other"
