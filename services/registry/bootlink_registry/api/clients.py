"""/v1/clients"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from bootlink_registry import branches, clients, enrolment, homes, journal, waking
from bootlink_registry.api.context import PAGE, After, Changing, Context, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.boots import BootAnswer
from bootlink_registry.api.models.branches import BranchAnswer
from bootlink_registry.api.models.clients import (
    ClientAnswer,
    ClientChange,
    ClientDetail,
    NewClient,
    PlanAnswer,
    WokenAnswer,
)
from bootlink_registry.api.models.links import ResolvedLink
from bootlink_registry.compiler import BOOT_LUN, compile_plan, disks_of, version_of
from bootlink_registry.database import Connection
from bootlink_registry.plans import last_revision
from bootlink_registry.problems import invalid
from bootlink_registry.rows import read_catalogue

router = APIRouter(tags=["clients"])


@router.post("/clients", status_code=201, responses={200: {"model": ClientAnswer}, 409: {}})
async def add_client(body: NewClient, registry: Registry, response: Response) -> ClientAnswer:
    """Add a client. One that had enrolled itself is taken over, and the answer is 200."""
    async with registry.database.transaction() as connection:
        row, is_new = await clients.add_client(
            connection,
            mac=body.mac,
            name=body.name,
            group=body.group,
            address=body.address,
            note=body.note,
            pattern=(await enrolment.read_rule(connection, registry.first_rule)).pattern,
            author=registry.author,
            source=registry.source,
        )
    response.headers["Location"] = f"/v1/clients/{row.client.name}"
    if not is_new:
        response.status_code = 200
    return registry.shown(ClientAnswer.of(row))


@router.get("/clients")
async def list_clients(
    registry: Registry,
    group: Annotated[str | None, Query(description="only this group's")] = None,
    limit: Limit = PAGE,
    after: After = "",
) -> Page[ClientAnswer]:
    """All clients, by name."""
    async with registry.database.transaction() as connection:
        found = await clients.list_clients(connection, group=group, after=after, limit=limit)
    more = found[-1].client.name if len(found) == limit else None
    return Page(items=[ClientAnswer.of(row) for row in found], next=more)


@router.get("/clients/{name_or_mac}", responses={404: {}})
async def show_client(name_or_mac: str, registry: Registry) -> ClientDetail:
    """One client: the link that decides what it boots, its plan, and its last boot."""
    async with registry.database.transaction(isolation="repeatable_read") as connection:
        return registry.shown(await _detail(connection, registry, await clients.find_client(connection, name_or_mac)))


@router.patch("/clients/{name_or_mac}", responses={404: {}, 409: {}})
async def change_client(name_or_mac: str, body: ClientChange, registry: Changing) -> ClientAnswer:
    """Change a client's name, group, reserved address, note, or whether it may boot."""
    changes = {field: getattr(body, field) for field in body.model_fields_set}
    if changes.get("name", "a name") == "":
        raise invalid("the name is empty", "give a name, or leave it out")
    async with registry.change(lambda c: _client(c, name_or_mac)) as connection:
        return registry.shown(
            ClientAnswer.of(
                await clients.change_client(
                    connection, name_or_mac, changes, author=registry.author, source=registry.source
                )
            )
        )


@router.delete("/clients/{name_or_mac}", status_code=204, responses={404: {}, 409: {}})
async def remove_client(name_or_mac: str, registry: Changing) -> None:
    """Take a client away, with its own links. If it asks again, it is an unknown PC.

    What runs goes on until the PC is switched off, and what it keeps on a block store stays there.
    """
    async with registry.change(lambda c: _client(c, name_or_mac)) as connection:
        await clients.remove_client(connection, name_or_mac, author=registry.author, source=registry.source)


@router.delete("/clients/{name_or_mac}/home", status_code=204, responses={404: {}, 409: {}})
async def leave_node(name_or_mac: str, registry: Registry) -> None:
    """Give up what a client keeps on a block store that is silent: its next boot begins empty on another one.

    Should that block store come back, what lies there can be made a version of by its boot. Refused while it runs.
    """
    live = [info.node for info in registry.nodes.nodes.all]
    async with registry.database.transaction() as connection:
        client = (await clients.find_client(connection, name_or_mac)).client
        await homes.leave(connection, client.mac, client.name, live)


@router.post("/clients/{name_or_mac}/wake", responses={404: {}})
async def wake_client(name_or_mac: str, registry: Registry) -> WokenAnswer:
    """Send a client the magic packet of Wake-on-LAN. Whether it wakes, its next boot tells."""
    async with registry.database.transaction() as connection:
        client = (await clients.find_client(connection, name_or_mac)).client
    sent, failed = await waking.wake(registry.bus, client.mac)
    return WokenAnswer.of(client, sent, failed)


async def _detail(connection: Connection, registry: Context, row: clients.ClientRow) -> ClientDetail:
    """The plan is compiled here and now, so that it is true also while NATS is away and it cannot be delivered."""
    client = row.client
    catalogue = await read_catalogue(connection, registry.delivery.serving, [client.mac])
    disks = [ResolvedLink.of(link, version_of(catalogue, link)) for link in disks_of(catalogue, client).values()]
    last = await last_revision(connection, client.mac)
    plan = compile_plan(catalogue, client, revision=last or 1)
    branch = await branches.find_branch(connection, client.mac)
    boots = await journal.list_boots(connection, mac=client.mac, before=None, limit=1)
    return ClientDetail(
        **dict(ClientAnswer.of(row)),
        link=next((disk for disk in disks if disk.lun == BOOT_LUN), None),
        disks=disks,
        branch=BranchAnswer.of(branch) if branch is not None else None,
        plan=PlanAnswer.of(
            plan,
            revision=last,
            delivered=last is not None and registry.delivery.delivered(plan),
        ),
        last_boot=BootAnswer.of(boots[0]) if boots else None,
    )


async def _client(connection: Connection, name_or_mac: str) -> ClientAnswer:
    return ClientAnswer.of(await clients.find_client(connection, name_or_mac))
