"""A whole `bootlink up` whose collector takes everything and never answers: it serves, sends, and stops in time."""

from __future__ import annotations

from pathlib import Path

from lab.disks import MIB, sparse_disk
from lab.otlp import Collector
from lab.up import Up


def test_a_collector_that_never_answers_stops_no_service_from_starting_serving_and_stopping(tmp_path: Path) -> None:
    """Over gRPC, whose library brings threads of its own; tests/unit/runtime/test_export.py has both protocols."""
    with Collector(hang=True) as collector:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with Up(env=env) as up:
            disk = sparse_disk(tmp_path / "disk.img", 8 * MIB)
            up.query("image", "add", "debian", str(disk))
            collector.until(lambda it: {"image.add_version", "image.publish"} <= {span.name for span in it.spans})
            collector.until(lambda it: bool(it.metrics))
            assert up.query("link", "set", "--default", "debian")["image"] == "debian", "it serves on"
            status = up.stop()
    assert status == 0
    killed = [said for said in up.said if "killed" in str(said)]
    assert not killed, "each service ended by itself in its time"
