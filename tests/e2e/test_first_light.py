"""A real PC in QEMU boots from an image link, with the whole system as `bootlink up` starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import BootId
from guest.demo import CACHE
from guest.disk import build_disk
from guest.lan import Lan
from guest.pc import PC
from guest.system import System
from lab.otlp import Collector

pytestmark = pytest.mark.timeout(400)  # each boot takes about 20 s of emulation, on a busy machine several times that

MAC = "52:54:00:b0:07:11"
SILENT = "5"  # seconds until a boot that went no further counts as done
SERVICES = {f"bootlink-{name}" for name in ("dhcp", "tftp", "blockstore", "registry")}
FIRST_TRACE = {"boot", "dhcp.discover", "dhcp.request", "tftp.loader", "tftp.script", "iscsi.login"}
WHOLE_TRACE = FIRST_TRACE | {"iscsi.first_read", "iscsi.reads_until_idle", "guest.hello"}
STEPS = {"address", "loader", "ipxe_address", "script", "login", "first_read", "system", "idle", "hello", "whole"}
HELLO = (  # as docs/traces.md has it, with busybox's wget
    'wget -q -O- --post-data "initiator=$(cat /sys/firmware/ibft/initiator/initiator-name)&system=Demo'
    "&uptime=$(cut -d' ' -f1 /proc/uptime)\" http://$(cat /sys/firmware/ibft/target0/ip-addr)/hello"
)
TESTS = Path(__file__).parents[1]
WAIT = 60.0
STAGES = {"started", "addressed", "loader_sent", "script_served", "disk_attached"}


@pytest.fixture
def protocol() -> str:
    """How spans are sent."""
    return "http/protobuf"


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan() as lan:
        yield lan


@pytest.fixture
def collector(lan: Lan) -> Iterator[Collector]:
    """Whom the services send their spans to."""
    with Collector(namespace=lan.namespace) as collector:
        yield collector


@pytest.fixture
async def system(tmp_path: Path, lan: Lan, collector: Collector, protocol: str) -> AsyncIterator[System]:
    """Bootlink on a LAN of its own, with the demo's image added and linked to nobody."""
    disk = await asyncio.to_thread(build_disk, CACHE)
    settings = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc if protocol == "grpc" else collector.http,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "BOOTLINK_REGISTRY_SILENT_SECONDS": SILENT,
        "BOOTLINK_TFTP_HTTP_PORT": "80",
    }
    async with System(lan, tmp_path / "data", settings=settings) as running:
        await running.command("image", "add", "demo", str(disk))
        yield running


async def until_grub(pc: PC) -> None:
    """Follow the boot until the disk's own loader runs: it came over DHCP, TFTP and iSCSI."""
    await pc.console.expect(r"guest: GRUB: loading the kernel", stage="GRUB", timeout=2 * WAIT)


async def events_of(system: System) -> list[Mapping[str, Any]]:
    out = await system.command("events", "--json")
    return [json.loads(line) for line in out.splitlines()]


