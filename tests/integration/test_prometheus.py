"""A real Prometheus scrapes the four services after some boots: every query of the dashboards returns data, every alert
rule is understood and asks for what there is, and no label names a client."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from bench import boot_servers, power_on
from bench.boot_servers import SERVER
from bench.servers import mac
from bootlink_events import BootId, initiator_iqn, target_iqn
from lab.iscsi import Initiator
from lab.metrics import Scrape
from lab.metrics_page import SERVICES, exported
from lab.netns import Cable, entered, tool
from lab.process import Process
from lab.registry import raw_disk
from lab.runbook import ALERTS, CONFIGURATION, alerts, queries
from lab.up import Up, bootlink

PCS: Final = 3
PORTS: Final = {"dhcp": 8601, "tftp": 8602, "blockstore": 8603, "registry": 8604}
PORTAL: Final = 3260
PROMETHEUS: Final = "127.0.0.1:9090"
WAIT: Final = 60.0
RANGE: Final = "1m"  # in place of Grafana's $__rate_interval: the whole test lies in it
BUILT_IN: Final = {"__name__", "instance", "job", "service", "le"}
OF_THE_RESOURCE: Final = {
    *("service_name", "service_version", "service_instance_id", "service_namespace"),
    *("telemetry_sdk_name", "telemetry_sdk_version", "telemetry_sdk_language"),
}

pytestmark = pytest.mark.timeout(240)  # PostgreSQL's first start, three boots and a few scrapes on a busy machine


class Watched:
    """The system, and the Prometheus that watches it, in a namespace of their own."""

    def __init__(self, cable: Cable, up: Up) -> None:
        self.cable, self.up = cable, up
        self._client = httpx.Client(timeout=WAIT)

    def http(self, url: str, **query: str) -> httpx.Response:
        with entered(self.cable.server):
            return self._client.get(url, params=query)

    def close(self) -> None:
        self._client.close()

    def ask(self, what: str, **query: str) -> Any:
        """Of Prometheus' API."""
        answer = self.http(f"http://{PROMETHEUS}/api/v1/{what}", **query)
        assert answer.status_code == 200, (query, answer.text)
        return answer.json()["data"]

    def values(self, query: str) -> list[float]:
        return [float(one["value"][1]) for one in self.ask("query", query=query)["result"]]

    def until(self, query: str) -> None:
        """Wait until Prometheus has an answer to this."""
        deadline = time.monotonic() + WAIT
        while not self.values(query):
            assert time.monotonic() < deadline, query
            time.sleep(0.2)

    def command(self, *arguments: str) -> str:
        facts = self.up.facts
        env = {"BOOTLINK_API": facts["api"], "BOOTLINK_NATS_URL": facts["nats"], "BOOTLINK_DATA": facts["data"]}
        done = bootlink(*arguments, env=env, prefix=self.cable.inside(self.cable.server))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def metrics(self, service: str) -> Scrape:
        answer = self.http(f"http://127.0.0.1:{PORTS[service]}/metrics")
        return Scrape.of((answer.content, answer.headers["content-type"]))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Three PCs have booted, read and written; a job has run; Prometheus has seen all of it."""
    folder = tmp_path_factory.mktemp("watched")
    loaders = str(boot_servers.loaders(folder))
    settings = {f"BOOTLINK_{service.upper()}_HEALTH_PORT": str(port) for service, port in PORTS.items()} | {
        "BOOTLINK_BLOCKSTORE_PORT": str(PORTAL),
        "BOOTLINK_DHCP_POOL": power_on.POOL,
        "BOOTLINK_DHCP_LOADERS": loaders,
        "BOOTLINK_TFTP_LOADERS": loaders,
    }
    with ExitStack() as stack:
        cable = stack.enter_context(boot_servers.lan())
        up = Up("--interface", cable.server_card, env=settings)
        up.prefix = cable.inside(cable.server)
        stack.enter_context(up)
        system = Watched(cable, up)
        stack.callback(system.close)
        stack.callback(_prometheus(system, folder).stop)
        _link(system, folder)
        for service in PORTS:
            system.until(f'up{{service="{service}"}} == 1')
        system.until("bootlink_registry_objects > 0")
        boots = power_on.switched_on(cable, PCS)
        assert [boot.problem for boot in boots] == [""] * PCS
        with entered(cable.server):
            asyncio.run(_use())
        system.until("bootlink_iscsi_operations_total > 0")  # a series has no rate before it is there
        with entered(cable.server):
            asyncio.run(_use())
        system.command("image", "verify", "demo")
        system.until('bootlink_jobs{kind="image.verify",state="done"} > 0')
        system.until('sum(bootlink_boot_delay_seconds_count{stage=~".*login"}) > 0')
        system.until("rate(bootlink_cache_hits_total[1m]) > 0")
        yield system


def _prometheus(system: Watched, folder: Path) -> Process:
    """Prometheus by our own configuration, but in less of a hurry to come up than to scrape."""
    text = CONFIGURATION.read_text()
    assert text.count(": 15s") == 2
    (folder / "prometheus.yml").write_text(text.replace(": 15s", ": 500ms"))
    shutil.copy(ALERTS, folder)
    command = (
        tool("prometheus", "prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address={PROMETHEUS}",
    )
    process = Process(system.cable.inside(system.cable.server, *command), log=folder / "prometheus.log")

    def answers() -> bool:
        try:
            return system.http(f"http://{PROMETHEUS}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    process.start(answers)
    return process


def _link(system: Watched, folder: Path) -> None:
    """An image for all, and the PCs."""
    system.command("image", "add", "demo", str(raw_disk(folder / "demo.img", size=8 << 20)))
    for number in range(1, PCS + 1):
        system.command("client", "add", mac(number), "--name", f"pc-{number:02}")
    system.command("link", "set", "--default", "demo")
    deadline = time.monotonic() + WAIT
    while any(system.http(f"http://127.0.0.1:{PORTS[one]}/plans").json()["plans"] < PCS for one in ("dhcp", "tftp")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while system.http(f"http://127.0.0.1:{PORTS['blockstore']}/plans").json()["plans"] < PCS:
        time.sleep(0.1)


async def _use() -> None:
    """Each PC's system logs in, reads what is there twice and some more, and writes."""
    for number in range(1, PCS + 1):
        name, target = initiator_iqn(mac(number), BootId.mint()), target_iqn(mac(number))
        pc = await Initiator.logged_in(str(SERVER), PORTAL, name=name, target=target)
        for _ in range(2):
            for block in range(8):
                await pc.read(block << 15, 4096)
        await pc.read(1 << 20, 1 << 20)
        await pc.write(0, bytes(4096))
        await pc.close()


