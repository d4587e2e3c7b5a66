"""The library: the layers that are open, by their id, and the images that stand on them.

Theory of operation. Clients of one stack share one `Image`. A layer stays open after its last client left, with its
blocks, since the next boot of a room asks for the same; the longest unused goes first, and its blocks in slices.

A layer's file is checked against its plan at every attachment, not only when it is opened; and where it is another file
by then, or was touched at all, it is opened anew and nothing that was read of the former one is served to newcomers (a
damaged file that was restored looks by size and time as it did before). The same holds for all that stands on it: a
block of an upper layer may have bytes of the lower ones in it. For that reason, too, no layer is closed while a block
of one above it is being read.

The layers of the image store are Bootlink's own, written once and mode 0444. One that is opened and can be written to
is sealed again, and told. Whether its bytes are still those of its checksum is not asked here: that would be to read
all of it (see docs/guarantees.md for who does, and when).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from bootlink_blockstore import readahead
from bootlink_blockstore.cache import BLOCK_BITS, Cache
from bootlink_blockstore.image import Image
from bootlink_blockstore.reading import Layer, Readers, Stamp
from bootlink_disks import DiskError, OpenLayer, open_layer, require_chain
from bootlink_events import LayerPlan

IDLE_LAYERS: Final = 64  # layers that stay open without a client; each costs a descriptor and its map
SWEEP_PAUSE: Final = 0.002  # seconds between slices of a forgotten layer's blocks, for others to be served
WRITABLE: Final = 0o222
SEALED: Final = 0o444
LAYERS_LIMIT: Final = 255  # of one image: what one byte per block can name


class Library:
    """The layers that are open, and the images that stand on them."""

    def __init__(
        self,
        cache: Cache,
        executor: Executor,
        ahead: Executor | None = None,
        *,
        store: Path | None = None,
        unsealed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`executor` has the threads that open and read layers, `ahead` (JOBS threads) those that read ahead.

        `store`: the image store, whose layers are sealed; `unsealed` is told of one that was not, in a thread.
        """
        self.cache = cache
        self._executor = executor
        self._store = store
        self._unsealed = unsealed
        self.readers = Readers(executor, ahead, readahead.limit_in_flight(cache.budget))
        self._layers: dict[str, Layer] = {}  # in the order of their last use
        self._former: list[Layer] = []  # whose file is another by now; for those that still use them
        self._images: dict[tuple[Layer, ...], Image] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by layer, while one is opened

    @property
    def layers(self) -> list[Layer]:
        return list(self._layers.values())

    async def open(self, plans: Sequence[LayerPlan]) -> Image:
        """The image with these layers, top first. DiskError if a file is not what its plan says. `close` it."""
        if len(plans) > LAYERS_LIMIT:
            raise DiskError(
                f"{plans[0].path} stands on {len(plans) - 1} layers; an image may have {LAYERS_LIMIT} in all",
                "make one layer of the lower ones",
            )
        # One at a time for each layer, and in one order; a file that does not answer holds up its own clients alone.
        locks = [self._locks.setdefault(plan_id, asyncio.Lock()) for plan_id in sorted({plan.id for plan in plans})]
        async with contextlib.AsyncExitStack() as held:
            for lock in locks:
                await held.enter_async_context(lock)
            layers: list[Layer] = []
            try:
                for plan in reversed(plans):
                    layers.insert(0, await self._layer(plan, layers[0] if layers else None))
                require_chain([layer.open.info for layer in layers])
            except BaseException:
                for layer in layers:
                    layer.users -= 1
                raise
            for layer in layers:  # an upper one is older than what it stands on, and goes before it
                self._layers[layer.id] = self._layers.pop(layer.id)
            self._close_idle(IDLE_LAYERS)
        stack = tuple(layers)
        image = self._images.get(stack)
        if image is None:
            image = self._images[stack] = Image(stack, self.cache, self.readers)
        return image

    async def _layer(self, plan: LayerPlan, below: Layer | None) -> Layer:
        """The layer, open, with one user more, and as its file and those below it are now."""
        loop = asyncio.get_running_loop()
        held = self._layers.get(plan.id)
        if held is not None:
            held.users += 1  # before the wait: nobody may close it meanwhile
            try:
                stamp = await loop.run_in_executor(self._executor, require_unchanged, plan)
                if stamp == held.stamp and held.below is below:
                    held.users += 1
                    return held
            finally:
                held.users -= 1
            self._former.append(self._layers.pop(plan.id))
        opened, stamp = await loop.run_in_executor(self._executor, self._open, plan)
        shelf = self.cache.shelf(-(-opened.size >> BLOCK_BITS))
        layer = self._layers[plan.id] = Layer(plan.id, shelf, opened, stamp, below)
        layer.users = 1
        return layer

    def _open(self, plan: LayerPlan) -> tuple[OpenLayer, Stamp]:
        opened = open_layer(
            plan.path, plan.format, virtual_size=plan.virtual_size, file_size=plan.file_size, mtime_ns=plan.mtime_ns
        )
        if self._store is not None and Path(plan.path).is_relative_to(self._store):
            self._seal(opened)
        return opened, _stamp(os.fstat(opened.fd))

    def _seal(self, opened: OpenLayer) -> None:
        """A layer of the image store is read-only for everybody; one that is not is made so, and told."""
        if os.fstat(opened.fd).st_mode & WRITABLE:
            with contextlib.suppress(OSError):  # another user's file; it was told, and its size and time are right
                os.fchmod(opened.fd, SEALED)
            self._unsealed(str(opened.path))

    def close(self, image: Image) -> None:
        """One user of the image less. Its layers stay open for the next."""
        for layer in image.layers:
            layer.users -= 1

    def shut(self) -> None:
        """Close every layer. Only when nothing reads any more."""
        for layer in (*self._layers.values(), *self._former):
            layer.open.close()
        self._layers.clear()
        self._former.clear()
        self._images.clear()

    def _close_idle(self, keep: int) -> None:
        idle = [layer for layer in self._layers.values() if layer.users == 0]
        for layer in idle[: max(0, len(idle) - keep)]:
            if self._close_layer(layer):
                del self._layers[layer.id]
        self._former = [layer for layer in self._former if layer.users or not self._close_layer(layer)]

    def _close_layer(self, layer: Layer) -> bool:
        """Close a layer that nobody uses, and forget its blocks. False while it may still be read from."""
        for other in (*self._layers.values(), *self._former):
            if other.flights and other.stands_on(layer):
                return False
        self._images = {stack: image for stack, image in self._images.items() if layer not in stack}
        self.cache.forget(layer.shelf)
        self._sweep()
        layer.open.close()
        return True

    def _sweep(self) -> None:
        if self.cache.sweep():
            asyncio.get_running_loop().call_later(SWEEP_PAUSE, self._sweep)


def _stamp(state: os.stat_result) -> Stamp:
    return state.st_dev, state.st_ino, state.st_ctime_ns


def require_unchanged(plan: LayerPlan) -> Stamp:
    """DiskError unless the file is as its plan says; by its size and time alone. Blocks."""
    try:
        now = os.stat(plan.path)  # noqa: PTH116  (one system call, in a thread)
    except OSError as error:
        raise DiskError(f"{plan.path}: {error.strerror}", "restore the file") from error
    if (now.st_size, now.st_mtime_ns) != (plan.file_size, plan.mtime_ns):
        raise DiskError(
            f"{plan.path}: the file was changed after it was added",
            "restore the file as it was, or add the changed one as a new version",
        )
    return _stamp(now)
