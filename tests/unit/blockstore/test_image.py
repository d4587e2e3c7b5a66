"""Images: stacks of layers through one cache, and layers that are checked at every attachment."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from bootlink_blockstore.cache import BLOCK, Cache
from bootlink_blockstore.image import Image
from bootlink_blockstore.library import Library
from bootlink_blockstore.library import require_unchanged as require_unchanged
from bootlink_blockstore.reading import Layer, Readers
from bootlink_disks import DiskError, Kind, create_vhd_differencing, create_vhd_dynamic
from bootlink_disks.layer import Format, Run
from bootlink_disks.open import FORMATS
from bootlink_events import LayerFormat
from lab.blockstore import digest, layer_plan, make_image
from lab.disks import apply_changes
from lab.slow_disk import SlowDisk


async def read(image: Image, offset: int, length: int) -> bytes:
    result = image.read(offset, length)
    return b"".join(result if isinstance(result, list) else await result)


def differencing(path: Path, cache: Cache, size: int, runs: list[Run]) -> Layer:
    """A layer of a format that has absent runs, as a differencing VHD will be."""

    def locate(offset: int, length: int) -> list[Run]:
        found, at = [], 0
        for kind, file_offset, run in runs:
            low, high = max(at, offset), min(at + run, offset + length)
            if low < high:
                found.append(Run(kind, file_offset + low - at if kind is Kind.DATA else 0, high - low))
            at += run
        return found

    opened: Any = SimpleNamespace(fd=os.open(path, os.O_RDONLY), size=size, locate=locate)
    return Layer(path.name, cache.shelf(-(-size // BLOCK)), opened, (0, 0, 0))


@pytest.mark.parametrize("nowait", [True, False], ids=["page cache", "threads"])
async def test_a_stack_reads_each_byte_from_the_topmost_layer_that_has_it(tmp_path: Path, nowait: bool) -> None:
    size = 6 * BLOCK
    base, top = make_image(tmp_path / "base", size), make_image(tmp_path / "top", size, seed=2)
    upper = [
        Run(Kind.ABSENT, 0, BLOCK),
        Run(Kind.DATA, BLOCK, BLOCK),
        Run(Kind.ZERO, 0, BLOCK),
        Run(Kind.ABSENT, 0, 4096),  # block 3 is mixed
        Run(Kind.DATA, 0, 4096),
        Run(Kind.ABSENT, 0, BLOCK - 8192 + 2 * BLOCK),
    ]
    lower = [Run(Kind.DATA, 0, 5 * BLOCK), Run(Kind.ABSENT, 0, BLOCK)]
    a, b = base.read_bytes(), top.read_bytes()
    expected = (
        a[:BLOCK]
        + b[BLOCK : 2 * BLOCK]
        + bytes(BLOCK)
        + a[3 * BLOCK :][:4096]
        + b[:4096]
        + a[3 * BLOCK + 8192 : 5 * BLOCK]
        + bytes(BLOCK)
    )
    with ThreadPoolExecutor(2) as executor:
        cache = Cache(64 << 20)
        layers = [differencing(top, cache, size, upper), differencing(base, cache, size, lower)]
        for layer in layers:
            layer.nowait = nowait
        stacked = Image(layers, cache, Readers(executor))
        assert await read(stacked, 0, size) == expected
        assert await read(stacked, 512, size - 1024) == expected[512:-512]
        alone = Image(layers[1:], cache, Readers(executor))
        held = cache.entries
        assert await read(alone, 0, BLOCK) == a[:BLOCK]
        assert cache.entries == held, "a block of the base was cached once for both"
        for layer in layers:
            os.close(layer.open.fd)


async def test_a_chain_of_vhds_is_one_disk_and_a_block_of_the_base_is_cached_once(tmp_path: Path) -> None:
    size, rng = 6 * BLOCK, random.Random(7)
    raw = make_image(tmp_path / "base.img", size)
    infos = [create_vhd_dynamic(tmp_path / "base.vhd", raw)]
    model = bytearray(raw.read_bytes())
    for level in range(3):
        changes = [(at * 512, rng.randbytes(512 * 3)) for at in sorted(rng.sample(range(0, 4 * BLOCK // 512, 4), 20))]
        apply_changes(model, changes)
        infos.insert(0, create_vhd_differencing(tmp_path / f"{level}.vhd", infos[0], changes))
    before = [digest(info.path) for info in infos]
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        image = await library.open([layer_plan(info.path) for info in infos])
        assert await read(image, 0, size) == model
        assert await read(image, 3 * 512, 5 * BLOCK) == model[3 * 512 :][: 5 * BLOCK]
        alone = await library.open([layer_plan(infos[-1].path)])
        held = library.cache.entries
        assert await read(alone, 4 * BLOCK, 2 * BLOCK) == raw.read_bytes()[4 * BLOCK :]
        assert library.cache.entries == held, "the blocks that only the base holds were there already"
        library.shut()
    assert [digest(info.path) for info in infos] == before


def test_a_plan_can_name_every_format_that_is_read_and_no_other() -> None:
    assert get_args(LayerFormat) == get_args(Format) == tuple(FORMATS)


async def test_layers_that_do_not_belong_together_are_no_image(tmp_path: Path) -> None:
    raws = [make_image(tmp_path / f"{name}.img", 4 * BLOCK, seed=name) for name in (1, 2)]
    right, wrong = (create_vhd_dynamic(raw.with_suffix(".vhd"), raw) for raw in raws)
    child = create_vhd_differencing(tmp_path / "child.vhd", right, [(0, b"x" * 512)])
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        with pytest.raises(DiskError, match="another disk"):
            await library.open([layer_plan(child.path), layer_plan(wrong.path)])
        with pytest.raises(DiskError, match="nothing is below it"):
            await library.open([layer_plan(child.path)])
        assert [layer.users for layer in library.layers] == [0, 0]
        library.close(await library.open([layer_plan(child.path), layer_plan(right.path)]))
        library.shut()


async def test_holes_of_a_dynamic_vhd_cost_no_memory(tmp_path: Path) -> None:
    raw = tmp_path / "disk.img"
    raw.write_bytes(b"\xeb" + bytes(509) + b"\x55\xaa" + bytes((16 << 20) - 512))
    vhd = tmp_path / "disk.vhd"
    create_vhd_dynamic(vhd, raw)
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        image = await library.open([layer_plan(vhd)])
        assert (await read(image, 0, image.size))[: 16 << 20] == raw.read_bytes()
        assert library.cache.used < 1 << 20
        library.shut()


async def test_a_layer_that_was_changed_after_it_was_added_is_refused_also_while_it_is_open(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    plan = layer_plan(base)
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        image = await library.open([plan])
        os.utime(base, ns=(0, plan.mtime_ns + 1))
        with pytest.raises(DiskError, match="changed after it was added"):
            await library.open([plan])
        library.close(image)
        base.unlink()
        with pytest.raises(DiskError):
            await library.open([plan])
        library.shut()


async def test_a_layer_that_cannot_be_opened_anew_is_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise DiskError("it is damaged", "restore it")

    base = make_image(tmp_path / "base.img", 1 << 20)
    plan = layer_plan(base)
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        image = await library.open([plan])
        base.chmod(0o444)  # touched: nobody can tell that its bytes are the same
        with monkeypatch.context() as patch:
            patch.setattr(Library, "_open", broken)
            with pytest.raises(DiskError):
                await library.open([plan])
        assert library.layers == []
        assert await read(image, 0, image.size) == base.read_bytes()
        library.close(image)
        library.close(await library.open([plan]))
        assert image.layers[0].open.fd == -1
        assert len(library.layers) == 1
        library.shut()


@pytest.mark.parametrize("how", ["in place", "another file"])
async def test_a_layer_that_was_damaged_and_restored_is_read_anew(tmp_path: Path, how: str) -> None:
    """By size and time it is what it was; blocks of the damaged one must not be served from the cache or its file."""
    base = make_image(tmp_path / "base.img", 1 << 20)
    good, plan = base.read_bytes(), layer_plan(base)
    base.write_bytes(b"damaged!" * (len(good) // 8))
    os.utime(base, ns=(0, plan.mtime_ns))
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        early = await library.open([plan])
        assert (await read(early, 0, 8)) == b"damaged!"
        if how == "another file":
            base.rename(tmp_path / "damaged.img")
        base.write_bytes(good)
        os.utime(base, ns=(0, plan.mtime_ns))
        late = await library.open([plan])
        assert await read(late, 0, late.size) == good
        fd = early.layers[0].open.fd
        library.close(early)
        library.close(await library.open([plan]))
        assert early.layers[0].open.fd == -1 != fd
        assert await read(late, 0, late.size) == good
        library.shut()


async def test_what_stands_on_a_layer_that_was_restored_is_read_anew_where_a_block_holds_bytes_of_both(
    tmp_path: Path,
) -> None:
    """Such a block is on the upper layer's shelf, and the upper layer's own file has not changed."""
    raw = make_image(tmp_path / "base.img", 2 * BLOCK)
    base = create_vhd_dynamic(tmp_path / "base.vhd", raw)
    tops = [create_vhd_differencing(tmp_path / f"{n}.vhd", base, [(512, bytes((n,)) * 512)]) for n in (1, 2)]
    good, plan, whole = base.path.read_bytes(), layer_plan(base.path), raw.read_bytes()
    stacks = [[layer_plan(top.path), plan] for top in tops]
    base.path.write_bytes(good.replace(whole[1024:4096], b"damaged!" * 384))
    os.utime(base.path, ns=(0, plan.mtime_ns))
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        early = [await library.open(stack) for stack in stacks]
        for image in early:
            assert (await read(image, 1024, 8)) == b"damaged!"
        base.path.write_bytes(good)
        os.utime(base.path, ns=(0, plan.mtime_ns))
        late = [await library.open(stack) for stack in stacks]
        for number, image in enumerate(late, 1):
            assert await read(image, 0, 2 * BLOCK) == whole[:512] + bytes((number,)) * 512 + whole[1024:]
        again = [await library.open(stack) for stack in stacks]
        assert again == late, "and stays open from then on"
        for image in (*early, *late, *again):
            library.close(image)
        library.shut()


async def test_a_layer_stays_open_while_a_block_of_one_that_stands_on_it_is_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its descriptor could be another file's by the time that the thread reads."""
    monkeypatch.setattr("bootlink_blockstore.library.IDLE_LAYERS", 0)
    raw, other = make_image(tmp_path / "base.img", 2 * BLOCK), make_image(tmp_path / "other.img", 2 * BLOCK, seed=2)
    base = create_vhd_dynamic(tmp_path / "base.vhd", raw)
    top = create_vhd_differencing(tmp_path / "top.vhd", base, [(512, bytes(512))])
    with SlowDisk(0.2), ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        image = await library.open([layer_plan(top.path), layer_plan(base.path)])
        for layer in image.layers:
            layer.nowait = False
        reading = asyncio.ensure_future(read(image, 0, 4096))
        await asyncio.sleep(0)
        library.close(image)
        library.close(await library.open([layer_plan(other)]))
        assert [layer.open.fd != -1 for layer in image.layers] == [True, True]
        assert (await reading)[1024:] == raw.read_bytes()[1024:4096]
        library.close(await library.open([layer_plan(other)]))
        assert [layer.open.fd for layer in image.layers] == [-1, -1]
        library.shut()


