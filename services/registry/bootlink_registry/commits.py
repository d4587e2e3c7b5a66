"""Commits: what a client wrote becomes a new version of an image (PROTOCOLS, section 5.4, S1).

Theory of operation. A commit is a job in two steps:

1. The block store makes a layer file of the write-back, upon the layers of the version that it lies on (`exports`).
2. One transaction records the layer, the version, what becomes of the branch, the events, and the end of the job.

Until the second is through, nothing has changed: a registry that is killed anywhere begins the job again, and finds the
file or has it made. After it everything has. What is left of either (a file that no row names, a write-back that is a
version now) is removed by others: the sweeper of the image store, and `writebacks.Reclaim`.

A branch ends with its commit, and its client boots by its links again; or it goes on upon the new version. Where the
client is running, which must be allowed, what was flushed becomes the version and the branch stays as it is: the next
commit of it holds all of that once more. The same where the client was started while the commit was at work, or was
shut down meanwhile: the branch ends only where the block store says that nothing was written since.

The new version's parent is the branch's base, whatever other versions the image has by then. Whoever commits is told of
those, as publishing the new version takes back what is in them.

A client that is started after the last look at its write-back, and before its new plan is at the block store, writes
upon what its branch was. That is not thrown away (see `writebacks`), and can be committed as a boot of the past.

A boot of the past can be committed for as long as its write-back is held; that changes no branch.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

from bootlink_disks import ImageInfo
from bootlink_events import LayerPlan, WritebackCommitted
from bootlink_events.commands import ExportedLayer
from bootlink_registry import branches, images, jobs, outbox, versions, writebacks
from bootlink_registry.adding import CHAIN_LIMIT
from bootlink_registry.branches import BOOT_LUN, BranchRow
from bootlink_registry.catalogue import Client
from bootlink_registry.clients import find_client
from bootlink_registry.database import Connection
from bootlink_registry.exports import export, layers_below
from bootlink_registry.homes import home_of
from bootlink_registry.jobs import JobKind, Work
from bootlink_registry.problems import Problem, conflict, listed, not_found
from bootlink_registry.writebacks import Held

KIND: Final = branches.COMMIT_KIND
AT_WORK: Final = "in_use"  # the state of a write-back that a session holds


@dataclass(frozen=True, slots=True)
class _Source:
    """What is committed, and upon what it lies."""

    client: Client
    held: Held
    image: str
    base: int
    top: uuid.UUID  # the layer that the base is read from; of a boot of the past, its client's own layer, perhaps
    parent: tuple[LayerPlan, ...]
    branch: BranchRow | None  # None for a boot of the past
    home: str | None  # the node that must be heard of it, where it is a branch's


async def submit_commit(
    connection: Connection,
    *,
    name: str,
    note: str,
    past: Held | None,
    stay: bool = False,
    running: bool = False,
    author: str,
    source: str,
) -> uuid.UUID:
    """Put in the job that makes a version of what a client wrote. Raises Problem.

    It is what was written on the client's branch, which ends, or goes on upon the new version where it is to `stay`.
    `running`: the client may be at work, and what it has flushed is what counts. Or it is a boot of the `past`.
    """
    client = (await find_client(connection, name)).client
    image = past.item.image if past else (await branches.get_branch(connection, client)).branch.image
    request = {
        "mac": client.mac,
        "lun": past.item.lun if past else BOOT_LUN,
        "boot_id": str(past.item.boot_id) if past else None,
        "note": note,
        "stay": stay,
        "running": running,
    }
    return await jobs.submit(
        connection,
        kind=KIND,
        subject=client.name,
        exclusive=f"image:{image}",
        request=request,
        author=author,
        source=source,
    )


async def _commit(work: Work) -> dict[str, Any]:
    await work.progress(0, None, "looking for what was written")
    origin = await _find_source(work)
    if len(origin.parent) >= CHAIN_LIMIT:
        raise conflict(
            f"version {origin.base} of image {origin.image} is read from {len(origin.parent)} layers, and "
            f"{CHAIN_LIMIT} is the most",
            f"merge them first: bootlink image merge {origin.image}:{origin.base}",
        )
    running = bool(work.request["running"])
    if not running:
        writebacks.require_off([origin.held], origin.client.name, "what it writes meanwhile would be lost")
    content = origin.held.item.content
    info, made = await export(
        work, origin.held, image=origin.image, parent=origin.parent, content=content, allow_flushed=running
    )
    # Looked at again: a client that has been at work since has a write-back that holds more than the version. So has
    # one that lies on another node, too; and of a node that does not answer nobody knows.
    held = [one.item for one in await writebacks.held_of(work.bus, origin.client.mac, home=origin.home)]
    now = [item for item in held if (item.content, item.policy) == (content, origin.held.item.policy)]
    is_at_work = any(item.state == AT_WORK for item in now)
    is_over = bool(now) and not is_at_work and all(writebacks.holds_all(made, item) for item in now)
    async with work.database.transaction() as connection:
        result = await _record(connection, work, origin, info, made, is_over=is_over, is_at_work=is_at_work)
        await work.finish(connection, result)
    return result


async def _find_source(work: Work) -> _Source:
    """What this job is to commit. Raises Problem."""
    mac, lun, boot_id = work.request["mac"], work.request["lun"], work.request["boot_id"]
    async with work.database.transaction() as connection:
        home = await home_of(connection, mac) if boot_id is None else None
    held = [one for one in await writebacks.held_of(work.bus, mac, home=home) if one.item.lun == lun]
    async with work.database.transaction() as connection:
        client = (await find_client(connection, mac)).client
        branch = await branches.get_branch(connection, client) if boot_id is None else None
        if branch is not None:
            found = [one for one in held if one.item.content == branch.branch.content]
            if not found:
                raise not_found(
                    f"{client.name} has written nothing on its branch of {branch.branch.image} yet",
                    "let it boot and make the changes first",
                )
            base = await connection.fetchrow(
                "SELECT * FROM versions WHERE image = $1 AND number = $2", branch.branch.image, branch.branch.base
            )
            top = base["layer"]
        else:
            found = [one for one in held if str(one.item.boot_id) == boot_id]
            if not found:
                raise no_such_boot(client.name, boot_id)
            base, top = await _lies_on(connection, found[0])
        return _Source(
            client, found[0], base["image"], base["number"], top, await layers_below(connection, top), branch, home
        )


def no_such_boot(name: str, boot_id: str) -> Problem:
    return not_found(
        f"nothing that {name} wrote in boot {boot_id} is held any more",
        f"bootlink client writebacks {name} shows what is",
    )


async def _lies_on(connection: Connection, held: Held) -> tuple[Any, uuid.UUID]:
    """The version that a write-back lies on, and the layer that it is read from. Problem if it is gone."""
    item = held.item
    content = uuid.UUID(item.content)
    found = await connection.fetchrow(
        """
        SELECT v.*, coalesce(o.layer, d.layer, v.layer) AS top FROM versions v
            LEFT JOIN branches b ON b.image = v.image AND b.base = v.number AND b.content = $1
            LEFT JOIN own_layers o ON o.image = v.image AND o.version = v.number AND o.content = $1
            LEFT JOIN dropped_writebacks d ON d.image = v.image AND d.version = v.number AND d.content = $1
        WHERE v.content = $1 OR b.mac IS NOT NULL OR o.mac IS NOT NULL OR d.mac IS NOT NULL
        """,
        content,
    )
    if found is None:
        raise conflict(
            f"version {item.version} of image {item.image}, on which boot {item.boot_id} lies, is not there as it was",
            "it cannot become a version any more",
        )
    return found, found["top"]


async def _record(
    connection: Connection,
    work: Work,
    origin: _Source,
    info: ImageInfo,
    made: ExportedLayer,
    *,
    is_over: bool,
    is_at_work: bool,
) -> dict[str, Any]:
    """Record the layer, the version and what becomes of the branch; the job's result. Raises Problem."""
    image, base, client = origin.image, origin.base, origin.client
    await versions.lock_image(connection, image)
    branch = await branches.find_branch(connection, client.mac) if origin.branch else None
    if origin.branch and (branch is None or branch.branch != origin.branch.branch):
        raise conflict(f"the branch of {client.name} was ended meanwhile", "nothing was made of it")
    await _require_as_it_was(connection, origin)
    layer = await images.add_layer(
        connection,
        info,
        layer=work.id,
        below=None if made.whole else origin.top,
        sha256=made.sha256,
        owned=True,
    )
    number = await versions.add_version(
        connection,
        image=image,
        layer=layer,
        parent=base,
        note=work.request["note"],
        author=work.author,
        from_boot=made.boot_id,
        source=work.source,
    )
    event = WritebackCommitted(
        mac=client.mac,
        client=client.name,
        boot_id=made.boot_id,
        lun=work.request["lun"],
        bytes=origin.held.item.bytes,
        image=image,
        version=number,
    )
    await outbox.record(connection, event, source=work.source)
    became, told = "unchanged", []
    if branch is not None:
        if not is_over:
            why = "is running" if is_at_work else f"may have written what is not in version {number}"
            told.append(f"{client.name} {why}, so its branch goes on, upon version {base} as before")
        elif work.request["stay"]:
            became = "moved"
            await branches.move_branch(connection, branch, number, made=made, author=work.author, source=work.source)
        else:
            became = "ended"
            await branches.close_branch(
                connection, branch, "committed", made=made, author=work.author, source=work.source
            )
    elif is_over:
        await writebacks.drop_left(connection, uuid.UUID(origin.held.item.content), made)
    beside = [
        row["number"]
        for row in await connection.fetch(
            "SELECT number FROM versions WHERE image = $1 AND number > $2 AND number < $3 ORDER BY number",
            *(image, base, number),
        )
    ]
    if beside:
        others = listed(map(str, beside), len(beside))
        told.insert(
            0,
            f"version {number} is not on top of version {others}: it lies on version {base}, and has nothing of what "
            f"is new there; publishing it takes that back",
        )
    if made.whole:
        told.append(f"the layer is a whole disk, and needs none below: {made.whole}")
    return {
        "image": image,
        "version": number,
        "parent": base,
        "file": made.path,
        "size": made.file_size,
        "branch": became,
        "beside": beside,
        "notes": told,
    }


async def _require_as_it_was(connection: Connection, origin: _Source) -> None:
    """Problem if the layers that it was made upon are not those that its base is read from any more."""
    if await layers_below(connection, origin.top) != origin.parent or await connection.fetchval(
        "SELECT retired IS NOT NULL FROM layers WHERE id = $1", origin.top
    ):
        raise conflict(f"version {origin.base} of image {origin.image} was merged meanwhile", "repeat the commit")


COMMIT: Final = JobKind(KIND, _commit)
