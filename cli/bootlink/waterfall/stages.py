"""What the registry stores of a boot, as stages.

The registry keeps each event of a boot as it came: its type, who published it, when it began and ended, and its data
(see `bootlink_events.models`). Here each becomes one stage in words. An event this version does not know is shown by
its name, so that a newer service's stages are not lost from the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from bootlink_events import PREFIX

MIB: Final = 1024**2
KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing that happened during a boot. A session is a disk session, which lasts while the PC works."""

    who: str
    what: str
    started: datetime
    ended: datetime
    kind: Literal["stage", "session", "failure"] = "stage"
    note: str = ""
    busy: tuple[datetime, datetime] | None = None
    """A session's first and last I/O."""
    still_open: bool = False
    reaches_system: bool = False
    """True for the operating system's own login: the boot has arrived."""


def stage_of(record: Mapping[str, Any]) -> Stage:
    """One stage as `GET /v1/boots/{id}` gives it: `kind`, `source`, `started`, `ended` and `data`.

    Times are ISO 8601 texts or datetimes. KeyError or ValueError if one is missing or none.
    """
    data = record["data"]
    event = str(record["kind"]).removeprefix(f"{PREFIX}.")
    started, ended = _time(record["started"]), _time(record["ended"])
    who = str(record["source"]).strip("/").partition("/")[0]
    stage = Stage(who=who, what=event, started=started, ended=max(started, ended))
    describe = _KINDS.get(event)
    if describe is None:
        return stage
    return describe(stage, data)


def stages_of(records: Iterable[Mapping[str, Any]]) -> list[Stage]:
    """All stages of a boot. A login whose session's end was not recorded is also a session that is still open.

    What it did until it first fell silent is told by `boot.disk_used`; once it has ended, its end tells more.
    """
    held = list(records)
    stages = [stage_of(record) for record in held if not _is(record, "boot.disk_used")]
    ended = {_session(record) for record in held if _is(record, "boot.disk_detached")}
    used = {_session(record): record["data"] for record in held if _is(record, "boot.disk_used")}
    for record in held:
        if _is(record, "boot.disk_attached") and _session(record) not in ended:
            stage = stage_of(record)
            what = f"{_whose(record['data'])} disk session, open"
            session = replace(stage, what=what, kind="session", still_open=True, reaches_system=False)
            stages.append(_io(session, used.get(_session(record), {})))
    return stages


def _session(record: Mapping[str, Any]) -> tuple[str, int]:
    """Which disk session a record is about."""
    data = record["data"]
    return str(data.get("session")), int(data.get("lun", 0))


def _is(record: Mapping[str, Any], event: str) -> bool:
    return str(record["kind"]).removeprefix(f"{PREFIX}.") == event


def _time(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def _whose(data: Mapping[str, Any]) -> str:
    return "system's" if data.get("initiator") == "os" else "firmware's"


def _size(count: int) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / KIB:.1f} KiB"


def _started(stage: Stage, data: Mapping[str, Any]) -> Stage:
    return replace(stage, what=f"{data.get('firmware', 'PC')} asks ({data.get('arch', '?')})")


def _addressed(stage: Stage, data: Mapping[str, Any]) -> Stage:
    whose = {"firmware": "firmware", "ipxe": "iPXE"}.get(str(data.get("pass")), "PC")
    return replace(stage, what=f"address {data.get('address')} to {whose}")


def _loader(stage: Stage, data: Mapping[str, Any]) -> Stage:
    name = str(data.get("file", "")).rsplit("/", 1)[-1]
    return replace(stage, what=f"loader {name}, {_size(int(data.get('bytes', 0)))}")


def _script(stage: Stage, data: Mapping[str, Any]) -> Stage:
    if data.get("kind") == "screen":
        return replace(stage, what=f"screen: {data.get('cause') or 'no cause given'}")
    return replace(stage, what=f"script: {_STARTS.get(str(data.get('kind')), 'boot the disk')}")


def _attached(stage: Stage, data: Mapping[str, Any]) -> Stage:
    disk = f"{data.get('image')} v{data.get('version')}, {data.get('policy')}"
    return replace(stage, what=f"{_whose(data)} login: {disk}", reaches_system=data.get("initiator") == "os")


def _detached(stage: Stage, data: Mapping[str, Any]) -> Stage:
    session = _io(replace(stage, what=f"{_whose(data)} disk session", kind="session"), data)
    return replace(session, note=f"{session.note}; ended: {data['reason']}") if data.get("reason") else session


def _io(stage: Stage, data: Mapping[str, Any]) -> Stage:
    """The session with what it read and wrote, as far as that was told."""
    if not data:
        return stage
    reads, writes = int(data.get("reads", 0)), int(data.get("writes", 0))
    parts = [f"{reads} reads, {_size(int(data.get('bytes_read', 0)))}"]
    if writes:
        parts.append(f"{writes} writes, {_size(int(data.get('bytes_written', 0)))}")
    busy = None
    if data.get("first_read"):
        first = _time(data["first_read"])
        busy = (first, _time(data.get("last_io") or first))
        parts.append(f"first read {(first - stage.started).total_seconds():.3f} s after login")
    return replace(stage, busy=busy, note="; ".join(parts))


def _hello(stage: Stage, data: Mapping[str, Any]) -> Stage:
    """A moment: what the system did from its kernel's begin to its hello is told by its disk's rows."""
    took = (stage.ended - stage.started).total_seconds()
    parts = [str(data.get("system") or ""), f"its kernel began {took:.3f} s before" if took else ""]
    return replace(stage, what="the system says hello", started=stage.ended, note="; ".join(filter(None, parts)))


def _failed(stage: Stage, data: Mapping[str, Any]) -> Stage:
    what = f"FAILED ({data.get('stage')})"
    note = f"{data.get('cause', '')}; what to do: {data.get('remedy', '')}"
    return replace(stage, what=what, kind="failure", note=note)


_STARTS: Final = {"local": "boot its own disk", "shell": "show iPXE's shell", "kernel": "boot a kernel"}
_KINDS: Final[dict[str, Callable[[Stage, Mapping[str, Any]], Stage]]] = {
    "boot.started": _started,
    "boot.addressed": _addressed,
    "boot.loader_sent": _loader,
    "boot.script_served": _script,
    "boot.disk_attached": _attached,
    "boot.disk_detached": _detached,
    "boot.hello": _hello,
    "boot.failed": _failed,
}
