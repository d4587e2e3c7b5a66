"""Where spans go: the standard variables, which boots are kept, and a collector that is away or never answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bootlink_events import BootId
from bootlink_runtime import ServiceSettings, StartupError, Telemetry
from bootlink_runtime.otlp import Export, Signal
from bootlink_runtime.settings import load
from bootlink_runtime.telemetry import FLUSH_SECONDS
from bootlink_runtime.tracing import BootSampler
from lab.otlp import Collector

START = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
END = START + timedelta(seconds=2)
PROTOCOLS: tuple[Any, ...] = ("grpc", "http/protobuf")


class Settings(ServiceSettings):
    """The settings of a service that has none of its own."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Any:
    def settings(**variables: str) -> Export:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(Settings).export

    return settings


def test_without_an_endpoint_nothing_is_sent(read: Any) -> None:
    assert read() == Export()


def test_an_endpoint_for_all_signals_is_a_base_and_one_of_its_own_is_whole(read: Any) -> None:
    export = read(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318/", OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://m:9/in"
    )
    assert export.traces == Signal("otlp", "http://collector:4318/v1/traces")
    assert export.metrics == Signal("otlp", "http://m:9/in")


def test_each_signal_may_have_a_protocol_of_its_own_and_grpc_has_no_path(read: Any) -> None:
    export = read(OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4317", OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="grpc")
    assert export.traces == Signal("otlp", "http://collector:4317", "grpc")
    assert export.metrics.endpoint == "http://collector:4317/v1/metrics"


def test_a_signal_asked_for_by_name_goes_to_the_standard_port_of_this_machine(read: Any) -> None:
    export = read(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert export.traces == Signal("otlp", "http://localhost:4317", "grpc")
    assert export.metrics == Signal()


def test_a_signal_can_be_switched_off_and_so_can_all(read: Any) -> None:
    export = read(OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318", OTEL_METRICS_EXPORTER="none")
    assert (export.traces.exporter, export.metrics.exporter) == ("otlp", "none")
    assert read(OTEL_SDK_DISABLED="true") == Export()


@pytest.mark.parametrize(
    ("sampler", "argument", "share"),
    [
        ("always_on", "0.1", 1.0),
        ("always_off", "1", 0.0),
        ("traceidratio", "0.25", 0.25),
        ("parentbased_traceidratio", "0.5", 0.5),
        ("parentbased_always_off", "1", 0.0),
    ],
)
def test_the_standard_samplers_are_known(read: Any, sampler: str, argument: str, share: float) -> None:
    assert read(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=argument).share == share


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(read: Any, name: str, value: str) -> None:
    with pytest.raises(StartupError, match=name):
        read(**{name: value})


def test_of_a_ratio_so_many_boots_are_kept_although_a_uuids_high_bits_are_fixed() -> None:
    boots = [BootId.mint() for _ in range(4000)]
    for share in (0.0, 0.25, 0.5, 1.0):
        sampler = BootSampler(share)
        kept = sum(sampler.keeps(boot.trace_id) for boot in boots)
        assert kept == pytest.approx(share * len(boots), abs=0.05 * len(boots))
    half, most = BootSampler(0.5), BootSampler(0.9)
    assert all(most.keeps(boot.trace_id) for boot in boots if half.keeps(boot.trace_id)), "the same boots"


def test_a_boot_is_kept_by_all_services_or_by_none() -> None:
    with Collector() as collector:
        to = Export(traces=Signal("otlp", f"{collector.http}/v1/traces"), share=0.5)
        services = [Telemetry(name, "lab", export=to) for name in ("dhcp", "registry")]
        boots = [BootId.mint() for _ in range(64)]
        for boot in boots:
            services[0].boot_span(boot, "dhcp.discover", START, END)
            services[1].root_span(boot, "boot", START, END)
        for service in services:
            service.close()
        kept = {boot: sorted(span.service for span in collector.trace(boot)) for boot in boots}
    assert {tuple(told) for told in kept.values()} == {(), ("bootlink-dhcp", "bootlink-registry")}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_arrive_with_the_headers_and_the_resource_that_the_environment_names(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20it-is-me")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")
    former, boot = BootId.mint(), BootId.mint()
    with Collector() as collector:
        endpoint = collector.grpc if protocol == "grpc" else f"{collector.http}/v1/traces"
        telemetry = Telemetry("blockstore", "node-1", export=Export(traces=Signal("otlp", endpoint, protocol)))
        telemetry.boot_span(boot, "writeback.discard", START, END, {"bootlink.lun": 0}, kind="internal", links=[former])
        telemetry.linked_span("image.publish", START, END, links=[boot, former])
        telemetry.close()
        (discard,) = collector.trace(boot)
        (publish,) = [span for span in collector.spans if span.name == "image.publish"]
        assert collector.headers[0]["authorization"] == "Bearer it-is-me"
    assert discard.parent == boot.root_span_id
    assert discard.links == ((former.trace_id, former.root_span_id),)
    assert discard.attributes == {"bootlink.boot.id": str(boot), "bootlink.lun": 0}
    assert (discard.kind, discard.end - discard.start) == ("internal", 2_000_000_000)
    assert publish.parent is None
    assert publish.trace_id not in (boot.trace_id, former.trace_id)
    assert publish.links == ((boot.trace_id, boot.root_span_id), (former.trace_id, former.root_span_id))
    told = discard.resource
    assert (told["service.name"], told["service.instance.id"]) == ("bootlink-blockstore", "node-1")
    assert told["deployment.environment.name"] == "lab"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "away"])
def test_a_collector_that_is_away_or_never_answers_holds_up_nobody(
    protocol: Any, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with Collector(hang=True) as collector:
        endpoint = (collector.grpc if protocol == "grpc" else collector.http) if hangs else "http://127.0.0.1:9"
        signal = Signal("otlp", endpoint if protocol == "grpc" else f"{endpoint}/v1/traces", protocol)
        telemetry = Telemetry("dhcp", "lab", export=Export(traces=signal, metrics=Signal()))
        boot = BootId.mint()
        slowest = 0.0
        for _ in range(3_000):  # more than the queue holds
            began = time.perf_counter()
            telemetry.boot_span(boot, "dhcp.discover", START, END)
            slowest = max(slowest, time.perf_counter() - began)
        if hangs:
            collector.until(lambda it: bool(it.spans))
        began = time.monotonic()
        telemetry.close(0.2)
        stopped = time.monotonic() - began
    assert slowest < FLUSH_SECONDS, "nobody waited for the collector, whose time-out is 10 s"
    assert stopped < FLUSH_SECONDS, "nor did the stop"