def test_every_query_of_the_dashboards_returns_data(watched: Watched) -> None:
    asked = queries()
    assert len(asked) > 80
    empty = []
    for where, query in asked:
        values = watched.values(query.replace("$__rate_interval", RANGE))
        if not any(map(math.isfinite, values)):
            empty.append((where, query, values))
    assert empty == []


def test_every_alert_asks_for_what_there_is_and_prometheus_understands_it(watched: Watched) -> None:
    names = {name for rule in alerts() for name in re.findall(r"\b(?:bootlink|process)_[a-z_]+", rule["expr"])}
    assert len(names) > 20
    assert [name for name in sorted(names) if not watched.values(f"count({name})")] == []
    (group,) = watched.ask("rules")["groups"]
    assert len(group["rules"]) == len(alerts())
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    firing = {rule["name"] for rule in group["rules"] if rule["state"] == "firing"}
    assert firing == set(), "nothing is wrong with this system"


def test_no_label_names_a_client_and_series_are_few(watched: Watched) -> None:
    declared = {label for service in SERVICES for metric in exported(service) for label in metric.labels}
    assert set(watched.ask("labels")) <= declared | BUILT_IN | OF_THE_RESOURCE | {"alertname", "alertstate", "severity"}
    told = json.dumps(watched.ask("series", **{"match[]": '{job="bootlink"}'}))
    for number in range(1, PCS + 1):
        assert mac(number) not in told
        assert f"pc-{number:02}" not in told
    assert max(watched.values("scrape_samples_scraped")) < 1_500


@pytest.mark.parametrize("service", PORTS)
def test_each_service_tells_what_the_page_of_metrics_says(service: str, watched: Watched) -> None:
    scrape = watched.metrics(service)
    kinds: Mapping[str, str] = {name: family.type for name, family in scrape.families.items() if name != "target_info"}
    page = {metric.family: metric.kind for metric in exported(service)}
    assert kinds == page
    for metric in exported(service):
        assert scrape.series(metric.sample) <= metric.at_most, metric


def test_what_was_done_is_what_is_told(watched: Watched) -> None:
    dhcp, tftp, store, registry = (watched.metrics(service) for service in PORTS)
    assert dhcp.value("bootlink_dhcp_packets_total", outcome="discover") >= 2 * PCS
    assert dhcp.value("bootlink_dhcp_packets_total", outcome="request") >= 2 * PCS
    assert dhcp.value("bootlink_dhcp_addresses", state="bound") == PCS
    assert tftp.value("bootlink_tftp_transfers_total", outcome="sent") >= 2 * PCS
    assert tftp.total("bootlink_tftp_sent_bytes_total") >= PCS * boot_servers.LOADERS["undionly.kpxe"]
    assert store.value("bootlink_iscsi_logins_total", outcome="admitted") == 2 * PCS
    assert store.value("bootlink_iscsi_operations_total", direction="read") >= 2 * PCS * 17
    assert store.value("bootlink_iscsi_operations_total", direction="write") == 2 * PCS
    assert store.value("bootlink_iscsi_io_bytes_total", direction="write") == 2 * PCS * 4096
    assert store.total("bootlink_cache_hits_total") > store.total("bootlink_cache_misses_total") > 0
    assert store.value("bootlink_writeback_size_bytes", policy="discard") == PCS * 4096
    assert store.value("bootlink_iscsi_turn_duration_seconds_count") > 0
    assert registry.value("bootlink_registry_objects", kind="clients") == PCS
    assert registry.value("bootlink_boot_delay_seconds_count", stage="script") == PCS
    assert registry.value("bootlink_jobs", kind="image.verify", state="done") == 1
    assert registry.value("bootlink_nats_consumer_pending", consumer="registry", state="undelivered") == 0
