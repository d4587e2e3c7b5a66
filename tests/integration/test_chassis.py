"""A service's life: it starts, says where it listens, stops when told, and explains itself when it cannot start."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.aio.msg import Msg
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from bootlink_runtime import Chassis, Service, ServiceSettings, StartupError, ask, running, survey
from bootlink_runtime.health import SCRAPES_LIMIT
from lab.chassis import bus_on
from lab.metrics import Scrape
from lab.nats import NatsServer

WAIT = 20.0

SCRIPT = """
import asyncio
from bootlink_runtime import Chassis, Service, ServiceSettings, StartupError, main

async def run(chassis: Chassis, settings: ServiceSettings) -> None:
    {body}

main(Service("probe", ServiceSettings, run))
"""


class ProbeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="BOOTLINK_PROBE_")

    answer: int = Field(default=42, ge=0)


async def serve(chassis: Chassis, settings: ProbeSettings) -> None:
    chassis.listening("probe", "127.0.0.1", 1234)
    chassis.ready()
    await chassis.stopping.wait()


def settings(folder: Path, nats_url: str = "nats://127.0.0.1:1") -> ProbeSettings:
    return ProbeSettings(data=folder, nats_url=nats_url, node="lab")


def health_url(chassis: Chassis) -> str:
    (address,) = [a for a in chassis.health.addresses if a.what == "health"]
    return f"http://{address}"


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=WAIT)


def start_process(folder: Path, body: str, **variables: str) -> subprocess.Popen[str]:
    """The service of SCRIPT as a process, without NATS."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        env=os.environ
        | {"BOOTLINK_DATA": str(folder), "BOOTLINK_NATS_URL": "nats://127.0.0.1:1", "BOOTLINK_LOG_FORMAT": "json"}
        | variables,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_a_service_is_ready_without_nats(tmp_path: Path) -> None:
    async with (
        running(Service("probe", ProbeSettings, serve), settings(tmp_path)) as chassis,
        httpx.AsyncClient() as http,
    ):
        assert (await http.get(f"{health_url(chassis)}/healthz")).status_code == 200
        answer = await http.get(f"{health_url(chassis)}/readyz")
        assert answer.status_code == 200
        report = answer.json()
        assert report["ready"] is True
        assert report["addresses"]["probe"] == "127.0.0.1:1234"
        assert report["checks"]["nats"]["ok"] is False


async def test_a_service_is_scraped_at_its_health_port_without_nats(tmp_path: Path) -> None:
    started = asyncio.Event()
    go_on = asyncio.Event()
    async with running(Service("probe", ProbeSettings, serve), settings(tmp_path)) as chassis, client() as http:
        answer = await http.get(f"{health_url(chassis)}/metrics")
        scrape = Scrape.of((answer.content, answer.headers["content-type"]))
        assert scrape.value("bootlink_service_ready") == 1
        assert scrape.value("bootlink_service_check", check="nats", required="false") == 0
        assert scrape.value("bootlink_nats_connected") == 0
        assert scrape.total("process_cpu_time_seconds_total") > 0
        assert scrape.value("process_memory_usage_bytes") > 10 << 20
        assert scrape.value("process_unix_file_descriptor_count") > 3

        # While four are under way or wait, one more is refused, and the service goes on.
        async def slow(_: str) -> tuple[bytes, str]:
            started.set()
            await go_on.wait()
            return b"", "text/plain"

        chassis.health.scrape = slow
        scrapes = [asyncio.create_task(http.get(f"{health_url(chassis)}/metrics")) for _ in range(SCRAPES_LIMIT)]
        await started.wait()
        statuses = []
        while 503 not in statuses:
            statuses.append((await http.get(f"{health_url(chassis)}/healthz")).status_code)
            probe = asyncio.create_task(http.get(f"{health_url(chassis)}/metrics"))
            done, _ = await asyncio.wait({probe}, timeout=0.2)
            statuses += [one.result().status_code for one in done]
            scrapes += [] if done else [probe]
        assert set(statuses) == {200, 503}
        go_on.set()
        assert {one.status_code for one in await asyncio.gather(*scrapes)} <= {200, 503}


async def test_a_required_check_that_fails_makes_the_service_unready(tmp_path: Path) -> None:
    holds = True

    async def run(chassis: Chassis, settings: ProbeSettings) -> None:
        chassis.health.check("store", lambda: (holds, "the store is writable"))
        await serve(chassis, settings)

    async with (
        running(Service("probe", ProbeSettings, run), settings(tmp_path)) as chassis,
        httpx.AsyncClient() as http,
    ):
        assert (await http.get(f"{health_url(chassis)}/readyz")).status_code == 200
        holds = False
        answer = await http.get(f"{health_url(chassis)}/readyz")
        assert (answer.status_code, answer.json()["checks"]["store"]["ok"]) == (503, False)


async def test_a_survey_finds_the_running_services(nats: NatsServer, tmp_path: Path) -> None:
    async with running(Service("probe", ProbeSettings, serve), settings(tmp_path, nats.url)) as chassis:
        reports: list[dict[str, Any]] = []
        async with asyncio.timeout(WAIT):
            await chassis.bus.epoch_after(0)
            while not reports:
                reports = await survey(chassis.bus.client)
        assert [(report["service"], report["node"], report["ready"]) for report in reports] == [("probe", "lab", True)]
        nats.kill()
        nats.start()
        async with asyncio.timeout(WAIT):
            await chassis.bus.epoch_after(1)
            while not (reports := await survey(chassis.bus.client)):
                pass
        assert reports[0]["addresses"]["probe"] == "127.0.0.1:1234"