async def test_a_file_that_does_not_answer_holds_up_no_client_of_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootlink_blockstore.library.IDLE_LAYERS", 0)
    dead, alive = make_image(tmp_path / "dead.img", 1 << 20), make_image(tmp_path / "alive.img", 1 << 20, seed=2)
    answered = threading.Event()

    def stat(plan: Any) -> Any:
        if plan.path == str(dead):
            answered.wait(10)
        return require_unchanged(plan)

    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        library.close(await library.open([layer_plan(dead)]))
        monkeypatch.setattr("bootlink_blockstore.library.require_unchanged", stat)
        stuck = [asyncio.ensure_future(library.open([layer_plan(dead)])) for _ in range(2)]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            other = await library.open([layer_plan(alive)])
        assert not any(waiting.done() for waiting in stuck)
        answered.set()
        first, second = await asyncio.gather(*stuck)
        assert first is second
        assert await read(first, 0, 4096) == dead.read_bytes()[:4096], "and it was not closed as idle meanwhile"
        for image in (first, second, other):
            library.close(image)
        assert [layer.users for layer in library.layers] == [0, 0]
        library.shut()


async def test_a_layer_is_opened_once_and_stays_for_the_next_boot(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        first = await library.open([layer_plan(base)])
        await read(first, 0, 4096)
        library.close(first)
        second = await library.open([layer_plan(base)])
        assert second.layers == first.layers
        assert second.hit(0, 4096) is not None
        library.shut()


async def test_idle_layers_beyond_the_limit_are_closed_with_their_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootlink_blockstore.library.IDLE_LAYERS", 1)
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(8 << 20), executor)
        for number in range(3):
            image = await library.open([layer_plan(make_image(tmp_path / f"{number}.img", 1 << 20, seed=number))])
            await read(image, 0, 4096)
            library.close(image)
        used = await library.open([layer_plan(tmp_path / "2.img")])
        assert [layer.id for layer in library.layers] == ["layer-1.img", "layer-2.img"]
        assert library.cache.entries == 2
        library.close(used)
        library.shut()


