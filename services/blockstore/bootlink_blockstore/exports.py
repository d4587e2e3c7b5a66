"""Exports: write-backs made layer files, each by a process of its own (`exporting`), watched from here.

How it works. An export is known by its job. The first command of a job begins it, further ones tell how far it is, and
a repeat after a restart of this service begins again: a file that has its name already is then found done, and a draft
is written anew. So whoever asks need only ask until the answer is `done` or `failed`.

What is exported must not change meanwhile. Where nobody has the disk open, it is read as it lies; should the client
come back and write before the file has its name, the export fails, and the client is not kept waiting. Where a session
holds it, a `snapshot` is exported, if whoever asks wants that. What is being read is pinned: nothing reclaims or drops
it.

Whoever throws a write-back away because a layer holds it must know that the layer holds all of it. So the answer says
when the write-back had been written to last, as the list of write-backs does; of a snapshot it does not, and of a file
that is found only where nothing was written since.

The name is given only when this process says so, after a last look at the client's disk. If this process dies, its
children do, too, and nothing has a name that was not complete.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.disk import ClientDisk
from bootlink_blockstore.exporting import ExportError, Made, Request
from bootlink_blockstore.holdings import Holdings
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.overlay import zeros_path
from bootlink_blockstore.snapshot import NoMoment, snapshot
from bootlink_blockstore.writeback import Manifest
from bootlink_events import BootId
from bootlink_events.commands import ExportedLayer, ExportState, ExportWriteback
from bootlink_runtime import CommandError

EXPORTS_AT_ONCE: Final = 2  # each fills a disk's queue; the others wait
KNOWN_LIMIT: Final = 100  # exports that are over and still told of; whoever asks does so within seconds
LINE_LIMIT: Final = 64 << 10  # bytes of a line that the child says
LAST_WORDS: Final = 2_000  # bytes kept of what it writes to stderr
CHILD: Final = ("-P", "-m", "bootlink_blockstore.exporting")
SHUT_DOWN: Final = "shut the PC down, and repeat the command"
SNAPSHOTS: Final = "exports"  # folder among the write-backs; what a former run left there goes at the start


@dataclass(eq=False)
class Export:
    """One job's."""

    command: ExportWriteback
    boot_id: BootId
    source: Manifest | None  # None where it has gone since the file was made
    state: ExportState = field(default_factory=lambda: ExportState(state="running"))
    task: asyncio.Task[None] | None = None

    def fail(self, detail: str, remedy: str) -> None:
        self.state = self.state.model_copy(update={"state": "failed", "detail": detail, "remedy": remedy})


