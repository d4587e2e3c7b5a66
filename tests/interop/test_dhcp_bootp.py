"""BOOTP clients against ours: Debian's bootpc, and one of before there were options."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bootlink_wire import dhcp
from bootlink_wire.dhcp import DhcpPacket
from guest.toolbox import run
from lab.dhcp_process import DhcpProcess
from lab.netns import Cable, tool
from lab.raw_pc import RawPc

OLD = "52:54:00:00:09:51"


async def test_bootp_clients_get_an_address_and_the_name_of_a_loader(cable: Cable, tmp_path: Path) -> None:
    run("ip", "-netns", cable.client, "route", "add", "default", "dev", cable.client_card)
    with DhcpProcess(cable, tmp_path, bootp="dynamic"):
        said = subprocess.run(
            # It asks through the kernel, so it wants a route, and does not hear what goes to an address of nobody yet.
            Cable.inside(cable.client, tool("bootpc", "bootpc"), "--dev", cable.client_card, "--serverbcast"),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        told = dict(re.findall(r"^(\w+)='(.*)'$", said.stdout, re.MULTILINE))
        assert told["IPADDR"] == "10.77.0.128", said
        assert (told["NETMASK"], told["SERVER"]) == ("255.255.255.0", "10.77.0.1")
        assert told["BOOTFILE"] == "undionly.kpxe"
        with RawPc(cable, OLD) as pc:
            asked = DhcpPacket(op=dhcp.BOOTREQUEST, xid=951, chaddr=bytes.fromhex(OLD.replace(":", "")), cookie=False)
            answer = await pc.ask(asked)
    assert answer is not None
    assert (answer.cookie, str(answer.yiaddr), answer.file) == (False, "10.77.0.129", b"undionly.kpxe")
