"""Wake-on-LAN from the API to the PC's card: the registry asks, a real dhcp service sends, and the frame arrives."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bootlink_dhcp import SERVICE, DhcpSettings
from bootlink_runtime import running
from bootlink_wire import wake
from bootlink_wire.wake import WakeMalformed
from lab.loaders import put_loaders
from lab.nats import NatsServer
from lab.netns import Cable, tool
from lab.raw_pc import BROADCAST, RawPc
from lab.registry import problem, registry_on

PC = "52:54:00:12:34:56"


async def magic_frame(pc: RawPc) -> bytes:
    """The next frame with a magic packet in it."""
    while True:
        frame = await pc.frame()
        try:
            wake.decode(frame)
        except WakeMalformed:
            continue
        return frame


@pytest.mark.usefixtures("in_namespace")
async def test_a_client_is_sent_the_magic_packet_on_its_own_network(
    nats: NatsServer, database: str, cable: Cable, tmp_path: Path
) -> None:
    put_loaders(tmp_path, ["undionly.kpxe"])
    settings = DhcpSettings(
        nats_url=nats.url, data=tmp_path / "data", interface=cable.server_card, loaders=str(tmp_path), node="boot-1"
    )
    async with registry_on(nats.url, database, tmp_path / "registry") as registry:
        await registry.add_client(PC, "pc-07")
        told = problem(await registry.http.post("/v1/clients/pc-07/wake"), 503)
        assert "no dhcp service runs" in told["detail"]
        async with running(SERVICE, settings) as chassis:
            with RawPc(cable, PC) as pc:
                answer = await registry.http.post("/v1/clients/pc-07/wake")
                assert answer.status_code == 200, answer.text
                assert answer.json() == {
                    "client": "pc-07",
                    "mac": PC,
                    "sent": [{"node": "boot-1", "interfaces": [cable.server_card]}],
                    "failed": [],
                }
                frame = await magic_frame(pc)
            assert frame[:6] == BROADCAST
            assert (frame[12:14], frame[23], int.from_bytes(frame[36:38])) == (b"\x08\x00", 17, wake.WAKE_PORT)
            assert wake.decode(frame) == bytes.fromhex(PC.replace(":", ""))
            assert chassis.health.counters["clients_woken"] == 1
            problem(await registry.http.post("/v1/clients/nobody/wake"), 404)

            subprocess.run(
                [tool("ip", "iproute2"), "-n", cable.server, "link", "set", cable.server_card, "down"], check=True
            )
            told = problem(await registry.http.post("/v1/clients/pc-07/wake"), 503)
            assert f"boot-1: {cable.server_card} is down" in told["detail"]
