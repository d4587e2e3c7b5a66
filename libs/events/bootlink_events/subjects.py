"""The one table of events: subject, model, who publishes it, who is known to consume it.

A subject is `bootlink.v1.<what>.<key>`. `what` is the event's name; `key` is the client's token (its MAC address
with dashes) or the name of the thing it is about, reduced to what NATS allows in one token. docs/events.md and
docs/asyncapi.yaml are generated from this table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bootlink_events import models as m
from bootlink_events.names import mac_token
from bootlink_events.severity import Severity

PREFIX: Final = "bootlink.v1"
EVENTS_STREAM: Final = "BOOTLINK_EVENTS"
ALL_EVENTS: Final = f"{PREFIX}.>"

_NOT_IN_A_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")


def subject_token(name: str) -> str:
    """`name` as one token of a NATS subject; "_" where nothing of it remains."""
    return _NOT_IN_A_TOKEN.sub("-", name).strip("-") or "_"


def _by_mac(data: Any) -> str:
    return mac_token(data.mac)


def _by_image(data: Any) -> str:
    return subject_token(data.image)


def _by_node(data: Any) -> str:
    return subject_token(data.node)


def _by_link(data: m.LinkChanged) -> str:
    return subject_token(f"{data.scope}-{data.name}" if data.name else data.scope)


def _by_name(data: m.TokenChanged | m.WebhookChanged) -> str:
    return subject_token(data.name)


def _by_group(data: m.GroupChanged) -> str:
    return subject_token(data.group)


def _by_server(data: m.DhcpForeignServer) -> str:
    return subject_token(str(data.server))


def _by_loader(data: m.DhcpLoaderMissing) -> str:
    return subject_token(data.loader)


def _by_address(data: m.DhcpAddressTaken) -> str:
    return subject_token(str(data.address))


def _by_job(data: m.JobChanged | m.JobProgress) -> str:
    return str(data.id)


def _info(_: Any) -> Severity:
    """info"""
    return Severity.INFO


def _warn(_: Any) -> Severity:
    """warning"""
    return Severity.WARN


def _error(_: Any) -> Severity:
    """error"""
    return Severity.ERROR


def _screen_warns(data: m.BootScriptServed) -> Severity:
    """info; warning where it is a screen that tells a cause"""
    return Severity.WARN if data.kind == "screen" and data.cause else Severity.INFO


def _stranger_warns(data: m.DhcpForeignServer) -> Severity:
    """warning; info where it is expected"""
    return Severity.INFO if data.expected else Severity.WARN


def _everything_is_an_error(data: m.DhcpAddressTaken) -> Severity:
    """warning; error where a host answers for everything"""
    return Severity.ERROR if data.everything else Severity.WARN


def _full_is_an_error(data: m.WritebackPressure) -> Severity:
    """warning; error at 100 percent"""
    return Severity.ERROR if data.percent is not None and data.percent >= _FULL else Severity.WARN


def _a_problem_warns(data: m.WebhookChanged) -> Severity:
    """info; warning where it was switched off for a problem"""
    return Severity.WARN if data.problem else Severity.INFO


def _failed_is_an_error(data: m.JobChanged) -> Severity:
    """info; error where it failed"""
    return Severity.ERROR if data.state == "failed" else Severity.INFO


_FULL: Final = 100  # percent of what a client may write; its writes are refused


@dataclass(frozen=True, slots=True)
class EventKind:
    """One row of the table."""

    what: str
    model: type[m.EventData]
    publishers: tuple[str, ...]
    consumers: tuple[str, ...]
    key: Callable[[Any], str] = _by_mac
    severity: Callable[[Any], Severity] = _info  # whose docstring is what docs/events.md says of it

    @property
    def type(self) -> str:
        """The CloudEvents type, which is the subject without its key."""
        return f"{PREFIX}.{self.what}"

    def subject(self, data: m.EventData) -> str:
        return f"{self.type}.{self.key(data)}"


EVENTS: Final[tuple[EventKind, ...]] = (
    EventKind("boot.started", m.BootStarted, ("dhcp", "tftp"), ("registry",)),
    EventKind("boot.addressed", m.BootAddressed, ("dhcp",), ("registry",)),
    EventKind("boot.loader_sent", m.BootLoaderSent, ("tftp",), ("registry",)),
    EventKind("boot.loader_changed", m.BootLoaderChanged, ("dhcp",), (), severity=_warn),
    EventKind("boot.script_served", m.BootScriptServed, ("tftp",), ("registry",), severity=_screen_warns),
    EventKind("boot.disk_attached", m.BootDiskAttached, ("blockstore",), ("registry",)),
    EventKind("boot.disk_used", m.BootDiskUsed, ("blockstore",), ("registry",)),
    EventKind("boot.disk_detached", m.BootDiskDetached, ("blockstore",), ("registry",)),
    EventKind("boot.hello", m.BootHello, ("tftp",), ("registry",)),
    EventKind("boot.failed", m.BootFailed, ("dhcp", "tftp", "blockstore", "registry"), ("registry",), severity=_error),
    EventKind("dhcp.foreign_server", m.DhcpForeignServer, ("dhcp",), (), _by_server, severity=_stranger_warns),
    EventKind("dhcp.loader_missing", m.DhcpLoaderMissing, ("dhcp",), (), _by_loader, severity=_warn),
    EventKind("dhcp.address_taken", m.DhcpAddressTaken, ("dhcp",), (), _by_address, severity=_everything_is_an_error),
    EventKind("client.seen", m.ClientSeen, ("dhcp", "tftp"), ("registry",)),
    EventKind("client.changed", m.ClientChanged, ("registry",), ()),
    EventKind("writeback.discarded", m.WritebackDiscarded, ("blockstore",), ()),
    EventKind("writeback.kept", m.WritebackKept, ("blockstore",), ()),
    EventKind("writeback.restored", m.WritebackRestored, ("blockstore",), ()),
    EventKind("writeback.pressure", m.WritebackPressure, ("blockstore",), (), severity=_full_is_an_error),
    EventKind("writeback.committed", m.WritebackCommitted, ("registry",), ()),
    EventKind("writeback.left", m.WritebackLeft, ("registry",), (), severity=_warn),
    EventKind("branch.changed", m.BranchChanged, ("registry",), ()),
    EventKind("group.changed", m.GroupChanged, ("registry",), (), _by_group),
    EventKind("link.changed", m.LinkChanged, ("registry",), (), _by_link),
    EventKind("image.published", m.ImagePublished, ("registry",), (), _by_image),
    EventKind("image.version_added", m.ImageVersionAdded, ("registry",), (), _by_image),
    EventKind("image.changed", m.ImageChanged, ("registry",), (), _by_image),
    EventKind("image.removed", m.ImageRemoved, ("registry",), (), _by_image),
    EventKind("token.changed", m.TokenChanged, ("registry",), (), _by_name),
    EventKind("webhook.changed", m.WebhookChanged, ("registry",), (), _by_name, severity=_a_problem_warns),
    EventKind("job.changed", m.JobChanged, ("registry",), (), _by_job, severity=_failed_is_an_error),
    EventKind("job.progress", m.JobProgress, ("registry",), (), _by_job),
    EventKind("spindle.shared", m.SpindleShared, ("registry",), (), _by_node, severity=_warn),
)

_BY_MODEL: Final = {kind.model: kind for kind in EVENTS}
_BY_TYPE: Final = {kind.type: kind for kind in EVENTS}


def kind_of(data: m.EventData) -> EventKind:
    """The table's row for this event. KeyError if the model is not in the table, which is a bug of ours."""
    return _BY_MODEL[type(data)]


def kind_named(event_type: str) -> EventKind | None:
    """The row whose CloudEvents type this is; None for a type that this version does not know."""
    return _BY_TYPE.get(event_type)
