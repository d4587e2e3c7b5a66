"""The metrics of this service: requests and transfers, over TFTP and over HTTP, by what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from bootlink_runtime import LONG_SECONDS, Chassis, Distribution, Metric, tally

Protocol = Literal["tftp", "http"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("tftp", "http")

TRANSFERS: Final = tally(
    "bootlink.tftp.transfers",
    "{transfer}",
    "transfers that ended, by how; EDK2 asks for a file's size before each download, which is a probe",
    "outcome",
    {"tftp_sent": "sent", "tftp_probes": "probe", "tftp_broken_off": "broken off"},
)
REQUESTS: Final = tally(
    "bootlink.tftp.requests", "{request}", "requests for a file", "protocol", {f"{p}_requests": p for p in PROTOCOLS}
)
REFUSED: Final = tally(
    "bootlink.tftp.requests.refused",
    "{request}",
    "requests that got no file, and packets that were none",
    "reason",
    {
        "tftp_over_capacity": "too many transfers",
        "http_over_capacity": "too many connections",
        "tftp_made_room": "gave way unanswered",
        "tftp_malformed": "malformed",
        "http_rejected": "malformed http",
        "tftp_write_refused": "write",
        "tftp_stray": "stray packet",
        "tftp_no_socket": "no socket",
        "tftp_internal_errors": "our failure",
        "http_internal_errors": "our failure in http",
        "hellos_refused": "hello refused",
        "hellos_unreadable": "hello unreadable",
    },
)
SENDS_FAILED: Final = tally(
    "bootlink.tftp.sends.failed",
    "{packet}",
    "packets that the card did not take; each is sent again in time",
    "protocol",
    {"tftp_sends_failed": "tftp"},
)
HEADS: Final = tally(
    "bootlink.tftp.http.heads", "{request}", "HTTP requests for a file's size", "method", {"http_heads": "HEAD"}
)
REPEATS: Final = tally(
    "bootlink.tftp.repeats",
    "{boot}",
    "what was told of a boot before, and is not told again",
    "what",
    {"scripts_served_again": "script", "boot_failed_repeats": "failure", "hellos_again": "hello"},
)
TALLIES: Final = (TRANSFERS, REQUESTS, REFUSED, SENDS_FAILED, HEADS, REPEATS)
SENT: Final = Metric(
    "bootlink.tftp.sent", "counter", "By", "bytes of files that clients took whole", ("protocol",), len(PROTOCOLS)
)
DURATION: Final = Metric(
    "bootlink.tftp.transfer.duration",
    "histogram",
    "s",
    "from a request to the end of its transfer, of files that clients took whole",
    ("protocol",),
    len(PROTOCOLS),
)
ACTIVE: Final = Metric("bootlink.tftp.transfers.active", "gauge", "{transfer}", "transfers under way over either")
METRICS: Final = (*(one.metric for one in TALLIES), SENT, DURATION, ACTIVE)


class Figures:
    """What was sent over one protocol."""

    def __init__(self) -> None:
        self.sent = 0  # bytes
        self.durations = Distribution(LONG_SECONDS)

    def delivered(self, size: int, seconds: float) -> None:
        self.sent += size
        self.durations.record(seconds)


def measure(chassis: Chassis, figures: Mapping[Protocol, Figures], busy: Callable[[], int]) -> None:
    """Have them told; `busy`: transfers under way."""
    chassis.meter.tally(TALLIES, chassis.health.counters)
    chassis.meter.observe(SENT, lambda: [(one.sent, {"protocol": name}) for name, one in figures.items()])
    chassis.meter.distribute(DURATION, lambda: [(one.durations, {"protocol": name}) for name, one in figures.items()])
    chassis.meter.observe(ACTIVE, lambda: [(busy(), {})])