async def test_a_page_of_a_service_is_told_over_http_and_nats(nats: NatsServer, tmp_path: Path) -> None:
    async def run(chassis: Chassis, settings: ProbeSettings) -> None:
        chassis.health.page("cache", lambda: {"node": chassis.node, "used": 7})
        await serve(chassis, settings)

    async with running(Service("probe", ProbeSettings, run), settings(tmp_path, nats.url)) as chassis:
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{health_url(chassis)}/cache")).json() == {"node": "lab", "used": 7}
            missing = await http.get(f"{health_url(chassis)}/nonsense")
            assert (missing.status_code, missing.json()) == (404, {"pages": ["cache", "status"]})
        async with asyncio.timeout(WAIT):
            await chassis.bus.epoch_after(0)
            while not (told := await ask(chassis.bus.client, "cache", "probe")):
                pass
        assert told == [{"node": "lab", "used": 7}]
        assert await ask(chassis.bus.client, "cache", "another") == []
        (status,) = await ask(chassis.bus.client, "status", "probe")
        assert status["service"] == "probe"
        refused = await chassis.bus.client.request("bootlink.rpc.nonsense.probe.lab", timeout=WAIT)
        assert refused.headers is not None
        assert refused.headers["Nats-Service-Error-Code"] == "404"


async def test_a_background_task_that_fails_ends_the_service(tmp_path: Path) -> None:
    async def fail() -> None:
        raise RuntimeError("lost a part")

    async def run(chassis: Chassis, settings: ProbeSettings) -> None:
        chassis.spawn(fail(), name="part")
        await serve(chassis, settings)

    with pytest.raises(RuntimeError, match="lost a part"):
        async with running(Service("probe", ProbeSettings, run), settings(tmp_path)) as chassis:
            await asyncio.wait_for(chassis.stopping.wait(), WAIT)


async def test_a_service_whose_run_fails_after_it_was_ready_ends(tmp_path: Path) -> None:
    async def run(chassis: Chassis, settings: ProbeSettings) -> None:
        chassis.ready()
        await asyncio.sleep(0.05)
        raise RuntimeError("lost the main part")

    with pytest.raises(RuntimeError, match="lost the main part"):
        async with running(Service("probe", ProbeSettings, run), settings(tmp_path)) as chassis:
            await asyncio.wait_for(chassis.stopping.wait(), WAIT)


async def test_a_survey_that_nobody_or_somebody_else_answers_is_empty(nats: NatsServer, tmp_path: Path) -> None:
    async with bus_on(nats.url) as bus:
        assert await survey(bus.client) == []
        answers = (b"not json", b"[]", b'{"name": 7}', b'{"name": "bootlink-x", "endpoints": [{}, {"data": {}}]}')

        async def answer(message: Msg) -> None:
            for text in answers:
                await message.respond(text)

        await bus.client.subscribe("$SRV.STATS", cb=answer)
        assert await survey(bus.client) == []


async def test_a_service_is_found_again_after_the_server_ended_its_connection_for_good(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(Service("probe", ProbeSettings, serve), settings(tmp_path, nats.url)) as chassis:
        await chassis.bus.epoch_after(0)
        nats.lock_out()
        async with asyncio.timeout(WAIT):
            while chassis.bus.connected:
                await asyncio.sleep(0.02)
            nats.reload()
            await chassis.bus.epoch_after(1)
            while not (reports := await survey(chassis.bus.client)):
                await asyncio.sleep(0.05)
        assert [report["service"] for report in reports] == ["probe"]


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:4222", "nats://", "nats://127.0.0.1:99999"])
def test_what_is_no_address_of_a_nats_server_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValidationError, match="write it like nats://"):
        settings(tmp_path, url)


async def test_a_service_that_cannot_start_raises_why(tmp_path: Path) -> None:
    async def run(chassis: Chassis, settings: ProbeSettings) -> None:
        raise StartupError("there is no loader", "apt install ipxe")

    with pytest.raises(StartupError, match="apt install ipxe"):
        async with running(Service("probe", ProbeSettings, run), settings(tmp_path)):
            pass


async def test_a_taken_health_port_is_explained(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = settings(tmp_path).model_copy(update={"health_port": port})
        with pytest.raises(StartupError, match="BOOTLINK_PROBE_HEALTH_PORT"):
            async with running(Service("probe", ProbeSettings, serve), wanted):
                pass


def test_a_process_stops_with_status_0_when_it_is_told_to(tmp_path: Path) -> None:
    child = start_process(tmp_path, "chassis.ready(); await chassis.stopping.wait()")
    assert child.stderr is not None
    for line in child.stderr:
        if '"ready"' in line:
            break
    child.send_signal(signal.SIGTERM)
    _, words = child.communicate(timeout=WAIT)
    assert child.returncode == 0
    assert '"stopped"' in words


def test_a_process_takes_all_the_descriptors_that_it_may_have(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    body = 'import resource; raise StartupError(str(resource.getrlimit(resource.RLIMIT_NOFILE)), "none")'
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        child = start_process(tmp_path, body)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    _, words = child.communicate(timeout=WAIT)
    assert str((hard, hard)) in words


def test_a_process_that_cannot_start_says_why_in_one_line_and_exits_with_1(tmp_path: Path) -> None:
    child = start_process(tmp_path, 'raise StartupError("there is no loader", "apt install ipxe")')
    _, words = child.communicate(timeout=WAIT)
    assert child.returncode == 1
    assert [line for line in words.splitlines() if "cannot start" in line and "apt install ipxe" in line]
    assert "Traceback" not in words


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    child = start_process(tmp_path, "pass", BOOTLINK_LOG_LEVEL="loud")
    _, words = child.communicate(timeout=WAIT)
    assert child.returncode == 1
    assert "BOOTLINK_LOG_LEVEL" in words
    assert "Traceback" not in words
