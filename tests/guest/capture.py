"""`python -m guest.capture`: each firmware boots as far as its loader, and what it sends becomes tests/golden.

    cd tests && ../.venv/bin/python -m guest.capture

The server is dnsmasq, so that nothing of ours has a part in what is captured: as DHCP server with a boot file, and for
`proxy` as a proxy beside another dnsmasq that knows nothing of booting. Needs root, like the demo.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import MessageType
from guest.firmware import BIOS, UEFI, UEFI_HTTP, UEFI_IA32, Firmware
from guest.lan import Lan
from guest.pc import PC
from lab import golden
from lab.netns import tool
from lab.process import Process
from lab.sniffer import Datagram, Sniffer

LOADERS = Path("/usr/lib/ipxe")
SERVER = "10.77.0.1"
PROXY = "10.77.0.3"
MAC = "52:54:00:12:34:57"  # as of the captures that were there before
WAIT = 120.0

DNSMASQ = ("--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file", "--log-facility=-", "--no-ping")
GIVES_ADDRESSES = ("--dhcp-range=10.77.0.50,10.77.0.99",)
NAMES_LOADERS = (
    *("--enable-tftp", f"--tftp-root={LOADERS}", "--dhcp-match=set:bios,option:client-arch,0"),
    "--dhcp-match=set:http,option:client-arch,16",
    *("--dhcp-match=set:uefi,option:client-arch,7", "--dhcp-boot=undionly.kpxe", "--dhcp-boot=tag:uefi,snponly.efi"),
    # undionly.kpxe takes over what its ROM was told, and says it. OVMF would go on to port 4011 for it.
    *("--dhcp-option-force=tag:bios,60,PXEClient", "--dhcp-option-force=tag:http,60,HTTPClient"),
    f"--dhcp-boot=tag:http,http://{SERVER}/snponly.efi",
)
IS_A_PROXY = (
    *("--dhcp-range=10.77.0.0,proxy", "--enable-tftp", f"--tftp-root={LOADERS}"),
    *("--pxe-service=x86PC,Loader,undionly.kpxe", "--pxe-service=X86-64_EFI,Loader,snponly.efi"),
    "--pxe-prompt=Loader,0",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One capture: its file, what is said of it, and which datagram it is."""

    protocol: str
    name: str
    note: str
    is_it: Callable[[Datagram], bool]


def _dhcp(message: MessageType, *, ipxe: bool | None = None, port: int = 67) -> Callable[[Datagram], bool]:
    def is_it(one: Datagram) -> bool:
        packet = one.dhcp
        if packet is None or packet.message_type is not message or one.target_port != port:
            return False
        return ipxe is None or (packet.get(opt.USER_CLASS) is not None) is ipxe

    return is_it


def _second_pass(one: Datagram) -> bool:
    packet = one.dhcp
    return _dhcp(MessageType.DISCOVER, ipxe=True)(one) and packet is not None and packet.broadcast


def _rrq(having: bytes) -> Callable[[Datagram], bool]:
    return lambda one: one.file is not None and (b"tsize" in one.payload) is (having == b"tsize")


def _port_4011(one: Datagram) -> bool:
    return _dhcp(MessageType.REQUEST, port=4011)(one)


def _asks_for_size(one: Datagram) -> bool:
    return one.file is not None and b"tsize" in one.payload


def _asks_without_size(one: Datagram) -> bool:
    return one.file is not None and b"tsize" not in one.payload


def _error(one: Datagram) -> bool:
    return one.payload[:2] == b"\0\5" and one.dhcp is None