async def test_the_demo_boots_two_pcs_twice_and_exits_with_0() -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "guest.demo",
        env=os.environ | {"PYTHONPATH": str(TESTS), "COLUMNS": "100"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await demo.communicate()
    words = out.decode()
    assert demo.returncode == 0, words
    assert "after the restart the file is gone" in words
    assert "after the restart the file is still there" in words
    assert words.count("the image's bytes are what they were") == 2
    assert words.count("to the operating system's login") == 2, "two waterfalls"


@pytest.mark.parametrize("protocol", ["grpc"])
async def test_an_unlinked_pc_is_told_so_on_its_screen_and_boots_by_itself_once_it_is_linked(
    system: System, collector: Collector, tmp_path: Path
) -> None:
    """Its link asks for CHAP both ways: firmware and operating system log in with the secrets that came in its script,
    the latter by way of the iBFT."""
    async with PC(system.lan, MAC, tmp_path, name="pc") as pc:
        await pc.power_on()
        await pc.console.expect(r"no image link", stage="screen", timeout=WAIT)
        await pc.console.expect(r"bootlink link set", stage="what to do", timeout=WAIT)
        (client,) = await system.query("client", "list")
        assert client["mac"] == MAC, "the unknown PC was enrolled"
        await system.command("link", "set", client["name"], "demo", "--chap", "mutual")
        await until_grub(pc)
        await pc.console.expect(r"^\S+ login: ", stage="login prompt", timeout=2 * WAIT)
        await pc.console.login()
        assert (await pc.console.run("echo before >/root/before && sync")).status == 0
        assert (await pc.console.run(HELLO)).status == 0
        # A block store that is restarted asks Linux to log out; its root disk must come back, by CHAP again.
        os.kill(system.pids["blockstore"], signal.SIGTERM)
        after = await pc.console.run("sleep 1; echo after >/root/after && sync && cat /root/*", timeout=2 * WAIT)
        assert (after.status, after.text.split()) == (0, ["after", "before"])
    told = [event for event in await events_of(system) if event["data"].get("mac") == MAC]
    boots = {event["data"]["boot_id"] for event in told if event["type"].startswith("bootlink.v1.boot.")}
    assert len(boots) == 1, "from the first DISCOVER to the disk it is one boot"
    (boot,) = boots
    of_boot = [event for event in told if "boot_id" in event["data"]]
    assert {event["traceparent"].split("-")[1] for event in of_boot} == {boot.replace("-", "")}
    kinds = [event["type"].removeprefix("bootlink.v1.") for event in told]
    attached = [event["data"]["initiator"] for event in told if event["type"].endswith("boot.disk_attached")]
    assert (attached[0], attached[-1]) == ("firmware", "os")
    reasons = [event["data"]["reason"] for event in told if event["type"].endswith("boot.disk_detached")]
    assert "logout" in reasons, reasons
    failed = [event["data"] for event in told if event["type"].endswith("boot.failed")]
    assert not [data for data in failed if data["stage"] == "disk"], failed
    assert {"boot.started", "boot.addressed", "boot.loader_sent", "boot.script_served", "boot.disk_attached"} <= {
        *kinds
    }
    assert {event["source"].split("/")[1] for event in of_boot} == {"dhcp", "tftp", "blockstore"}
    spans = await asyncio.to_thread(collector.one_trace, BootId.parse(boot), SERVICES, WHOLE_TRACE)
    assert {span.attributes["bootlink.initiator"] for span in spans if span.name == "iscsi.login"} == {"firmware", "os"}
    (root,) = [span for span in spans if span.parent is None]
    (hello,) = [span for span in spans if span.name == "guest.hello"]
    assert hello.attributes["os.description"] == "Demo"
    assert root.start < hello.start < hello.end
    assert "no image link" in str(root.error), "its root was written when it failed, and it went on all the same"
    assert collector.protocols == {"grpc"}
    shown = await system.query("boot", "show", boot)
    # Whether the disk was ever idle between this test's commands is a matter of the machine.
    assert {step["step"] for step in shown["steps"]} | {"idle"} == STEPS
    drawn = await system.command("boot", "show", boot)
    assert "the system says hello" in drawn
    assert "first packet to system's disk" not in drawn, "there is nothing to compare the first boot with"


async def test_a_boot_needs_neither_nats_nor_postgresql_nor_the_registry(
    system: System, collector: Collector, tmp_path: Path
) -> None:
    """And is one trace all the same."""
    await system.command("client", "add", MAC, "--name", "pc-07")
    await system.command("link", "set", "--default", "demo")
    async with PC(system.lan, MAC, tmp_path, name="pc") as pc:
        await asyncio.sleep(1)  # for the plan to arrive where it is needed
        stopped = [system.pids[name] for name in ("registry", "postgres", "nats")]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await pc.power_on()
            await until_grub(pc)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        await pc.kill()
    async with asyncio.timeout(WAIT):
        while not (boots := await system.query("boot", "list", "--client", "pc-07")):
            await asyncio.sleep(0.5)
        stages: set[str] = set()
        while not stages >= STAGES:
            shown = await system.query("boot", "show", boots[0]["id"])
            stages = {stage["kind"].removeprefix("boot.") for stage in shown["stages"]}
            await asyncio.sleep(0.5)
    await asyncio.to_thread(collector.one_trace, BootId.parse(boots[0]["id"]), SERVICES, FIRST_TRACE)
    assert collector.protocols == {"http"}
