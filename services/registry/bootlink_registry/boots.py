"""What became of a boot, told from its stages. A pure function of the *set* of stages.

Events of one boot come from three services, late and out of order where NATS was away, and now and then twice. So
nothing is carried from one event to the next: at each new stage the whole summary is made anew from all that is
known, and any order of arrival ends in the same summary.

States:

    booting     something was seen; the operating system has not attached its disk
    running     the operating system holds a session to its disk
    ended       it held one, and all its sessions are closed
    failed      a service said that the boot cannot go on, and nothing came after that
    superseded  the same client began a newer boot; what became of this one was never seen

`ended`, `failed` and `superseded` are over. A boot that is over can come back to life: an initiator that reconnects
after a network fault keeps its boot id.

A boot *arrives* when its operating system has read what it needed to come up, or says that it is up (see `steps`). Its
trace is done then: the root span is written a moment later, once, and ends there, however long the PC goes on running.
One that never arrives has its root span when it is over, or when it fell silent (see `stalls`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootDiskDetached,
    BootFailed,
    BootScriptServed,
    BootStarted,
    Stage,
)
from bootlink_registry.steps import ARRIVED, milestones

State = Literal["booting", "running", "ended", "failed", "superseded"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a boot failed, why, and what to do."""

    stage: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A boot, told from its stages."""

    state: State
    started: datetime
    ended: datetime | None = None
    client: str | None = None
    arch: str | None = None
    firmware: str | None = None
    address: str | None = None
    image: str | None = None
    version: int | None = None
    policy: str | None = None
    os_attached: datetime | None = None  # the operating system's first login was complete
    end_reason: str | None = None
    failure: Failure | None = None
    stages: int = 0
    heard_until: datetime | None = None  # the end of its last stage
    milestones: dict[str, float] = field(default_factory=dict)  # see `steps`

    @property
    def arrived(self) -> bool:
        return any(name in self.milestones for name in ARRIVED)

    @property
    def over(self) -> bool:
        return self.ended is not None


def summarise(stages: Iterable[Stage], *, newer: datetime | None = None) -> Summary:
    """The summary of one boot from all its stages, in any order, at least one of them.

    `newer` is when the client's next boot began, where there is one.
    """
    told = sorted(stages, key=lambda stage: (stage.started, stage.ended, type(stage).__name__, repr(stage)))
    state, ended, reason = _outcome(told, newer)
    first = next((stage for stage in told if isinstance(stage, BootStarted)), None)
    addressed = [stage for stage in told if isinstance(stage, BootAddressed)]
    attached = [stage for stage in told if isinstance(stage, BootDiskAttached)]
    by_os = [stage for stage in attached if stage.initiator == "os"]
    # Of several disks the first is what it booted: that with the lowest LUN.
    disk = min(reversed(attached), key=lambda stage: stage.lun, default=None)
    failures = [stage for stage in told if isinstance(stage, BootFailed)]
    failure = failures[-1] if failures and state == "failed" else None
    return Summary(
        state=state,
        started=told[0].started,
        ended=ended,
        client=next((stage.client for stage in told if stage.client), None),
        arch=first.arch if first else None,
        firmware=first.firmware if first else None,
        address=str(addressed[-1].address) if addressed else None,
        image=disk.image if disk else None,
        version=disk.version if disk else None,
        policy=disk.policy if disk else None,
        os_attached=min((stage.ended for stage in by_os), default=None),
        end_reason=reason,
        failure=Failure(failure.stage, failure.cause, failure.remedy) if failure else None,
        stages=len(told),
        heard_until=max(stage.ended for stage in told),
        milestones=milestones(told),
    )


def _outcome(told: list[Stage], newer: datetime | None) -> tuple[State, datetime | None, str | None]:
    """State, end and reason of the end."""
    opened = {s.session for s in told if isinstance(s, BootDiskAttached) and s.initiator == "os"}
    closed = [s for s in told if isinstance(s, BootDiskDetached) and s.initiator == "os"]
    open_now = opened - {stage.session for stage in closed}
    if closed and not open_now:
        last = max(closed, key=lambda stage: stage.ended)
        return "ended", last.ended, last.reason
    failed = [stage for stage in told if isinstance(stage, BootFailed)]
    if failed and not opened and not closed:
        last_failure = max(failed, key=lambda stage: stage.ended)
        if not any(_is_progress(stage) and stage.started > last_failure.ended for stage in told):
            return "failed", last_failure.ended, last_failure.cause
    if newer is not None:
        return "superseded", max(newer, told[0].started), "the client began a newer boot"
    return ("running" if open_now else "booting"), None, None


def _is_progress(stage: Stage) -> bool:
    """Whether a boot that had failed goes on: a screen that states the cause is no step forward."""
    return not isinstance(stage, BootFailed) and not (isinstance(stage, BootScriptServed) and stage.kind == "screen")