ROM = "QEMU's virtio-net PXE ROM: iPXE 1.0.0+git-20190125 (Debian ipxe-qemu), BIOS"
OVMF = "OVMF 2022.11 (Debian ovmf), x64, virtio-net without its ROM"
OVMF_IA32 = "OVMF 2022.11 (Debian ovmf-ia32), IA32, virtio-net without its ROM"
REQUEST = _dhcp(MessageType.REQUEST, ipxe=False)
SCENES: tuple[tuple[Firmware, bool, tuple[Wanted, ...]], ...] = (
    (
        BIOS,
        False,
        (Wanted("dhcp", "undionly-discover.hex", f"DISCOVER of undionly.kpxe, started by {ROM}.", _second_pass),),
    ),
    (BIOS, True, (Wanted("dhcp", "ipxe-rom-binl.hex", f"To a proxy's port 4011: {ROM}.", _port_4011),)),
    (
        UEFI,
        False,
        (
            Wanted("dhcp", "ovmf-x64-request.hex", f"REQUEST of {OVMF}.", REQUEST),
            Wanted(
                "dhcp",
                "snponly-discover.hex",
                f"DISCOVER of snponly.efi, started by {OVMF}.",
                _dhcp(MessageType.DISCOVER, ipxe=True),
            ),
            Wanted("tftp", "ovmf-rrq-probe.hex", f"{OVMF}: how large is the loader?", _asks_for_size),
            Wanted("tftp", "ovmf-abort.hex", f"{OVMF}: ends its probe after the OACK.", _error),
            Wanted("tftp", "ovmf-rrq.hex", f"{OVMF}: the loader, from another port.", _asks_without_size),
        ),
    ),
    (
        UEFI_IA32,
        False,
        (
            Wanted("dhcp", "ovmf-ia32-discover.hex", f"DISCOVER of {OVMF_IA32}.", _dhcp(MessageType.DISCOVER)),
            Wanted("dhcp", "ovmf-ia32-request.hex", f"REQUEST of {OVMF_IA32}.", REQUEST),
        ),
    ),
    (UEFI, True, (Wanted("dhcp", "ovmf-x64-binl.hex", f"To a proxy's port 4011: {OVMF}.", _port_4011),)),
    (
        UEFI_HTTP,
        False,
        (
            Wanted(
                "dhcp",
                "ovmf-http-discover.hex",
                f"DISCOVER of {OVMF}, HTTP boot.",
                _dhcp(MessageType.DISCOVER, ipxe=False),
            ),
            Wanted("dhcp", "ovmf-http-request.hex", f"REQUEST of {OVMF}, HTTP boot.", REQUEST),
        ),
    ),
)


@contextlib.contextmanager
def servers(lan: Lan, folder: Path, *, proxy: bool) -> Iterator[None]:
    """dnsmasq as the one server, or as two: one for addresses, and a proxy at an address of its own."""
    wanted = {"addresses": [*GIVES_ADDRESSES, f"--listen-address={SERVER}"]}
    if proxy:
        lan.also(f"{PROXY}/24")
        wanted["proxy"] = [*IS_A_PROXY, f"--listen-address={PROXY}"]
    else:
        wanted["addresses"] += NAMES_LOADERS
    with contextlib.ExitStack() as running:
        for name, options in wanted.items():
            command = [tool("dnsmasq", "dnsmasq-base"), *DNSMASQ, f"--dhcp-leasefile={folder / name}.leases", *options]
            process = Process(lan.command(*command, "--bind-dynamic"), log=folder / f"{name}.log")
            process.start()
            running.callback(process.kill)
        web = Process(
            lan.command(sys.executable, "-m", "http.server", "80", "--directory", str(LOADERS)), log=folder / "web.log"
        )
        web.start()
        running.callback(web.kill)
        yield


async def capture(firmware: Firmware, proxy: bool, wanted: tuple[Wanted, ...], folder: Path) -> None:
    """Boot until all that is wanted has passed, and keep it."""
    folder.mkdir()
    with Lan(f"{SERVER}/24") as lan, servers(lan, folder, proxy=proxy):
        async with PC(lan, MAC, folder, firmware=firmware) as pc:
            with Sniffer(lan.namespace, Lan.BRIDGE) as sniffer:
                await pc.power_on()
                for one in wanted:
                    found = await sniffer.hears(one.is_it, seconds=WAIT)
                    where = "dnsmasq as proxy beside another" if proxy else "dnsmasq"
                    note = f"{one.note}\nCaptured by guest.capture, beside {where}; UDP payload, hexadecimal."
                    sys.stdout.write(f"{golden.write(one.protocol, one.name, note, found.payload)}\n")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bootlink-capture-") as name:
        for number, (firmware, proxy, wanted) in enumerate(SCENES):
            asyncio.run(capture(firmware, proxy, wanted, Path(name) / str(number)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
