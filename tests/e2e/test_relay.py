"""A PC behind a real relay agent, from its ROM to a login prompt: DHCP is relayed, files and disk are routed."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import MessageType
from guest.demo import CACHE
from guest.disk import build_disk
from guest.lan import Lan
from guest.pc import PC
from guest.system import System
from lab.relay import FAR, ROUTER, relayed
from lab.sniffer import Sniffer

pytestmark = pytest.mark.timeout(400)  # the boot takes 25 s of emulation, on a busy machine several times that

MAC = "52:54:00:b0:07:41"
POOL = "10.78.0.100-10.78.0.109"
RELAY_AGENT = 82  # RFC 3046
END = 255


async def test_a_pc_behind_dhcrelay_boots_to_its_login_prompt(tmp_path: Path) -> None:
    disk = await asyncio.to_thread(build_disk, CACHE)
    settings = {"BOOTLINK_DHCP_SUBNETS": f"{FAR} pool={POOL} router={ROUTER}"}
    with Lan() as lan, relayed(lan, tmp_path) as far:
        async with System(lan, tmp_path / "data", settings=settings) as system, PC(far, MAC, tmp_path) as pc:
            await system.command("image", "add", "demo", str(disk))
            await system.command("link", "set", "--default", "demo")
            await system.command("client", "add", MAC, "--name", "pc-far")
            with Sniffer(lan.namespace, Lan.BRIDGE) as sniffer:
                await pc.boot()
                relayed_packets = [one for one in sniffer.datagrams if one.source_port == one.target_port == 67]
            await pc.console.login()
            run = await pc.console.run("hostname; ip -4 address show dev eth0; ip route")
            await pc.power_off()
    name, *network = run.text.splitlines()
    assert name == "pc-far", "its system's own DHCP client was relayed, too"
    assert "inet 10.78.0.100/24 " in "\n".join(network)
    assert f"default via {ROUTER} dev eth0" in "\n".join(network), "what is not on its own link goes by the router"

    told = [one for one in relayed_packets if one.source != lan.address.ip]
    answers = [one for one in relayed_packets if one.source == lan.address.ip]
    assert {one.message for one in told} >= {MessageType.DISCOVER, MessageType.REQUEST}
    assert {one.message for one in answers} >= {MessageType.OFFER, MessageType.ACK}
    options = {one.dhcp.options[RELAY_AGENT] for one in told if one.dhcp is not None}
    assert len(options) == 1, "dhcrelay names the card that it heard the PC on"
    for one in answers:
        assert one.dhcp is not None
        assert one.target == one.dhcp.giaddr == ROUTER
        assert one.dhcp.get(opt.ROUTER) == (IPv4Address(ROUTER),)
        (agent,) = options
        # RFC 3046 section 2.2: as it was, and the last option.
        assert one.payload.rstrip(b"\0").endswith(bytes((RELAY_AGENT, len(agent))) + agent + bytes((END,)))
