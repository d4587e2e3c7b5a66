"""Each alert rule fires when it should and is quiet when it should be, by Prometheus' own promtool."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from lab.netns import tool
from lab.runbook import ALERTS, alerts

AT: Final = "70m"  # when it is looked; each series has two hours
RISING: Final = "0+1x480"  # one more each 15 s
STILL: Final = "7x480"


@dataclass(frozen=True)
class Case:
    """Series under which an alert fires, and under which it does not."""

    fires: dict[str, str]
    quiet: dict[str, str]


def on(series: str, fires: str, quiet: str) -> Case:
    return Case({series: fires}, {series: quiet})


def of_two(one: str, other: str, fires: tuple[str, str], quiet: tuple[str, str]) -> Case:
    return Case(dict(zip((one, other), fires, strict=True)), dict(zip((one, other), quiet, strict=True)))


_LOOP: Final = "bootlink_event_loop_delay_seconds"
_DELAY: Final = "bootlink_boot_delay_seconds_bucket"
_LATE: Final = {"30.0": STILL, "300.0": RISING, "+Inf": RISING}
_API: Final = "bootlink_api_request_duration_seconds_count"
CASES: Final[dict[str, Case]] = {
    "BootlinkServiceDown": on('up{job="bootlink",service="dhcp"}', "0x480", "1x480"),
    "BootlinkServiceNotReady": on('bootlink_service_ready{service="dhcp"}', "0x480", "1x480"),
    "BootlinkCheckFails": on('bootlink_service_check{required="false",check="other servers"}', "0x480", "1x480"),
    "BootlinkEventLoopBlocked": of_two(
        f"{_LOOP}_count", f'{_LOOP}_bucket{{le="0.5"}}', (RISING, STILL), (RISING, RISING)
    ),
    "BootlinkBootsFail": on('bootlink_boot_failures_total{stage="disk"}', RISING, STILL),
    "BootlinkBootsFallSilent": on('bootlink_boots_silent_total{state="booting"}', RISING, STILL),
    "BootlinkBootsSlow": Case(
        {_DELAY + f'{{stage="system login",le="{le}"}}': values for le, values in _LATE.items()},
        {_DELAY + f'{{stage="system login",le="{le}"}}': RISING for le in _LATE},
    ),
    "BootlinkCacheTooSmall": Case(
        {
            "bootlink_cache_hits_total": RISING,
            "bootlink_cache_misses_total": RISING,
            "bootlink_cache_used_bytes": "95x480",
            "bootlink_cache_budget_bytes": "100x480",
        },
        {
            "bootlink_cache_hits_total": RISING,
            "bootlink_cache_misses_total": RISING,
            "bootlink_cache_used_bytes": "50x480",  # it is being filled
            "bootlink_cache_budget_bytes": "100x480",
        },
    ),
    "BootlinkWritebackSpaceLow": of_two(
        "bootlink_writeback_space_free_bytes",
        "bootlink_writeback_space_reserve_bytes",
        ("5x480", "10x480"),
        ("50x480", "10x480"),
    ),
    "BootlinkWritebackSpaceEndsSoon": on("bootlink_writeback_space_free_bytes", "1000-2x480", "1000-0.1x480"),
    "BootlinkBlockstoreFaults": Case(
        {'bootlink_blockstore_faults_total{fault="command failed"}': RISING},
        {'bootlink_blockstore_faults_total{fault="space low"}': RISING},  # another alert tells of that
    ),
    "BootlinkLoginsRefused": Case(
        {'bootlink_iscsi_logins_total{outcome="refused"}': RISING},
        {'bootlink_iscsi_logins_total{outcome="admitted"}': RISING},
    ),
    "BootlinkDhcpPoolNearlyFull": of_two(
        'bootlink_dhcp_addresses{state="free"}',
        'bootlink_dhcp_addresses{state="bound"}',
        ("5x480", "95x480"),
        ("50x480", "50x480"),
    ),
    "BootlinkDhcpAnswersWithheld": on('bootlink_dhcp_answers_withheld_total{reason="disk too slow"}', RISING, STILL),
    "BootlinkTransfersBreakOff": of_two(
        'bootlink_tftp_transfers_total{outcome="broken off"}',
        'bootlink_tftp_transfers_total{outcome="sent"}',
        (RISING, RISING),
        (STILL, RISING),
    ),
    "BootlinkNatsAway": on('bootlink_nats_connected{service="tftp"}', "0x480", "1x480"),
    "BootlinkEventsWait": on("bootlink_events_lag_seconds", "61x480", "1x480"),
    "BootlinkEventsLost": Case(
        {'bootlink_events_lost_total{reason="backlog full"}': RISING},
        {'bootlink_events_lost_total{reason="withheld"}': RISING},  # on purpose: made-up PCs
    ),
    "BootlinkConsumerBehind": on(
        'bootlink_nats_consumer_pending{consumer="registry",state="undelivered"}', "1001x480", "10x480"
    ),
    "BootlinkWebhookGivesUp": on('bootlink_webhook_events_total{outcome="dead"}', RISING, STILL),
    "BootlinkDatabaseAway": on("bootlink_database_up", "0x480", "1x480"),
    "BootlinkChangesNotDelivered": on("bootlink_outbox_lag_seconds", "61x480", "1x480"),
    "BootlinkPlansOld": on("bootlink_plans_synced", "0x480", "1x480"),
    "BootlinkJobStandsStill": on('bootlink_job_standstill_seconds{kind="image.import"}', "901x480", "1x480"),
    "BootlinkJobFailed": on('bootlink_jobs{kind="image.import",state="failed"}', "0x260 1x220", "1x480"),
    "BootlinkApiFails": of_two(
        f'{_API}{{method="GET",status="5xx"}}',
        f'{_API}{{method="GET",status="2xx"}}',
        (RISING, RISING),
        (STILL, RISING),
    ),
    "BootlinkMetricsLeftOut": on("bootlink_metrics_left_out_total", RISING, STILL),
}


def test_every_alert_has_a_runbook_line_and_is_tried() -> None:
    assert {alert["alert"] for alert in alerts()} == set(CASES)
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert alert["annotations"]["summary"]
        assert len(alert["annotations"]["runbook"]) > 20


@pytest.mark.parametrize("fires", [True, False])
def test_every_alert_fires_when_it_should_and_is_quiet_when_it_should_be(fires: bool, tmp_path: Path) -> None:
    series = {
        _of(name, one): values
        for name, case in CASES.items()
        for one, values in (case.fires if fires else case.quiet).items()
    }
    test = {
        "interval": "15s",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'(count(ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0) or vector(0)',
                "eval_time": AT,
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
            for name in CASES
        ],
    }
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(
        [tool("promtool", "prometheus"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _of(name: str, series: str) -> str:
    """The series with an `instance` of this case's own, so that all cases can be tried at once."""
    bare, brace, labels = series.partition("{")
    return f'{bare}{{instance="{name}"{"," + labels if brace else "}"}'
