"""The dhcp service as a process, in a network namespace, with real clients, real restarts and real obstacles."""

from __future__ import annotations

import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from bootlink_wire.dhcp import MessageType
from lab.dhcp_client import discover
from lab.dhcp_process import DhcpProcess
from lab.loaders import put_loaders
from lab.netns import Cable, tool
from lab.raw_pc import RawPc

PC = "52:54:00:12:34:56"


def udhcpc(cable: Cable, *options: str) -> str:
    """Run busybox' client once; returns what it says."""
    client = tool("udhcpc", "udhcpc")
    command = Cable.inside(
        cable.client, client, "-i", cable.client_card, "-n", "-q", "-f", "-t", "3", "-s", "/bin/true"
    )
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_udhcpc_obtains_a_lease_and_the_same_one_again(cable: Cable, tmp_path: Path) -> None:
    with DhcpProcess(cable, tmp_path):
        first = re.search(r"lease of (\S+) obtained from 10.77.0.1", udhcpc(cable))
        again = re.search(r"lease of (\S+) obtained from 10.77.0.1", udhcpc(cable, "-r", "10.77.0.200"))
    assert first is not None
    assert again is not None
    assert first[1] == again[1] == "10.77.0.128"


def test_udhcpc_with_the_broadcast_flag_obtains_a_lease_too(cable: Cable, tmp_path: Path) -> None:
    with DhcpProcess(cable, tmp_path):
        assert "obtained from 10.77.0.1" in udhcpc(cable, "-B")


async def test_a_lease_and_a_boot_survive_kill_9(cable: Cable, tmp_path: Path) -> None:
    with RawPc(cable, PC) as pc, RawPc(cable, "52:54:00:00:00:02") as another:
        with DhcpProcess(cable, tmp_path) as server:
            first = await pc.boot_pass("ovmf")
            server.kill()
        with DhcpProcess(cable, tmp_path):
            second = await pc.boot_pass("ipxe")
            other = await another.boot_pass("os")
    boot_id = first.file.decode().split("/")[1]
    assert second.file.decode() == f"tftp://10.77.0.1/boot/{boot_id}/52-54-00-12-34-56.ipxe"
    assert second.yiaddr == first.yiaddr
    assert other.yiaddr != first.yiaddr


async def test_garbage_is_dropped_and_the_next_client_is_answered(cable: Cable, tmp_path: Path) -> None:
    noise = random.Random(5)
    with DhcpProcess(cable, tmp_path), RawPc(cable, PC) as pc:
        for size in (0, 1, 239, 240, 300, 1400) * 20:
            pc.send(noise.randbytes(size))
        ack = await pc.boot_pass("ovmf")
    assert ack.message_type is MessageType.ACK


async def test_no_answer_reaches_a_client_after_the_service_stopped(cable: Cable, tmp_path: Path) -> None:
    with DhcpProcess(cable, tmp_path) as server, RawPc(cable, PC) as pc:
        assert await pc.ask(discover("os", PC, 1)) is not None
        server.__exit__()
        assert await pc.ask(discover("os", PC, 2), seconds=0.3) is None
    assert '"stopped"' in server.log.read_text()


