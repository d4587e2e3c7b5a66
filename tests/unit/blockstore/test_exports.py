"""Exports: what a client wrote becomes a layer file, whole and exact, or nothing at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bootlink_blockstore import exporting, snapshot
from bootlink_disks import Stack, open_layer, probe, require_chain
from bootlink_events import BootId, LayerPlan
from bootlink_events.commands import CancelExport, DropWriteback, ExportedLayer, ExportWriteback, ListWritebacks
from bootlink_runtime import CommandError
from lab.blockstore import MAC, Plans, identity, layer_plan, make_image, plan
from lab.filesystem import mount, unmount
from lab.house import House, Someone, boot_id, house, read, write

SIZE = 8 << 20
PAGE = 4096


def command(home: House, job: str = "job-1", **more: Any) -> ExportWriteback:
    base = home.folder.parents[1] / "base.img"
    return ExportWriteback(
        **{"job": job, "mac": MAC, "target": str(home.images / f"{job}.vhd"), "parent": (layer_plan(base),), **more}
    )


def shown(*layers: Path) -> bytes:
    """The disk that these files show, top first."""
    with ExitStack() as stack:
        opened = [stack.enter_context(open_layer(path, probe(path).format)) for path in layers]
        require_chain([layer.info for layer in opened])
        disk = Stack(opened)
        return disk.read(0, disk.size)


def only(home: House) -> list[str]:
    return sorted(path.name for path in home.images.iterdir())


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    """A super client's block store."""
    base = make_image(tmp_path / "base.img", SIZE)
    async with house(tmp_path, Plans({MAC: plan(base, policy="super", content="c")})) as home:
        yield home


