"""/v1/branches, and what makes and ends them below /v1/clients: super, commit, abandon, undo."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from bootlink_events import BootId
from bootlink_registry import branches, commits, undo, writebacks
from bootlink_registry.api.context import PAGE, After, Changing, Context, Limit, Registry
from bootlink_registry.api.jobs import accepted
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.branches import BootToUndo, BranchAnswer, NewBranch, NewCommit, WritebackAnswer
from bootlink_registry.api.models.jobs import JobAnswer
from bootlink_registry.catalogue import Client
from bootlink_registry.clients import find_client
from bootlink_registry.database import Connection
from bootlink_registry.writebacks import Held

router = APIRouter(tags=["super clients"])


@router.get("/branches")
async def list_branches(
    registry: Registry,
    image: Annotated[str | None, Query(description="only those of this image")] = None,
    limit: Limit = PAGE,
    after: After = "",
) -> Page[BranchAnswer]:
    """The super clients, by name."""
    async with registry.database.transaction() as connection:
        found = await branches.list_branches(connection, image=image, after=after, limit=limit)
    more = found[-1].client if len(found) == limit else None
    return Page(items=[BranchAnswer.of(row) for row in found], next=more)


@router.get("/clients/{name_or_mac}/branch", responses={404: {}})
async def show_branch(name_or_mac: str, registry: Registry) -> BranchAnswer:
    """The branch that a super client is on."""
    async with registry.database.transaction() as connection:
        client = (await find_client(connection, name_or_mac)).client
        return registry.shown(BranchAnswer.of(await branches.get_branch(connection, client)))


@router.put("/clients/{name_or_mac}/branch", responses={201: {"model": BranchAnswer}, 404: {}, 409: {}})
async def open_branch(name_or_mac: str, body: NewBranch, registry: Changing, response: Response) -> BranchAnswer:
    """Make a client a super client, from its next boot on: it boots one version of an image, whatever its links say,
    and what it writes survives its reboots until it is committed or abandoned.

    Refused while it is on another branch.
    """
    async with registry.change(lambda c: _branch(c, name_or_mac)) as connection:
        row, is_new = await branches.open_branch(
            connection,
            name=name_or_mac,
            image=body.image,
            channel=body.channel,
            version=body.version,
            author=registry.author,
            source=registry.source,
        )
    if is_new:
        response.status_code = 201
    return registry.shown(BranchAnswer.of(row))


@router.delete("/clients/{name_or_mac}/branch", status_code=204, responses={404: {}, 409: {}})
async def abandon_branch(name_or_mac: str, registry: Changing) -> None:
    """Make a super client an ordinary one again, from its next boot on. What it wrote is thrown away once it is off."""
    async with registry.change(lambda c: _branch(c, name_or_mac)) as connection:
        await branches.abandon_branch(connection, name_or_mac, author=registry.author, source=registry.source)


@router.post("/clients/{name_or_mac}/commit", status_code=202, responses={404: {}, 409: {}})
async def commit(name_or_mac: str, body: NewCommit, registry: Registry, response: Response) -> JobAnswer:
    """Make a new version of what a super client wrote, or of what a client wrote in a boot of the past.

    No channel moves. The job's result tells the version, what became of the branch, and in `notes` what to know: above
    all whether the version is on top of the newest one.
    """
    past = None
    if body.boot_id is not None:
        client = await _client(registry, name_or_mac)
        held = await writebacks.held_of(registry.bus, client.mac)
        past = next((one for one in held if (one.item.boot_id, one.item.lun) == (body.boot_id, body.lun)), None)
        if past is None:
            raise commits.no_such_boot(client.name, str(body.boot_id))
    async with registry.database.transaction() as connection:
        job = await commits.submit_commit(
            connection,
            name=name_or_mac,
            note=body.note,
            past=past,
            stay=body.stay,
            running=body.running,
            author=registry.author,
            source=registry.source,
        )
        return await accepted(connection, job, response)


@router.get("/clients/{name_or_mac}/writebacks", responses={404: {}})
async def list_writebacks(name_or_mac: str, registry: Registry) -> list[WritebackAnswer]:
    """What the block stores hold of a client's writes, the newest boot first."""
    client = await _client(registry, name_or_mac)
    return await _answers(registry, client, await writebacks.held_of(registry.bus, client.mac))


@router.delete("/clients/{name_or_mac}/writebacks/{boot_id}", status_code=204, responses={404: {}})
async def throw_away(name_or_mac: str, boot_id: UUID, registry: Registry) -> None:
    """Throw away what a client wrote after a layer was made of its write-back, and that was left for that reason. It is
    gone once the client is off."""
    client = await _client(registry, name_or_mac)
    held = await writebacks.held_of(registry.bus, client.mac)
    contents = [one.item.content for one in held if one.item.boot_id == boot_id and one.item.policy != "discard"]
    async with registry.database.transaction() as connection:
        await writebacks.throw_away(connection, client.name, boot_id, contents)


@router.post("/clients/{name_or_mac}/undo-reboot", responses={404: {}, 409: {}})
async def undo_reboot(name_or_mac: str, body: BootToUndo, registry: Registry) -> list[WritebackAnswer]:
    """Give a client's next boot back what it wrote in a boot whose write-back was discarded; what comes back."""
    client = await _client(registry, name_or_mac)
    boot_id = BootId(int=body.boot_id.int) if body.boot_id is not None else None
    back = await undo.undo_reboot(registry.bus, registry.database, client.mac, client.name, boot_id)
    return await _answers(registry, client, back)


async def _answers(registry: Context, client: Client, held: list[Held]) -> list[WritebackAnswer]:
    async with registry.database.transaction() as connection:
        left = await writebacks.left_of(connection, client.mac)
    return [WritebackAnswer.of(one, is_left=one.item.content in left and one.item.policy != "discard") for one in held]


async def _client(registry: Context, name_or_mac: str) -> Client:
    async with registry.database.transaction() as connection:
        return (await find_client(connection, name_or_mac)).client


async def _branch(connection: Connection, name_or_mac: str) -> BranchAnswer:
    client = (await find_client(connection, name_or_mac)).client
    return BranchAnswer.of(await branches.get_branch(connection, client))
