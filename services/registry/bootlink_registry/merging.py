"""Merging and compacting: fewer layers, or fewer bytes, under what a version shows.

**Merging** makes one layer of several: of all of them a whole disk, or of those above a version one difference to it.
The result is compared with the old stack over the whole disk before it is used, and then takes its place in one
transaction: `content` stays, so that kept write-backs fit as before. Nobody is stopped: a PC that runs reads the old
layers until its next boot.

A merged layer has the identity of the top one that it takes the place of, by which children know their parent. So what
stands on that (versions, images, own layers) is read over the merged layer from then on, and the old layers are free.
A child that does not fit, by what its file says, goes on to read the old one.

**Compacting** writes a version as one whole file without the blocks that are zeros, and without what the file system
on it calls free. Where only zeros were dropped, the version shows the same and is read from the smaller file from then
on, as after a merge. Where free space was, some bytes differ that no file owns: this is a new version, made from the
old, and is published when the administrator likes it.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Literal

from bootlink_disks import DiskError, require_parent, vhd
from bootlink_registry import images, imaging, making, outbox, versions
from bootlink_registry.catalogue import Layer
from bootlink_registry.database import Connection
from bootlink_registry.jobs.work import Work
from bootlink_registry.problems import Problem, conflict, invalid
from bootlink_registry.removal import settle_layers
from bootlink_registry.store import place_of


async def merge(work: Work) -> dict[str, Any]:
    """The job `image.merge`."""
    number, onto = work.request["version"], work.request["onto"]
    async with work.database.transaction() as connection:
        stack, kept = await split(connection, work.subject, number, onto)
    place = place_of(
        work.settings.image_store, work.subject, work.id, whole_format(stack[0].virtual_size) if not kept else "vhd"
    )
    if await place.ready():
        made = await making.found(work, place)
    else:
        async with place.drafting():
            written = await imaging.run(
                imaging.Merge(
                    layers=making.refs(stack if kept else stack + kept),
                    parent=making.refs(kept)[0] if kept else None,
                    target=place.draft,
                ),
                making.progress(work, "merging"),
            )
            difference = await _first_difference(work, stack + kept, (making.ref(written), *making.refs(kept)))
            if difference is not None:
                raise _differs(difference)
            made = await making.sealed(place, written)
    children = await _fitting(work, stack[0], made)
    async with work.database.transaction() as connection:
        result = await _replace(
            connection, work, number, stack, made, below=kept[0].id if kept else None, children=children
        )
        await work.finish(connection, result)
    return result


async def compact(work: Work) -> dict[str, Any]:
    """The job `image.compact`."""
    wanted, number = work.request, work.request["version"]
    async with work.database.transaction() as connection:
        stack = await images.stack_of(connection, work.subject, number)
        before = await _usage(connection, stack)
    place = place_of(work.settings.image_store, work.subject, work.id, wanted["format"])
    await place.ready(anew=True)  # what a former attempt has sealed does not say what was dropped
    async with place.drafting():
        compacted = await imaging.run(
            imaging.Compact(layers=making.refs(stack), target=place.draft, format=wanted["format"]),
            making.progress(work, "compacting"),
        )
        result = {
            "image": work.subject,
            "version": number,
            "before": before,
            "after": compacted.disk_usage,
            "zero_bytes": compacted.zero_bytes,
            "free_bytes": compacted.free_bytes,
            "notes": list(compacted.notes),
        }
        if compacted.disk_usage >= before:
            await place.clear()
            return result | {"outcome": "nothing to gain", "after": before}
        difference = await _first_difference(work, stack, (making.ref(compacted),))
        if difference is not None and not compacted.free_bytes:
            raise _differs(difference)
        made = await making.sealed(place, compacted)
    children = await _fitting(work, stack[0], made)
    async with work.database.transaction() as connection:
        if difference is None:
            result |= {"outcome": "replaced"}
            result |= await _replace(connection, work, number, stack, made, below=None, children=children)
        else:
            result |= {"outcome": "new version"}
            result |= await _new_version(connection, work, number, made)
        await work.finish(connection, result)
    return result


async def split(
    connection: Connection, image: str, number: int, onto: int | None
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers that a merge makes one of, and those below that stay; each top first. Raises Problem."""
    stack = await images.stack_of(connection, image, number)
    at = len(stack)
    if onto is not None:
        base = (await images.stack_of(connection, image, onto))[0]
        if base.id not in [layer.id for layer in stack[1:]]:
            raise invalid(
                f"version {number} of image {image} does not stand on version {onto}",
                f"name one that it stands on, or none to merge all; bootlink image log {image} tells",
            )
        at = next(place for place, layer in enumerate(stack) if layer.id == base.id)
    if at == 1:
        what = "is read from one layer" if onto is None else f"is one layer above version {onto}"
        raise conflict(f"version {number} of image {image} {what} already", "there is nothing to merge")
    return stack[:at], stack[at:]