async def wrote(home: House, boot: BootId | None = None, seed: int = 1) -> bytes:
    """The client boots, writes and trims here and there, and is off again. What its disk shows."""
    chance, opened = random.Random(seed), await home.login(identity(boot or boot_id()))
    held = bytearray((home.folder.parents[1] / "base.img").read_bytes())
    for _ in range(60):
        length = chance.choice((1, 3, 8, 64, 700)) * 512
        at = chance.randrange((SIZE - length) // 512) * 512
        zeros = chance.random() < 0.3
        data = bytes(length) if zeros else chance.randbytes(length)
        waiting = opened.disks[0].disk.zero(at, length) if zeros else opened.disks[0].disk.write(at, data)
        if waiting is not None:
            await waiting
        held[at : at + length] = data
    opened.seats.clear()
    return bytes(held)


async def test_what_a_client_wrote_is_a_differencing_layer_on_what_it_booted(home: House) -> None:
    held, current = await wrote(home), boot_id()
    current = home.attachments.holdings.of(MAC)[0].boot_id
    state = await home.exported(command(home, content="c.0", boot_id=current))
    assert (state.state, state.done) == ("done", state.total)
    made = state.result
    assert isinstance(made, ExportedLayer)
    path = Path(made.path)
    assert (made.format, made.whole, made.virtual_size) == ("vhd-differencing", "", SIZE)
    assert path.stat().st_mode & 0o777 == 0o444
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    info = probe(path)
    assert (made.file_size, made.mtime_ns, made.boot_id) == (info.file_size, info.mtime_ns, current)
    assert shown(path, home.folder.parents[1] / "base.img") == held
    assert only(home) == [path.name]


async def test_a_layer_holds_what_was_written_and_no_more(home: House) -> None:
    boot = await home.login(identity(boot_id()))
    await write(boot, b"x" * 512, at=5 * PAGE + 512)
    boot.seats.clear()
    made = (await home.exported(command(home))).result
    assert made is not None
    assert (made.pages, probe(made.path).stored) == (1, PAGE)


async def test_nothing_written_is_an_empty_layer(home: House) -> None:
    (await home.login(identity(boot_id()))).seats.clear()
    made = (await home.exported(command(home))).result
    assert made is not None
    base = home.folder.parents[1] / "base.img"
    assert shown(Path(made.path), base) == base.read_bytes()


@pytest.mark.parametrize("why", ["asked", "scattered"])
async def test_a_layer_is_made_whole_where_it_is_asked_for_or_too_scattered(
    home: House, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "scattered":
        monkeypatch.setattr("bootlink_blockstore.exports.CHILD", _child_that_takes_few_blocks())
    held = await wrote(home)
    made = (await home.exported(command(home, whole=why == "asked"))).result
    assert made is not None
    assert made.format == "vhd-dynamic"
    assert ("asked for" if why == "asked" else "blocks of the disk") in made.whole
    assert shown(Path(made.path)) == held


def _child_that_takes_few_blocks() -> tuple[str, ...]:
    """As if a differencing VHD could have changes in one block alone."""
    words = (
        "import sys; from bootlink_blockstore import exporting; "
        "exporting.bitmaps_fit = lambda blocks: blocks < 2; sys.exit(exporting.main())"
    )
    return ("-c", words)


async def test_a_chain_of_exports_reads_as_what_the_last_client_saw(home: House, tmp_path: Path) -> None:
    """A second super client on the first one's layer."""
    await wrote(home, boot_id(3))
    first = (await home.exported(command(home, "job-1"))).result
    assert first is not None
    layers = (_plan_of(first), layer_plan(tmp_path / "base.img"))
    disk = home.plans[MAC].disks[0].model_copy(update={"layers": layers, "content": "d", "version": 2})
    home.plans[MAC] = home.plans[MAC].model_copy(update={"disks": (disk,)})
    boot = await home.login(identity(boot_id(2)))
    held = bytearray(await read(boot, SIZE))
    await write(boot, b"second" * 512, at=1024)
    held[1024:4096] = b"second" * 512
    boot.seats.clear()
    second = (await home.exported(command(home, "job-2", parent=layers, content="d"))).result
    assert second is not None
    assert shown(Path(second.path), Path(first.path), tmp_path / "base.img") == held


def _plan_of(made: ExportedLayer) -> LayerPlan:
    return LayerPlan(
        id=made.sha256,
        path=made.path,
        format=made.format,
        virtual_size=made.virtual_size,
        file_size=made.file_size,
        mtime_ns=made.mtime_ns,
    )


async def test_a_layer_that_could_be_written_to_is_sealed_again_and_told(home: House, tmp_path: Path) -> None:
    """And one of the user's own is left as it is."""
    await wrote(home, boot_id(3))
    made = (await home.exported(command(home))).result
    assert made is not None
    layer, base = Path(made.path), tmp_path / "base.img"
    layer.chmod(0o666)
    mode = base.stat().st_mode
    layers = (_plan_of(made), layer_plan(base))
    disk = home.plans[MAC].disks[0].model_copy(update={"layers": layers, "content": "d"})
    home.plans[MAC] = home.plans[MAC].model_copy(update={"disks": (disk,)})
    for hours in (2, 1):
        await read(await home.login(identity(boot_id(hours))))
        assert layer.stat().st_mode & 0o777 == 0o444
    assert base.stat().st_mode == mode
    assert home.told.counters["layers_unsealed"] == 1


# Asked again


async def test_the_same_job_is_the_same_export(home: House) -> None:
    await wrote(home)
    states = await asyncio.gather(*(home.ask(command(home)) for _ in range(5)))
    assert {state.state for state in states} == {"running"}
    done = await home.exported(command(home))
    before = Path(command(home).target).stat()
    assert await home.ask(command(home)) == done
    assert Path(command(home).target).stat() == before
    with pytest.raises(CommandError, match="a job of its own"):
        await home.ask(command(home, target=str(home.images / "other.vhd")))


async def test_after_a_restart_a_file_that_is_done_is_found_though_the_client_is_back(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    plans = Plans({MAC: plan(base, policy="super", content="c")})
    async with house(tmp_path, plans) as home:
        await wrote(home)
        current = home.attachments.holdings.of(MAC)[0].boot_id
        first = await home.exported(command(home, boot_id=current))
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(current))
        await write(boot, b"later" * 512)
        again = await home.exported(command(home, boot_id=current))
        assert again.result is not None
        assert first.result is not None
        assert again.result.sha256 == first.result.sha256
        boot.seats.clear()
        await home.ask(DropWriteback(mac=MAC))
        state = await home.exported(command(home, boot_id=current))
        assert state.state == "done", "whatever has become of its source"


async def test_a_layer_says_whether_it_holds_all_that_is_in_the_writeback_now(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    plans = Plans({MAC: plan(base, policy="super", content="c")})

    async def written(home: House) -> int:
        (item,) = (await home.ask(ListWritebacks(mac=MAC))).items
        return item.written

    async with house(tmp_path, plans) as home:
        await wrote(home)
        current = home.attachments.holdings.of(MAC)[0].boot_id
        first = (await home.exported(command(home, boot_id=current))).result
        assert first is not None
        assert first.written == await written(home)
    async with house(tmp_path, plans) as home:
        again = (await home.exported(command(home, boot_id=current))).result
        assert again is not None
        assert again.written == first.written, "found again, and nothing was written since"
        newer = boot_id(0.5)
        boot = await home.login(identity(newer))
        await write(boot, b"later" * 512)
        boot.seats.clear()
    async with house(tmp_path, plans) as home:  # a registry that was down all the time asks for what is there now
        for asked in (current, newer):
            stale = (await home.exported(command(home, boot_id=asked))).result
            assert stale is not None
            assert stale.written is None, "it was written to since, and the file has not that"
            await home.ask(CancelExport(job="job-1"))
        seat = Someone()
        boot = await home.login(identity(newer), seat=seat)
        if (waiting := boot.disks[0].disk.flush()) is not None:
            await waiting
        flushed = (await home.exported(command(home, "job-2", allow_flushed=True))).result
        assert flushed is not None
        assert flushed.written is None, "its client goes on writing"
        boot.seats.clear()


async def test_an_export_can_be_cancelled_and_leaves_nothing(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootlink_blockstore.exports.CHILD", ("-c", "import time; time.sleep(60)"))
    await wrote(home)
    draft = home.images / "job-1.vhd.tmp-job-1"
    assert (await home.ask(command(home))).state == "running"
    draft.write_bytes(b"half")
    with pytest.raises(CommandError, match="layer is being made"):
        await home.ask(DropWriteback(mac=MAC))
    await home.ask(CancelExport(job="job-1"))
    await home.ask(CancelExport(job="never-heard-of"))
    assert only(home) == []
    assert not any(map(home.store.holdings.is_pinned, home.store.holdings.of(MAC)))
    monkeypatch.undo()
    assert (await home.exported(command(home))).state == "done", "the same job may begin again"


async def test_a_draft_of_a_killed_export_is_written_anew(home: House) -> None:
    held = await wrote(home)
    draft = home.images / "job-1.vhd.tmp-job-1"
    draft.write_bytes(b"half of something" * 1000)
    draft.chmod(0o444)
    made = (await home.exported(command(home))).result
    assert made is not None
    assert shown(Path(made.path), home.folder.parents[1] / "base.img") == held
    assert only(home) == ["job-1.vhd"]


# A client that is on, or comes back


async def test_a_writeback_that_a_session_holds_is_not_exported(home: House) -> None:
    boot = await home.login(identity(boot_id()))
    with pytest.raises(CommandError, match="has the disk open"):
        await home.ask(command(home))
    boot.seats.clear()
    assert (await home.exported(command(home))).state == "done"


async def test_a_client_that_comes_back_and_writes_is_not_kept_waiting_and_the_export_fails(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wrote(home)
    current = home.attachments.holdings.of(MAC)[0].boot_id
    monkeypatch.setattr("bootlink_blockstore.exports.CHILD", _child_that_waits_before_it_is_ready(home.images / "go"))
    assert (await home.ask(command(home))).state == "running"
    async with asyncio.timeout(60):
        while "job-1.vhd.tmp-job-1" not in only(home):
            await asyncio.sleep(0.02)
    boot = await home.login(identity(current))
    await write(boot, b"late" * 1024, at=SIZE // 2)
    (home.images / "go").touch()
    state = await home.exported(command(home))
    assert (state.state, "meanwhile" in state.detail or "while it was being read" in state.detail) == ("failed", True)
    assert only(home) == ["go"]
    assert await read(boot, 4096, at=SIZE // 2) == b"late" * 1024


def _child_that_waits_before_it_is_ready(file: Path) -> tuple[str, ...]:
    words = (
        "import sys, time, pathlib; from bootlink_blockstore import exporting\n"
        "real = exporting._made\n"
        "def made(*given):\n"
        f"    while not pathlib.Path({str(file)!r}).exists(): time.sleep(0.01)\n"
        "    return real(*given)\n"
        "exporting._made = made\n"
        "sys.exit(exporting.main())"
    )
    return ("-c", words)


async def test_a_running_client_is_exported_as_it_was_when_all_was_flushed(home: House) -> None:
    """It writes all the time and flushes now and then: what comes out is what it had at one of its flushes."""
    boot = await home.login(identity(boot_id()))
    disk, image = boot.disks[0].disk, (home.folder.parents[1] / "base.img").read_bytes()
    held, flushed = bytearray(image), {hashlib.sha256(image).digest()}
    stop, chance = asyncio.Event(), random.Random(4)

    async def run() -> None:
        while not stop.is_set():
            for _ in range(20):
                at, data = chance.randrange(SIZE // PAGE) * PAGE, chance.randbytes(PAGE)
                zeros = chance.random() < 0.2
                waiting = disk.zero(at, PAGE) if zeros else disk.write(at, data)
                held[at : at + PAGE] = bytes(PAGE) if zeros else data
                if waiting is not None:
                    await waiting
                await asyncio.sleep(0.0005)
            flushing = disk.flush()
            assert flushing is not None
            await flushing
            flushed.add(hashlib.sha256(held).digest())

    running = asyncio.create_task(run())
    state = await home.exported(command(home, allow_flushed=True))
    stop.set()
    await running
    assert state.result is not None, state
    content = shown(Path(state.result.path), home.folder.parents[1] / "base.img")
    assert content != image
    assert hashlib.sha256(content).digest() in flushed
    assert list((home.store.root / "exports").iterdir()) == []


async def test_a_client_that_never_flushes_has_no_moment_and_goes_on(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "FLUSH_SECONDS", 0.01)
    seat = Someone()
    boot = await home.login(identity(boot_id()), seat=seat)
    await write(boot, b"u" * 4096)
    state = await home.exported(command(home, allow_flushed=True))
    assert (state.state, "does not flush" in state.detail, seat.evicted) == ("failed", True, "")
    assert only(home) == []
    assert list((home.store.root / "exports").iterdir()) == []
    flushing = boot.disks[0].disk.flush()
    assert flushing is not None
    await flushing
    assert (await home.exported(command(home, "job-2", allow_flushed=True))).state == "done"


# Refusals


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"target": "/etc/cron.d/job.vhd"}, "image store"),
        ({"target": "{images}/../../escape/job.vhd"}, "image store"),
        ({"target": "{images}/.hidden.vhd"}, "image store"),
        ({"target": "images/job.vhd"}, "image store"),
        ({"content": "another"}, "is here"),
        ({"lun": 7}, "is here"),
        ({"boot_id": BootId.mint(now_ms=5)}, "is here"),
    ],
)
async def test_what_cannot_be_exported_is_refused(
    home: House, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    (tmp_path / "escape").mkdir()
    await wrote(home)
    if "target" in more:
        more = {"target": more["target"].format(images=home.images)}
    with pytest.raises(CommandError, match=words):
        await home.ask(command(home, **more))


async def test_layers_that_are_not_the_clients_are_refused(home: House, tmp_path: Path) -> None:
    await wrote(home)
    other = make_image(tmp_path / "other.img", SIZE + 4096)
    assert "bytes of disk" in await _failure(home, parent=(layer_plan(other),))
    changed = layer_plan(tmp_path / "base.img").model_copy(update={"mtime_ns": 1})
    assert "was changed" in await _failure(home, job="job-2", parent=(changed,))


async def _failure(home: House, **more: Any) -> str:
    state = await home.exported(command(home, **more))
    assert (state.state, bool(state.remedy)) == ("failed", True)
    assert only(home) == []
    return state.detail


async def test_a_child_that_dies_is_told_and_may_be_repeated(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await wrote(home)
    monkeypatch.setattr("bootlink_blockstore.exports.CHILD", ("-c", "import os; os.kill(os.getpid(), 9)"))
    assert "ended by itself" in await _failure(home)
    monkeypatch.undo()
    assert (await home.exported(command(home, "job-2"))).state == "done"


@pytest.mark.parametrize("whole", [False, True])
async def test_an_image_store_that_fills_up_leaves_nothing_behind_and_the_writeback_as_it_was(
    tmp_path: Path, *, whole: bool
) -> None:
    """For a differencing layer the space is known before; a whole one finds out on the way."""
    base = make_image(tmp_path / "base.img", SIZE)
    (tmp_path / "images").mkdir()
    mount("tmpfs", tmp_path / "none", tmp_path / "images", 2 << 20)
    try:
        async with house(tmp_path, Plans({MAC: plan(base, policy="super", content="c")})) as home:
            boot = await home.login(identity(boot_id()))
            for at in range(0, 4 << 20, 1 << 16):
                await write(boot, b"fills it" * 8192, at=at)
            boot.seats.clear()
            state = await home.exported(command(home, whole=whole))
            assert (state.state, "space" in state.remedy) == ("failed", True), state
            assert only(home) == []
            assert await read(await home.login(identity(boot.boot_id)), 8) == b"fills it"
    finally:
        unmount(tmp_path / "images")


def test_a_full_image_store_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    request = exporting.Request(overlay=None, size=1, parent=(), target=tmp_path / "a", draft=tmp_path / "b")
    with pytest.raises(exporting.ExportError, match="8 MiB, and"):
        exporting._require_space(request, 8 << 20)
