"""Exports that are killed before each of their system calls, and power cuts after each.

A client's random writes and trims become a layer file, differencing or whole. Three things may not happen, whenever it
ends: that a file has the layer's name and is not whole, that an export cannot be begun again, and that the write-back
or the layers below change. And once it has said "done", no power cut takes the file away (S1).

`killed` runs in a process of its own that forks once for each call, `cut` in this one, on what `files` records and
chooses. What is planted in `FAULTS` breaks the order; a test shows that it is found.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final

import pytest

from bootlink_blockstore import exporting
from bootlink_blockstore.exporting import Request, export
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import PAGE, ZEROED
from bootlink_disks import DiskError, Stack, open_layer, probe, require_chain
from lab.blockstore import digest, layer_plan, make_image
from rigs.crash_states import compose
from rigs.figures import Figures, Violation
from rigs.files import Disk, key_of, put, recording, states

SIZE: Final = 40 * PAGE + 1024  # ends within a page
STEPS: Final = ("open", "pwrite", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "close")
EXTRA: Final = 4  # states of one moment beyond "nothing" and "all"


def _prepare(seed: int, folder: Path, *, whole: bool) -> tuple[Request, bytes]:
    """A write-back, and what its client sees."""
    random = Random(seed)
    base = make_image(folder / "base.img", SIZE)
    overlay = Overlay.create(folder / "client.overlay", SIZE)
    pages = SIZE // PAGE + 1
    for _ in range(12):
        first = random.randrange(pages)
        end = min(pages, first + random.choice((1, 1, 2, 6)))
        if random.random() < 0.3:
            overlay.mark_zeros(first, end)
            overlay.punch(first, end)
            overlay.mark(first, end, ZEROED)
        else:
            overlay.write(first * PAGE, [random.randbytes((end - first) * PAGE)])
            overlay.mark(first, end)
    seen = compose(overlay, base.read_bytes())
    overlay.close()
    old = base.stat().st_mtime_ns - 10**9  # no need to wait for a clock's step
    for file in (overlay.path, overlay.path.with_suffix(".zeros")):
        os.utime(file, ns=(old, old))
    return _request(folder, folder / "images", whole=whole), seen


def _request(folder: Path, images: Path, *, whole: bool) -> Request:
    images.mkdir(exist_ok=True)
    return Request(
        overlay=folder / "client.overlay",
        size=SIZE,
        parent=(layer_plan(folder / "base.img"),),
        target=images / "layer.vhd",
        draft=images / "layer.vhd.tmp-job",
        whole=whole,
    )


def _export(request: Request) -> exporting.Made:
    return export(request, lambda _done, _total: None, lambda: True)


def _require_whole(request: Request, seen: bytes) -> None:
    """Violation unless the layer that has its name shows what the client saw."""
    try:
        with ExitStack() as stack:
            top = stack.enter_context(open_layer(request.target, probe(request.target).format))
            layers = [top]
            if top.info.parent is not None:
                layers.append(stack.enter_context(open_layer(request.parent[0].path, "raw")))
            require_chain([layer.info for layer in layers])
            content = Stack(layers).read(0, SIZE)
    except DiskError as error:
        raise Violation(f"a layer has its name and cannot be read: {error}") from error
    if content != seen:
        raise Violation("a layer has its name and shows something else than the client saw")


def _source(request: Request) -> list[str]:
    assert request.overlay is not None
    return [
        digest(request.overlay),
        digest(request.overlay.with_suffix(".zeros")),
        digest(Path(request.parent[0].path)),
    ]


# Killed before each call


def _killed_at(request: Request, call: int) -> bool:
    """Export in a fork that is killed before its `call`th system call; False if it has not that many."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def counting(real: Callable[..., Any]) -> Callable[..., Any]:
            def one(*given: Any, **more: Any) -> Any:
                nonlocal count
                count += 1
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **more)

            return one

        for name in STEPS:
            setattr(os, name, counting(getattr(os, name)))
        _export(request)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise Violation("an export failed by itself")
    return os.WIFSIGNALED(status)


