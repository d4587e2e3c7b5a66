"""The metrics of this service: what became of packets, and what its addresses are used for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bootlink_dhcp.leases import LeaseTable, State
from bootlink_dhcp.server import WAITS
from bootlink_runtime import Chassis, Distribution, Metric, tally
from bootlink_runtime.metering import Labels

PACKETS: Final = tally(
    "bootlink.dhcp.packets",
    "{packet}",
    "packets received, by what was decided about them",
    "outcome",
    (
        *("discover", "request", "inform", "decline", "release", "bootp", "nak", "pool_exhausted"),
        *("request_for_another_server", "request_of_another_servers_client"),
        *("proxy_discover", "proxy_request", "proxy_overheard", "proxy_no_loader"),
        *("ignored_not_for_a_proxy", "ignored_not_booting"),
        *("dropped_malformed", "dropped_not_a_request", "dropped_not_ethernet", "dropped_impossible_mac"),
        *("dropped_relay_of_another_subnet", "dropped_request_without_address", "dropped_decline"),
        *("dropped_release", "dropped_inform", "dropped_bootp", "dropped_bootp_for_another_server"),
    ),
)
WITHHELD: Final = tally(
    "bootlink.dhcp.answers.withheld",
    "{answer}",
    "answers that did not leave, by why",
    "reason",
    {
        "dropped_disk_too_slow": "disk too slow",
        "promises_not_kept": "disk failed",
        "dropped_bus_too_slow": "bus too slow",
        "silent_while_cut_off": "cut off from other servers",
        "not_confirmed": "another server has the lease",
        "replies_not_sent": "card refused",
    },
)
LEASE_FAULTS: Final = tally(
    "bootlink.dhcp.lease.faults",
    "{lease}",
    "leases that were not as they should be",
    "fault",
    {
        "addresses_taken": "address in use by a stranger",
        "offered_unprobed": "offered without a probe",
        "lease_races": "written by two servers",
        "leases_given_up": "given up to another server",
        "leases_unreadable": "unreadable",
    },
)
OTHERS: Final = tally(
    "bootlink.dhcp.foreign.answers",
    "{packet}",
    "answers of other DHCP servers that were heard",
    "kind",
    {"foreign_servers_heard": "answer", "foreign_answers_malformed": "malformed"},
)
ADVERTISEMENTS: Final = tally(
    "bootlink.dhcp.router.advertisements",
    "{packet}",
    "router advertisements, which spare iPXE a wait",
    "outcome",
    {
        "router_advertisements": "sent",
        "router_advertisements_failed": "failed",
        "router_messages_malformed": "malformed",
    },
)
WOKEN: Final = tally(
    "bootlink.dhcp.clients.woken", "{client}", "clients sent a magic packet", "outcome", {"clients_woken": "sent"}
)
TALLIES: Final = (PACKETS, WITHHELD, LEASE_FAULTS, OTHERS, ADVERTISEMENTS, WOKEN)
ADDRESSES: Final = Metric(
    "bootlink.dhcp.addresses", "gauge", "{address}", "addresses of all pools, by state", ("state",), len(State) + 1
)
WAIT: Final = Metric(
    "bootlink.dhcp.answer.wait",
    "histogram",
    "s",
    "what ACKs waited until their leases were on disk, and OFFERs until their address was known to be free",
    ("reason",),
    len(WAITS),
)
METRICS: Final = (*(one.metric for one in TALLIES), ADDRESSES, WAIT)


def measure(chassis: Chassis, tables: Sequence[LeaseTable], waits: Mapping[str, Distribution]) -> None:
    """Have them told. Without tables, as a proxy has none, no addresses."""

    def addresses() -> Iterable[tuple[int, Labels]]:
        counts = [table.counts(time.time()) for table in tables]
        return [(sum(one[state] for one in counts), {"state": state}) for state in (counts[0] if counts else ())]

    chassis.meter.tally(TALLIES, chassis.health.counters)
    chassis.meter.observe(ADDRESSES, addresses)
    chassis.meter.distribute(WAIT, lambda: [(spread, {"reason": reason}) for reason, spread in waits.items()])