class Exports:
    """All exports of this node."""

    def __init__(
        self, attachments: Attachments, holdings: Holdings, store: Path, executor: Executor, journal: Journal
    ) -> None:
        """`store`: the image store; nothing is written outside of it."""
        self._attachments = attachments
        self._holdings = holdings
        self._store = store
        self._executor = executor
        self._journal = journal
        self._exports: dict[str, Export] = {}  # by job, the oldest first
        self._turns = asyncio.Semaphore(EXPORTS_AT_ONCE)

    def known(self, job: str) -> Export | None:
        return self._exports.get(job)

    async def begin(self, command: ExportWriteback, choose: Callable[[ExportWriteback], Manifest]) -> Export:
        """Begin to export the write-back that `choose` gives. CommandError if that cannot be."""
        await asyncio.to_thread(self._require_target, command)
        found = await asyncio.to_thread(Path(command.target).exists)  # done by a former run of this service
        known = self._exports.get(command.job)
        if known is not None:  # asked twice at once
            return known
        source = _if_there(command, choose) if found and command.boot_id else choose(command)
        manifest = None if found and command.boot_id else source
        if manifest is not None and not found:
            self._require_free(command, manifest)
        boot_id = command.boot_id if manifest is None else manifest.boot_id
        assert boot_id is not None
        export = self._exports[command.job] = Export(command, boot_id, source)
        over = [job for job, other in self._exports.items() if other.state.state != "running"]
        for job in over[: max(0, len(self._exports) - KNOWN_LIMIT)]:
            del self._exports[job]
        export.task = asyncio.create_task(self._run(export, None if found else manifest), name=f"export {command.job}")
        if manifest is not None:
            self._holdings.pin(manifest)
            export.task.add_done_callback(lambda _: self._holdings.unpin(manifest))
        return export

    async def cancel(self, job: str) -> None:
        """End an export, if it is under way, and forget it. What is done is left as it is."""
        export = self._exports.pop(job, None)
        if export is None or export.task is None:
            return
        await _ended(export.task)
        with suppress(OSError):  # also what a former run of this service left
            await asyncio.to_thread(_draft(export.command).unlink, missing_ok=True)

    async def close(self) -> None:
        """End all exports. They begin again when they are asked for again."""
        for job in list(self._exports):
            await self.cancel(job)

    def _require_target(self, command: ExportWriteback) -> None:
        target = Path(command.target)
        inside = os.path.realpath(target.parent).startswith(f"{os.path.realpath(self._store)}{os.sep}")
        if not target.is_absolute() or not inside or target.name.startswith("."):
            raise CommandError(
                f"{target} does not lie in a folder of the image store, which is {self._store} here",
                "set BOOTLINK_IMAGE_STORE to the same folder for registry and blockstore",
            )
        if not target.parent.is_dir():
            raise CommandError(f"there is no folder {target.parent} on this machine", "mount the image store here, too")

    def _require_free(self, command: ExportWriteback, manifest: Manifest) -> None:
        if manifest.failed:
            raise CommandError(manifest.failed, "what is in it cannot be trusted: drop it")
        if not manifest.lasts and self._holdings.writebacks.outlived(manifest):
            raise CommandError(
                f"the block store's machine was restarted since boot {manifest.boot_id}: writes of it may be lost",
                "none: only write-backs with the policies keep and super survive that",
            )
        if self._seated(manifest) and not command.allow_flushed:
            raise CommandError(
                f"{manifest.client} has the disk open", "shut the PC down, or ask for what it has flushed so far"
            )
        if any(
            other.task is not None and not other.task.done() and other.command.target == command.target
            for other in self._exports.values()
        ):
            raise CommandError(f"another job writes {command.target}", "name another file")

    def _disk(self, manifest: Manifest) -> ClientDisk | None:
        """The disk that has this write-back open; None if none has."""
        boot = self._attachments.boot_of(manifest.mac)
        for attached in boot.disks.values() if boot else ():
            if attached.manifest.file == manifest.file:
                return attached.disk
        return None

    def _seated(self, manifest: Manifest) -> bool:
        """Does a session hold it?"""
        boot = self._attachments.boot_of(manifest.mac)
        return boot is not None and bool(boot.seats) and self._disk(manifest) is not None

    def _written_before(self, export: Export, made: Made) -> int | None:
        """When the write-back was written to last, if that was before this file, which then holds all of it."""
        if export.source is None or export.command.allow_flushed:
            return None
        written = self._holdings.writebacks.written(export.source)
        return written if 0 < written < made.mtime_ns else None

    # One export

    async def _run(self, export: Export, manifest: Manifest | None) -> None:
        """`manifest`: None where the file is there already."""
        log = self._journal.log
        what = {"job": export.command.job, "mac": export.command.mac, "boot_id": str(export.boot_id)}
        try:
            async with self._turns:
                log.info("export begins", **what, target=export.command.target)
                made = await self._make(export, manifest)
        except (ExportError, NoMoment, OSError) as error:
            detail = error.detail if isinstance(error, ExportError) else f"client {export.command.mac}: {error}"
            remedy = error.remedy if isinstance(error, ExportError) else SHUT_DOWN
            export.fail(detail, remedy)
            log.warning("export failed", **what, cause=detail, remedy=remedy)
        except Exception as error:  # a bug of ours, which whoever asks must not wait for
            export.fail(f"{export.command.target}: {error!r}", "read the block store's log, and report it")
            log.error("export failed", **what, error=repr(error), exc_info=error)
        else:
            result = ExportedLayer(path=export.command.target, boot_id=export.boot_id, **made.model_dump())
            total = export.state.total
            export.state = ExportState(state="done", done=total, total=total, result=result)
            log.info("export done", **what, target=result.path, bytes=result.file_size, format=result.format)

    async def _make(self, export: Export, manifest: Manifest | None) -> Made:
        command = export.command
        request = Request(
            overlay=None,
            size=command.parent[0].virtual_size,
            parent=command.parent,
            target=Path(command.target),
            draft=_draft(command),
            whole=command.whole,
        )

        def progress(done: int, total: int) -> None:
            export.state = export.state.model_copy(update={"done": min(done, total), "total": total})

        if manifest is None:
            made = await _in_a_process(request, progress, lambda: False)
            return made.model_copy(update={"written": await asyncio.to_thread(self._written_before, export, made)})
        if manifest.size != request.size:
            raise ExportError(
                f"the write-back is of {manifest.size} bytes of disk, {command.parent[0].path} has {request.size}",
                "name the layers that the client booted from",
            )
        source = self._holdings.writebacks.path(manifest)
        disk = self._disk(manifest)
        copy = self._holdings.writebacks.root / SNAPSHOTS / f"{command.job}.overlay"
        changes = disk.changes if disk is not None else 0

        def still() -> bool:
            """Has nothing been written to it since?"""
            now = self._disk(manifest)
            return now is None or now.changes == (changes if now is disk else 0)

        try:
            if disk is not None and self._seated(manifest):
                if not command.allow_flushed:
                    raise ExportError(f"{manifest.client} is back, and has the disk open", SHUT_DOWN)
                await asyncio.to_thread(copy.parent.mkdir, exist_ok=True)
                await snapshot(disk, copy, self._executor, lambda _done: None)
                source = copy
            request = request.model_copy(update={"overlay": source})
            if source is copy:
                made = await _in_a_process(request, progress, lambda: True)
                return made.model_copy(update={"written": None})
            return await _in_a_process(request, progress, still)
        finally:
            await asyncio.to_thread(_unlink, copy)


