"""The metrics of this service but for its cache's (see `usage`): sessions, commands, write-backs, space.

A *turn* is what happens between bytes that come in and the answers to them that leave in the same breath: cached reads
and small writes, one or as many as the initiator had sent together. Everything else is a *task*, which waits for a disk
or for data of the initiator's. No turn longer than a few hundred microseconds is usual; what takes longer makes all
other clients wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.pagemap import PAGE
from bootlink_blockstore.portal import KINDS, Portal
from bootlink_blockstore.pressure import Space
from bootlink_blockstore.reading import Readers
from bootlink_runtime import Chassis, Metric, tally
from bootlink_runtime.metering import Labels

POLICIES: Final = ("discard", "keep", "super")

LOGINS: Final = tally(
    "bootlink.iscsi.logins",
    "{login}",
    "logins, by what became of them",
    "outcome",
    {
        "logins_admitted": "admitted",
        "logins_not_admitted": "not admitted",
        "login_refused": "refused",
        "logins_overdue": "overdue",
        "logins_crowded_out": "crowded out",
        "connections_refused": "too many of one address",
        "logins_failed_unforeseen": "our failure",
    },
)
PROTOCOL_ERRORS: Final = tally(
    "bootlink.iscsi.protocol.errors",
    "{error}",
    "what initiators did that RFC 7143 does not allow, or lost",
    "error",
    (
        *("header_digest_wrong", "data_digest_wrong", "cmdsn_outside_window", "cmdsn_repeated", "chap_failed"),
        *("text_out_of_turn", "text_malformed", "data_out_without_task", "data_out_wrong", "ping_unanswered"),
        *("pdu_data_digest", "pdu_snack", "pdu_protocol_error", "pdu_not_supported", "pdu_immediate_commands"),
        *("pdu_task_in_progress", "pdu_invalid_field"),
    ),
)
FAULTS: Final = tally(
    "bootlink.blockstore.faults",
    "{fault}",
    "what went wrong on our side, or was about to",
    "fault",
    {
        "commands_failed_unforeseen": "command failed",
        "writebacks_failed": "write-back failed",
        "layers_unsealed": "layer was writable",
        "writeback_pressure": "write-back nears its limit",
        "space_low": "space low",
    },
)
RECLAIMED: Final = tally(
    "bootlink.writeback.reclaimed",
    "{writeback}",
    "discarded write-backs whose space was given back",
    "policy",
    {"writebacks_reclaimed": "discard"},
)
TALLIES: Final = (LOGINS, PROTOCOL_ERRORS, FAULTS, RECLAIMED)
SESSIONS: Final = Metric(
    "bootlink.iscsi.sessions", "gauge", "{session}", "sessions with a disk", ("initiator",), len(KINDS)
)
HALF_OPEN: Final = Metric(
    "bootlink.iscsi.connections.half_open", "gauge", "{connection}", "connections that have not logged in yet"
)
OPERATIONS: Final = Metric(
    *("bootlink.iscsi.operations", "counter", "{operation}", "reads and writes of disks", ("direction",), 2)
)
IO: Final = Metric("bootlink.iscsi.io", "counter", "By", "bytes that clients read and wrote", ("direction",), 2)
TURN: Final = Metric("bootlink.iscsi.turn.duration", "histogram", "s", "how long a turn took; one in eight is measured")
TASK: Final = Metric(
    *("bootlink.iscsi.task.duration", "histogram", "s", "how long a task ran, from all its data to its end"),
    *(("operation",), 3),
)
DISK: Final = Metric(
    "bootlink.layer.read.duration", "histogram", "s", "how long a cache miss waited for its layer's disk"
)
BOOTS: Final = Metric("bootlink.blockstore.boots", "gauge", "{boot}", "boots whose disks are open")
OPEN: Final = Metric("bootlink.writebacks", "gauge", "{writeback}", "write-backs in use", ("policy",), len(POLICIES))
WRITTEN: Final = Metric(
    "bootlink.writeback.size", "gauge", "By", "bytes that those hold together", ("policy",), len(POLICIES)
)
LARGEST: Final = Metric("bootlink.writeback.largest", "gauge", "By", "bytes that one client's hold, the most")
LIMIT: Final = Metric("bootlink.writeback.limit", "gauge", "By", "bytes that one client may write; 0: no limit")
FREE: Final = Metric("bootlink.writeback.space.free", "gauge", "By", "bytes free where write-backs lie")
RESERVE: Final = Metric("bootlink.writeback.space.reserve", "gauge", "By", "bytes below which that is too little")
METRICS: Final = (
    *(one.metric for one in TALLIES),
    *(SESSIONS, HALF_OPEN, OPERATIONS, IO, TURN, TASK, DISK),
    *(BOOTS, OPEN, WRITTEN, LARGEST, LIMIT, FREE, RESERVE),
)


def measure(
    chassis: Chassis, portal: Portal, attachments: Attachments, readers: Readers, space: Space, limit: int
) -> None:
    """Have them told."""
    meter = chassis.meter

    def by_policy(*, size: bool) -> Iterable[tuple[int, Labels]]:
        sums = dict.fromkeys(POLICIES, 0)
        for boot in attachments.boots:
            for attached in boot.disks.values():
                sums[attached.manifest.policy] += attached.disk.overlay.pages * PAGE if size else 1
        return [(value, {"policy": policy}) for policy, value in sums.items()]

    def free() -> Iterable[tuple[int, Labels]]:
        left = space.left()
        return [] if left is None else [(left, {})]

    def done(*, size: bool) -> Iterable[tuple[int, Labels]]:
        read, written = portal.done(size=size)
        return [(read, {"direction": "read"}), (written, {"direction": "write"})]

    meter.tally(TALLIES, chassis.health.counters)
    meter.observe(SESSIONS, lambda: [(n, {"initiator": kind}) for kind, n in portal.sessions().items()])
    meter.observe(HALF_OPEN, lambda: [(len(portal.half_open), {})])
    meter.observe(OPERATIONS, lambda: done(size=False))
    meter.observe(IO, lambda: done(size=True))
    meter.distribute(TURN, lambda: [(portal.turns, {})])
    meter.distribute(TASK, lambda: [(spread, {"operation": what}) for what, spread in portal.tasks.items()])
    meter.distribute(DISK, lambda: [(readers.waits, {})])
    meter.observe(BOOTS, lambda: [(len(attachments.boots), {})])
    meter.observe(OPEN, lambda: by_policy(size=False))
    meter.observe(WRITTEN, lambda: by_policy(size=True))
    meter.observe(LARGEST, lambda: [(max((boot.written for boot in attachments.boots), default=0), {})])
    meter.observe(LIMIT, lambda: [(limit, {})])
    meter.observe(FREE, free)
    meter.observe(RESERVE, lambda: [(space.reserve, {})])
