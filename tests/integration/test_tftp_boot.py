"""A PC's way through the boot files with the whole chassis around it: plans come from NATS, events go there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bootlink_events import PLANS_BUCKET, BootFailed, BootId, BootLoaderSent, BootPlan, BootScriptServed, mac_token
from bootlink_runtime import Bus, Telemetry, follow, running
from bootlink_tftp import SERVICE, TftpSettings
from lab.boot_plans import MAC, plan, refused
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.tftp import Address, Refused, address_of, get, loader_bytes, loaders, serving

TOKEN = mac_token(MAC)
WAIT = 20.0


async def put(bus: Bus, of: BootPlan) -> None:
    await bus.put(PLANS_BUCKET, mac_token(of.mac), of.model_dump_json().encode())


async def script_until(server: Address, name: str, holds: Callable[[str], bool]) -> str:
    """The script as a PC gets it that asks again and again."""
    async with asyncio.timeout(WAIT):
        while not holds(script := (await get(server, name)).decode()):
            await asyncio.sleep(0.1)
    return script


async def events(bus: Bus, count: int) -> list[str]:
    """The first events of this client: type, then what is particular to it."""
    found = []
    async with asyncio.timeout(WAIT):
        async for event in follow(bus, subject=f"bootlink.v1.*.*.{TOKEN}"):
            data = event.decode()
            match data:
                case BootScriptServed(kind=kind, cause=cause):
                    found.append(f"script {kind} {cause}")
                case BootFailed(stage=stage, cause=cause):
                    found.append(f"failed {stage} {cause}")
                case BootLoaderSent(file=file, bytes=size):
                    found.append(f"loader {file} {size}")
                case _:
                    found.append(type(data).__name__)
            if len(found) == count:
                break
    return found


async def test_a_pc_that_is_linked_while_it_shows_its_screen_boots_without_being_touched(
    nats: NatsServer, tmp_path: Path
) -> None:
    boot_id = BootId.mint()
    script_name = f"boot/{boot_id}/{TOKEN}.ipxe"
    async with bus_on(nats.url) as bus, serving(tmp_path, nats_url=nats.url) as chassis:
        server = address_of(chassis)
        async with asyncio.timeout(WAIT):
            await chassis.plan_book().synced()
        assert await get(server, f"boot/{boot_id}/undionly.kpxe") == loader_bytes(74_213)
        await script_until(server, script_name, lambda text: "not known yet" in text)
        await put(bus, refused("no_link", "Nothing is linked."))
        await script_until(server, script_name, lambda text: "Nothing is linked." in text)
        await put(bus, plan())
        await script_until(server, script_name, lambda text: "sanhook" in text)
        assert await events(bus, 5) == [
            "loader undionly.kpxe 74213",  # told once the script named the PC
            "script screen unknown_client",
            "script screen no_link",
            "failed script Nothing is linked.",
            "script sanboot None",
        ]


async def test_a_missing_loader_and_a_dead_disk_are_events_that_say_what_to_do(
    nats: NatsServer, tmp_path: Path
) -> None:
    boot_id = BootId.mint()
    async with bus_on(nats.url) as bus, serving(tmp_path, nats_url=nats.url) as chassis:
        server = address_of(chassis)
        await put(bus, plan())
        for _ in range(3):
            with pytest.raises(Refused, match=r"ipxe-arm64\.efi"):
                await get(server, f"boot/{boot_id}/ipxe-arm64.efi")
        await script_until(server, f"boot/{boot_id}/{TOKEN}.attach.ipxe", lambda text: "sanhook" in text)
        told = await events(bus, 3)
        assert told[0] == "failed loader the loader ipxe-arm64.efi is missing on the boot server"
        assert any(line.startswith("failed disk iPXE could not log in") for line in told)


async def test_a_boot_that_begins_here_is_told_with_its_stages_in_one_trace(nats: NatsServer, tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    telemetry = Telemetry("tftp", "lab", processor=SimpleSpanProcessor(exporter))
    settings = TftpSettings(
        data=tmp_path / "data", node="lab", nats_url=nats.url, host="127.0.0.1", port=0, loaders=str(loaders(tmp_path))
    )
    async with bus_on(nats.url) as bus:
        await put(bus, plan())
        async with running(SERVICE, settings, telemetry=telemetry) as chassis:
            async with asyncio.timeout(WAIT):
                await chassis.plan_book().synced()
            script = (await get(address_of(chassis), f"{TOKEN}.ipxe")).decode()
            assert await events(bus, 2) == ["BootStarted", "script sanboot None"]
    (initiator,) = [line.split()[2] for line in script.splitlines() if line.startswith("set initiator-iqn")]
    boot_id = BootId.parse(initiator.rsplit(":", 1)[1])
    (span,) = exporter.get_finished_spans()
    assert span.name == "tftp.script"
    assert span.context is not None
    assert span.context.trace_id == boot_id.trace_id


async def test_plans_go_on_being_served_while_nats_is_away(nats: NatsServer, tmp_path: Path) -> None:
    async with bus_on(nats.url) as bus, serving(tmp_path, nats_url=nats.url) as chassis:
        await put(bus, plan())
        name = f"boot/{BootId.mint()}/{TOKEN}.ipxe"
        await script_until(address_of(chassis), name, lambda text: "sanhook" in text)
        nats.kill()
        assert "sanhook" in (await get(address_of(chassis), f"boot/{BootId.mint()}/{TOKEN}.ipxe")).decode()