async def test_a_block_in_which_a_smaller_parent_ends_is_the_child_s_and_the_parent_s_own_stays_as_it_is(
    tmp_path: Path,
) -> None:
    end = BLOCK + 1536
    base, top = make_image(tmp_path / "base", end), make_image(tmp_path / "top", 3 * BLOCK, seed=2)
    a, b = base.read_bytes(), top.read_bytes()
    with ThreadPoolExecutor(2) as executor:
        for first in ("parent", "child"):
            cache = Cache(8 << 20)
            below = differencing(base, cache, end, [Run(Kind.DATA, 0, end)])
            above = differencing(
                top, cache, 3 * BLOCK, [Run(Kind.ABSENT, 0, 2 * BLOCK), Run(Kind.DATA, 2 * BLOCK, BLOCK)]
            )
            images = {
                "parent": Image([below], cache, Readers(executor)),
                "child": Image([above, below], cache, Readers(executor)),
            }
            await read(images[first], 0, images[first].size)
            assert await read(images["parent"], 0, end) == a
            assert await read(images["child"], 0, 3 * BLOCK) == a + bytes(2 * BLOCK - end) + b[2 * BLOCK :]
            assert below.shelf.blocks[0] == a[:BLOCK], "the first block is held once for both"
            assert 0 not in above.shelf.blocks
            for layer in (below, above):
                os.close(layer.open.fd)


async def test_a_hit_over_several_blocks_gives_what_a_read_gives_and_nothing_where_one_is_missing(
    tmp_path: Path,
) -> None:
    path = make_image(tmp_path / "image", 5 * BLOCK + 4096)
    content = path.read_bytes()
    with ThreadPoolExecutor(2) as executor:
        library = Library(Cache(64 << 20), executor)
        image = await library.open([layer_plan(path)])
        await read(image, 0, 3 * BLOCK)
        await read(image, 4 * BLOCK, BLOCK + 4096)
        shelf = image.layers[0].shelf
        for offset, length in ((0, 3 * BLOCK), (4096, 2 * BLOCK), (BLOCK - 512, 1024), (4 * BLOCK + 512, BLOCK + 3584)):
            hits = shelf.hits
            found = image.hit_blocks(offset, length)
            assert found is not None
            assert b"".join(found) == content[offset : offset + length]
            assert shelf.hits - hits == len(found)
        hits = shelf.hits
        assert image.hit_blocks(2 * BLOCK, 2 * BLOCK) is None
        assert shelf.hits == hits
        library.shut()