async def _first_difference(work: Work, old: tuple[Layer, ...], new: tuple[imaging.LayerRef, ...]) -> int | None:
    """Where two stacks show different bytes first; None if nowhere."""
    compared = await imaging.run(
        imaging.Compare(a=making.refs(old), b=new), making.progress(work, "comparing with the old layers")
    )
    return None if compared.same else compared.first_difference or 0


def _differs(at: int) -> Problem:
    return Problem(
        500,
        f"what was written differs from the old layers at byte {at} of the disk",
        "report this; the version is as it was",
    )


async def _fitting(work: Work, old: Layer, made: making.Made) -> list[uuid.UUID]:
    """The layers that stand on `old` and may as well stand on what was made, by what their files say."""
    async with work.database.transaction() as connection:
        found = await connection.fetch("SELECT * FROM layers WHERE below = $1", uuid.UUID(old.id))
    if not found:
        return []
    parent = await work.layers.probe(made.path)
    fitting = []
    for row in found:
        try:
            require_parent(await work.layers.probe(Path(row["path"])), parent)
        except (DiskError, Problem) as error:
            work.log.info("child stays on the old layer", layer=str(row["id"]), reason=str(error))
        else:
            fitting.append(row["id"])
    return fitting


async def _replace(
    connection: Connection,
    work: Work,
    number: int,
    old: tuple[Layer, ...],
    made: making.Made,
    *,
    below: str | None,
    children: list[uuid.UUID],
) -> dict[str, Any]:
    """Have a version read from a new layer in place of `old`, and these children too; what became free by it.

    Raises Problem.
    """
    await versions.lock_image(connection, work.subject)
    now = await images.stack_of(connection, work.subject, number)
    if [layer.id for layer in now[: len(old)]] != [layer.id for layer in old]:
        raise conflict(
            f"version {number} of image {work.subject} was changed meanwhile", "look at it, then do it again"
        )
    layer = await making.record(connection, work, made, below=below)
    if children:
        await connection.execute(
            "UPDATE layers SET below = $1 WHERE below = $2 AND id = ANY($3::uuid[])",
            *(layer, uuid.UUID(old[0].id), children),
        )
        await outbox.recompile(connection, "all")  # whoever reads the children, of whichever image
    await versions.put_layer(
        connection, image=work.subject, version=number, layer=layer, author=work.author, source=work.source
    )
    await settle_layers(connection)
    left = {
        str(row["id"]): row["retired"]
        for row in await connection.fetch(
            "SELECT id, retired FROM layers WHERE id = ANY($1::uuid[])", [uuid.UUID(one.id) for one in old]
        )
    }
    return {
        "image": work.subject,
        "version": number,
        "path": str(made.path),
        "layers_before": len(now),
        "layers_after": len(await images.stack_of(connection, work.subject, number)),
        "file_size": made.file_size,
        "disk_usage": made.disk_usage,
        "sha256": made.sha256,
        "retired": [one.path for one in old if left.get(one.id) is not None],
        "released": [one.path for one in old if one.id not in left],
        "still_needed": [one.path for one in old if one.id in left and left[one.id] is None],
    }


async def _new_version(connection: Connection, work: Work, number: int, made: making.Made) -> dict[str, Any]:
    layer = await making.record(connection, work, made)
    new = await versions.add_version(
        connection,
        image=work.subject,
        layer=layer,
        parent=number,
        note=work.request["note"] or f"version {number}, compacted",
        author=work.author,
        source=work.source,
    )
    if work.request["channel"] is not None:
        await versions.publish(
            connection,
            image=work.subject,
            channel=work.request["channel"],
            version=new,
            author=work.author,
            source=work.source,
        )
    return {"new_version": new, "path": str(made.path), "sha256": made.sha256}


async def _usage(connection: Connection, stack: tuple[Layer, ...]) -> int:
    """Bytes that the files of a stack occupy."""
    found: int = await connection.fetchval(
        "SELECT sum(disk_usage) FROM layers WHERE id = ANY($1::uuid[])", [uuid.UUID(layer.id) for layer in stack]
    )
    return int(found)


def whole_format(virtual_size: int) -> Literal["vhd", "vhdx"]:
    """The format that a whole disk of this size is written in, where nobody asked for another."""
    return "vhd" if virtual_size <= vhd.MAX_SIZE else "vhdx"