def test_a_second_service_on_the_card_is_told_who_has_the_port(cable: Cable, tmp_path: Path) -> None:
    with DhcpProcess(cable, tmp_path):
        (tmp_path / "second").mkdir()
        line = DhcpProcess(cable, tmp_path / "second").refusal()
    assert "UDP port 67 on lan0 is taken by python" in line
    assert "ss -lunp" in line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"interface": ""}, "BOOTLINK_DHCP_INTERFACE to the one that serves the PCs: lan0"),
        ({"interface": "lan9"}, "there is no network card lan9"),
        ({"interface": "lo"}, "lo is not an Ethernet card"),
        ({"server_address": "10.77.0.9"}, "lan0 does not have the address 10.77.0.9"),
        ({"pool": "10.78.0.1-10.78.0.9"}, "is not inside the subnet 10.77.0.0/24"),
        ({"pool": "10.77.0.1-10.77.0.9"}, "contains the server's own address, 10.77.0.1"),
        ({"lease_seconds": "1"}, "BOOTLINK_DHCP_LEASE_SECONDS"),
    ],
)
def test_settings_that_cannot_work_are_one_line_and_exit_status_1(
    cable: Cable, tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    line = DhcpProcess(cable, tmp_path, **settings).refusal()
    assert words in line
    assert "remedy" in line


def test_a_card_without_ipv4_is_said_with_the_command_that_helps(tmp_path: Path) -> None:
    with Cable(server_address="") as bare:
        line = DhcpProcess(bare, tmp_path).refusal()
    assert "lan0 has no IPv4 address" in line
    assert "ip addr add" in line


def test_a_missing_privilege_is_named(cable: Cable, tmp_path: Path) -> None:
    server = DhcpProcess(cable, tmp_path)
    # Root without the capabilities that we need: files stay readable, sockets are refused.
    bounded = [tool("setpriv", "util-linux"), "--bounding-set", "-net_raw,-net_bind_service,-net_admin"]
    server.command[4:4] = bounded
    line = server.refusal()
    assert "CAP_NET_RAW" in line


def test_a_folder_that_cannot_be_written_is_named_before_any_client_asks(cable: Cable, tmp_path: Path) -> None:
    (tmp_path / "data" / "dhcp" / "leases.new").mkdir(parents=True)
    assert "leases cannot be written to" in DhcpProcess(cable, tmp_path).refusal()


def test_a_card_that_loses_its_address_or_its_link_is_said_and_so_is_its_return(cable: Cable, tmp_path: Path) -> None:
    def ip(namespace: str, *arguments: str) -> None:
        subprocess.run([tool("ip", "iproute2"), "-n", namespace, *arguments], check=True)

    with DhcpProcess(cable, tmp_path) as server:
        ip(cable.client, "link", "set", cable.client_card, "down")
        server.logs("lan0 has no link: look at the cable and the switch")
        ip(cable.client, "link", "set", cable.client_card, "up")
        server.logs("PCs reach us again")
        ip(cable.server, "addr", "del", "10.77.0.1/24", "dev", "lan0")
        server.logs("lan0 has lost its address: ip addr add 10.77.0.1/24 dev lan0")
        ip(cable.server, "addr", "add", "10.77.0.1/24", "dev", "lan0")
        server.logs("PCs reach us again", times=2)
        assert "obtained from 10.77.0.1" in udhcpc(cable)


def test_a_card_that_is_gone_ends_the_service_so_that_it_is_started_anew(cable: Cable, tmp_path: Path) -> None:
    server = DhcpProcess(cable, tmp_path)
    with subprocess.Popen(server.command, env=server.env, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            assert any('"ready"' in line for line in child.stderr)
            subprocess.run([tool("ip", "iproute2"), "-n", cable.server, "link", "del", "lan0"], check=True)
            rest = child.stderr.read()
            assert child.wait(timeout=10) == 1
            assert "the network card lan0 is gone" in rest
            assert "Traceback" not in rest
        finally:
            child.kill()


async def test_a_pool_that_is_used_up_is_said_for_a_running_system_too(cable: Cable, tmp_path: Path) -> None:
    with (
        DhcpProcess(cable, tmp_path, pool="10.77.0.128-10.77.0.128") as server,
        RawPc(cable, PC) as pc,
        RawPc(cable, "52:54:00:00:00:02") as another,
    ):
        await pc.boot_pass("os")
        assert await another.ask(discover("os", "52:54:00:00:00:02", 1), seconds=0.5) is None
        server.logs("no address is free in the pool")
    assert "52:54:00:00:00:02" in server.log.read_text()
    assert "BOOTLINK_DHCP_POOL" in server.log.read_text()


def test_sigterm_ends_it_with_status_0(cable: Cable, tmp_path: Path) -> None:
    server = DhcpProcess(cable, tmp_path)
    child = subprocess.Popen(server.command, env=server.env, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        assert any('"ready"' in line for line in child.stderr)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=10) == 0
    finally:
        child.kill()
        child.communicate()


async def test_a_loader_that_starts_no_pc_is_refused_with_the_reason_and_the_next_is_sent(
    cable: Cable, tmp_path: Path
) -> None:
    server = DhcpProcess(cable, tmp_path)
    snponly = put_loaders(tmp_path / "loaders", ["snponly.efi", "ipxe.efi"]) / "snponly.efi"
    snponly.write_bytes(snponly.read_bytes()[:-1])
    with server, RawPc(cable, PC) as pc:
        server.logs(f"{snponly} is cut off: it has 1023 bytes of 1024")
        assert (await pc.boot_pass("ovmf")).file.endswith(b"/ipxe.efi")


async def test_an_address_that_somebody_has_taken_by_himself_is_not_offered(cable: Cable, tmp_path: Path) -> None:
    for address in ("10.77.0.20", "10.77.0.21"):
        command = ["ip", "-n", cable.client, "addr", "add", f"{address}/24", "dev", cable.client_card]
        subprocess.run(command, check=True, timeout=30)
    with DhcpProcess(cable, tmp_path, pool="10.77.0.20-10.77.0.23") as server, RawPc(cable, PC) as pc:
        first = await pc.boot_pass("os")
        with RawPc(cable, "52:54:00:00:00:02") as another:
            second = await another.boot_pass("os")
        server.logs("in use by somebody whom we gave none", times=2)
    assert [str(ack.yiaddr) for ack in (first, second)] == ["10.77.0.22", "10.77.0.23"]


async def test_a_client_that_is_known_does_not_wait_for_a_probe(cable: Cable, tmp_path: Path) -> None:
    with DhcpProcess(cable, tmp_path, pool="10.77.0.20-10.77.0.20"), RawPc(cable, PC) as pc:
        first = await pc.boot_pass("os")
        # It still has the address, and says so: that makes it nobody else's.
        command = ["ip", "-n", cable.client, "addr", "add", "10.77.0.20/24", "dev", cable.client_card]
        subprocess.run(command, check=True, timeout=30)
        again = await pc.boot_pass("ovmf")
    assert str(first.yiaddr) == str(again.yiaddr) == "10.77.0.20"
