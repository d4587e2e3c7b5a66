"""Following a job of the registry from the command line: a progress bar, or plain lines where there is no terminal.

Ctrl-C ends the looking and not the job, and says so.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from bootlink.api import Api
from bootlink.errors import CommandError

if TYPE_CHECKING:
    from rich.progress import TaskID

LOOK_SECONDS: Final = 0.25  # between looks; the registry writes down twice a second how far a job is
LINE_SECONDS: Final = 5.0  # between plain lines of one stage
OVER: Final = frozenset({"done", "failed", "cancelled"})


def follow(api: Api, job: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Wait for the end of a job and return it as it is then, done. CommandError if it failed or was cancelled.

    Shows how far it is on stderr, unless `quiet`: stdout is for what came of it.
    """
    try:
        with _shown(quiet=quiet) as shown:
            while job["state"] not in OVER:
                shown.tell(job)
                time.sleep(LOOK_SECONDS)
                job = api.get("jobs", job["id"])
            shown.tell(job)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nthe job goes on; look: bootlink job show {job['id']}; end it: bootlink job cancel {job['id']}\n"
        )
        raise
    if job["state"] == "failed":
        raise CommandError(job["problem"]["detail"], job["problem"]["remedy"])
    if job["state"] == "cancelled":
        raise CommandError("the job was cancelled, and what was there before is as it was", "run the command again")
    return job


class _Quiet:
    """Shows nothing."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def tell(self, job: dict[str, Any]) -> None:
        return None


class _Lines(_Quiet):
    """A line for each stage, and now and then how far it is."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._told_at = 0.0

    def tell(self, job: dict[str, Any]) -> None:
        stage = _stage(job)
        now = time.monotonic()
        if stage == self._stage and now - self._told_at < LINE_SECONDS:
            return
        self._stage, self._told_at = stage, now
        far = f" {100 * job['done'] // job['total']} %" if job["total"] else ""
        sys.stderr.write(f"{job['kind']} {job['subject']}: {stage}{far}\n")


class _Bar(_Quiet):
    """A progress bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, job: dict[str, Any]) -> None:
        if self._task is None:
            self._task = self._progress.add_task("", total=None)
        told = f"{job['kind']} {job['subject']}: {_stage(job)}"
        self._progress.update(self._task, description=told, total=job["total"], completed=job["done"])


def _shown(*, quiet: bool) -> _Quiet:
    if quiet:
        return _Quiet()
    return _Bar() if sys.stderr.isatty() else _Lines()


def _stage(job: dict[str, Any]) -> str:
    if job["cancelling"]:
        return "being cancelled"
    return str(job["stage"] or job["state"]) if job["state"] == "running" else str(job["state"])