async def _in_a_process(request: Request, progress: Callable[[int, int], None], may_name: Callable[[], bool]) -> Made:
    """Have it done by a child. ExportError if it cannot be; when this is cancelled, no child and no draft is left."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *CHILD,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
        env={name: value for name, value in os.environ.items() if not name.startswith("BOOTLINK_")},  # no secrets
    )
    words = asyncio.create_task(_last_words(child))
    said: dict[str, Any] | None = None
    try:
        said = await _converse(child, request, progress, may_name)
        await child.wait()
    finally:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        await child.wait()
        await words
        if said is None or "result" not in said:
            with suppress(OSError):
                await asyncio.to_thread(request.draft.unlink, missing_ok=True)
    if said is not None and "problem" in said:
        raise ExportError(said["problem"]["detail"], said["problem"]["remedy"])
    try:
        if said is None:
            raise ValueError("it ended without a result")
        return Made.model_validate(said["result"])
    except (ValidationError, ValueError, LookupError) as error:
        last = (words.result().splitlines() or ["without a word"])[-1]
        raise ExportError(
            f"the process that writes {request.target} ended by itself ({child.returncode}): {last}",
            "repeat the command; nothing is lost",
        ) from error


async def _converse(
    child: asyncio.subprocess.Process,
    request: Request,
    progress: Callable[[int, int], None],
    may_name: Callable[[], bool],
) -> dict[str, Any] | None:
    """What the child says last; None if it ends without that."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(ConnectionError):  # it died at once, and says why on stderr
        child.stdin.write(request.model_dump_json().encode() + b"\n")
        await child.stdin.drain()
    while True:
        try:
            line = await child.stdout.readline()
            said = json.loads(line) if line else None
        except ValueError:
            return None
        if not isinstance(said, dict):
            return None
        if "progress" in said:
            progress(*said["progress"])
        elif "ready" in said:
            if not may_name():
                raise ExportError("the client came back and wrote to its disk meanwhile", SHUT_DOWN)
            with suppress(ConnectionError):
                child.stdin.write(b"\n")
                await child.stdin.drain()
        else:
            return said


def _if_there(command: ExportWriteback, choose: Callable[[ExportWriteback], Manifest]) -> Manifest | None:
    with suppress(CommandError):
        return choose(command)
    return None


async def _last_words(child: asyncio.subprocess.Process) -> str:
    assert child.stderr is not None
    kept = b""
    while data := await child.stderr.read(LAST_WORDS):
        kept = (kept + data)[-LAST_WORDS:]
    return kept.decode(errors="replace").strip()


def _draft(command: ExportWriteback) -> Path:
    return Path(f"{command.target}.tmp-{command.job}")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _unlink(overlay: Path) -> None:
    overlay.unlink(missing_ok=True)
    zeros_path(overlay).unlink(missing_ok=True)
