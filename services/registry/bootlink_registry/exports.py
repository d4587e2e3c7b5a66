"""What a client wrote, made a layer file by the block store that holds it; a job follows until it is done.

The block store writes the file (a draft, synced, renamed), so the registry may be killed at any time: asked again for
the same job it tells how far it is, or that it is done. A file that no row comes to name is the sweeper's.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bootlink_disks import ImageInfo
from bootlink_events import BootId, LayerPlan
from bootlink_events.commands import CancelExport, ExportedLayer, ExportWriteback
from bootlink_registry import rows
from bootlink_registry.catalogue import Layer
from bootlink_registry.compiler import chain_of, layer_plan
from bootlink_registry.database import Connection
from bootlink_registry.jobs import Work
from bootlink_registry.problems import Problem, conflict
from bootlink_registry.writebacks import BLOCKSTORE, Held, refused
from bootlink_runtime import BusUnavailable, CommandError, rpc

LOOK_SECONDS: Final = 0.25  # between questions how far it is
SILENCE_SECONDS: Final = 60.0  # without an answer, until the job fails; a block store is restarted in less


async def layers_below(connection: Connection, top: uuid.UUID) -> tuple[LayerPlan, ...]:
    """The layer and those below it, top first. Problem if one of them is not whole."""
    found = await connection.fetch(
        """
        WITH RECURSIVE chain AS (
            SELECT * FROM layers WHERE id = $1 UNION SELECT l.* FROM layers l JOIN chain c ON c.below = l.id)
        SELECT * FROM chain
        """,
        top,
    )
    layers: Mapping[str, Layer] = {layer.id: layer for layer in map(rows.layer_of, found)}
    chain = chain_of(layers, str(top))
    broken = next((layer for layer in chain if layer.fault is not None), None)
    if broken is not None:
        raise conflict(f"a layer below is {broken.fault}: {broken.path}", "restore that file first, then repeat")
    return tuple(layer_plan(layer) for layer in chain)


async def export(
    work: Work,
    held: Held,
    *,
    image: str,
    parent: tuple[LayerPlan, ...],
    content: str | None = None,
    allow_flushed: bool = False,
) -> tuple[ImageInfo, ExportedLayer]:
    """Have the block store make a layer file of this write-back; what the file is. Raises Problem.

    The layer's id is the job's.
    """
    folder = work.settings.image_store / image
    await asyncio.to_thread(_make, folder)
    command = ExportWriteback(
        job=str(work.id),
        mac=held.item.mac,
        lun=held.item.lun,
        boot_id=BootId(int=held.item.boot_id.int),
        content=content,
        target=str(folder / f"{work.id}.vhd"),
        parent=parent,
        allow_flushed=allow_flushed,
    )
    try:
        made = await _followed(work, held.node, command)
    except asyncio.CancelledError:
        if work.cancelled:
            with contextlib.suppress(CommandError, BusUnavailable):
                await rpc.call(work.bus, BLOCKSTORE, held.node, CancelExport(job=str(work.id)))
        raise
    await work.progress(made.file_size, made.file_size, "looking at the layer")
    info = await work.layers.probe(Path(made.path))
    expected = (made.format, made.virtual_size, made.file_size, made.mtime_ns)
    if (info.format, info.virtual_size, info.file_size, info.mtime_ns) != expected:
        raise Problem(
            500,
            f"{made.path} is not what the block store on {held.node} says it wrote",
            "is the image store the same folder for registry and block store? See BOOTLINK_IMAGE_STORE",
        )
    return info, made


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(
            507, f"{folder} cannot be made: {error.strerror}", "make it, or set BOOTLINK_IMAGE_STORE to another folder"
        ) from error


async def _followed(work: Work, node: str, command: ExportWriteback) -> ExportedLayer:
    loop = asyncio.get_running_loop()
    heard = loop.time()
    while True:
        try:
            state = await rpc.call(work.bus, BLOCKSTORE, node, command)
        except (CommandError, BusUnavailable) as error:
            if isinstance(error, CommandError) and error.cause not in ("unanswered", "stale"):
                raise refused(error) from error
            if loop.time() - heard > SILENCE_SECONDS:
                detail = f"the block store on {node} fell silent: {error}"
                raise Problem(503, detail, "start it again, then repeat the command; nothing is lost") from error
            await work.progress(0, None, f"waiting for the block store on {node}")
        else:
            heard = loop.time()
            if state.state == "failed":
                raise Problem(500, state.detail, state.remedy)
            if state.state == "done":
                assert state.result is not None
                return state.result
            await work.progress(state.done, state.total or None, "writing the layer")
        await asyncio.sleep(LOOK_SECONDS)