def _killed(seed: int, folder: Path, *, whole: bool) -> int:
    """Kill one export before each of its calls, and do it again after each. How many there were."""
    request, seen = _prepare(seed, folder, whole=whole)
    before, call = _source(request), 1
    while _killed_at(request, call):
        if request.target.exists():
            _require_whole(request, seen)
        made = _export(request)
        _require_whole(request, seen)
        if made.sha256 != digest(request.target) or request.target.stat().st_mode & 0o777 != 0o444:
            raise Violation(f"seed {seed}, call {call}: the file is not the one that was told of")
        if [path.name for path in request.target.parent.iterdir()] != [request.target.name]:
            raise Violation(f"seed {seed}, call {call}: a draft is left")
        request.target.unlink()
        call += 1
    if _source(request) != before:
        raise Violation(f"seed {seed}: the write-back or the layer below has changed")
    return call - 1


def main() -> None:
    """`killed`, in a process without threads, that may fork."""
    seed, folder, count = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    kills = runs = 0
    while kills < count:
        place = folder / str(runs)
        place.mkdir()
        kills += _killed(seed + runs, place, whole=runs % 2 == 1)
        shutil.rmtree(place)
        runs += 1
    sys.stdout.write(json.dumps({"kills": kills, "runs": runs}))


def killed(count: int, seed: int, folder: Path) -> Figures:
    """At least `count` kills, of as many exports as that takes; every call of each."""
    done = subprocess.run(
        [sys.executable, "-c", "from rigs.exports import main; main()", str(seed), str(folder), str(count)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Violation(f"seed {seed}: {done.stderr}")
    found = json.loads(done.stdout)
    return {"kills": found["kills"], "exports": found["runs"], "violations": 0}


# Cut after each call


def _cut(seed: int, folder: Path, *, whole: bool) -> int:
    """All power cuts of one export; how many different states there were."""
    request, seen = _prepare(seed, folder, whole=whole)
    with pytest.MonkeyPatch.context() as patch:
        for sync in ("fsync", "fdatasync"):
            patch.setattr(os, sync, lambda _fd: None)  # what survives is decided here, and not by this machine
        with recording(request.target.parent) as log:
            _export(request)
    random, disk, tried = Random(seed), Disk(), 0
    again: set[bytes] = set()
    for moment in range(log.now + 1):
        if moment == log.now:
            again.clear()  # what may be left before it is done may not be left after
        for left in states(disk, random, EXTRA):
            key = key_of(left)
            if key in again:
                continue
            again.add(key)
            root = folder / "cut"
            root.mkdir()
            put(left, root)
            found = _request(folder, root, whole=whole)
            try:
                if moment == log.now and not found.target.exists():
                    raise Violation("a layer that was said to be done is gone")
                if found.target.exists():
                    _require_whole(found, seen)
                elif tried % 5 == 0:
                    _export(found)
                    _require_whole(found, seen)
            except Violation as error:
                raise Violation(f"seed {seed}, cut after call {moment} of {log.now}: {error}") from error
            shutil.rmtree(root)
            tried += 1
        if moment < log.now:
            disk.apply(log.calls[moment])
        else:
            break
    return tried


def cut(count: int, seed: int, folder: Path) -> Figures:
    """At least `count` states, of as many exports as that takes."""
    tried = runs = 0
    while tried < count:
        place = folder / str(runs)
        place.mkdir()
        tried += _cut(seed + runs, place, whole=runs % 2 == 1)
        shutil.rmtree(place)
        runs += 1
    return {"states": tried, "exports": runs, "violations": 0}


# Faults to plant


def _without(patch: pytest.MonkeyPatch, **less: Any) -> None:
    patch.setattr(exporting, "os", SimpleNamespace(**{**vars(os), **less}))


def _name_before_the_last_flush(patch: pytest.MonkeyPatch) -> None:
    _without(patch, fsync=lambda _fd: None)


def _folder_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(exporting, "sync_folder", lambda _folder: None)


def _written_under_its_name(patch: pytest.MonkeyPatch) -> None:
    real = _request

    def request(folder: Path, images: Path, *, whole: bool) -> Request:
        made = real(folder, images, whole=whole)
        return made.model_copy(update={"draft": made.target})

    patch.setattr(sys.modules[__name__], "_request", request)


FAULTS: Final[dict[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "a layer takes its name before it is safe": _name_before_the_last_flush,
    "the folder of a layer is not synced": _folder_not_synced,
    "a layer is written under its name": _written_under_its_name,
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """One of the FAULTS for the length of the block."""
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[name](patch)
        yield
