"""Below /v1/clients: a client's own layer, and its rebase to another version."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from bootlink_registry import own_layers, rebasing, writebacks
from bootlink_registry.api.context import Context, Registry
from bootlink_registry.api.links import WhichLun
from bootlink_registry.api.models.links import LinkAnswer
from bootlink_registry.api.models.own_layers import OwnLayerAnswer, Rebase
from bootlink_registry.catalogue import Client
from bootlink_registry.clients import find_client
from bootlink_registry.homes import home_of
from bootlink_registry.own_layers import OwnLayerRow

router = APIRouter(prefix="/clients/{name_or_mac}/own-layer", tags=["own layers"])


@router.get("", responses={404: {}})
async def show_own_layer(name_or_mac: str, registry: Registry, lun: WhichLun = 0) -> OwnLayerAnswer:
    """What a client has of its own over a version of an image."""
    _, own = await _found(registry, name_or_mac, lun)
    return OwnLayerAnswer.of(own, await _unsealed(registry, own))


@router.post("/rebase", responses={404: {}, 409: {}})
async def rebase(name_or_mac: str, body: Rebase, registry: Registry, lun: WhichLun = 0) -> LinkAnswer:
    """Begin an empty own layer upon another version of the image. What there was cannot be carried there; it is held
    for some days, and can be taken back.

    Refused, with what would be lost, unless `accept_loss` is set or there is nothing to lose.
    """
    client, own = await _found(registry, name_or_mac, lun)
    unsealed = 0 if body.accept_loss or body.undo else await _unsealed(registry, own)
    async with registry.database.transaction() as connection:
        link = await rebasing.rebase(
            connection,
            client,
            lun,
            channel=body.channel,
            version=body.version,
            undo=body.undo,
            accept_loss=body.accept_loss,
            unsealed=unsealed,
            author=registry.author,
            source=registry.source,
        )
    return LinkAnswer.of(link)


@router.delete("", status_code=204, responses={404: {}, 409: {}})
async def drop_own_layer(
    name_or_mac: str,
    registry: Registry,
    lun: WhichLun = 0,
    accept_loss: Annotated[bool, Query(description="throw it away also where it holds something")] = False,
) -> None:
    """Throw away a client's own layer that no link names."""
    client, own = await _found(registry, name_or_mac, lun)
    unsealed = 0 if accept_loss else await _unsealed(registry, own)
    async with registry.database.transaction() as connection:
        await own_layers.drop(connection, client, lun, accept_loss=accept_loss, unsealed=unsealed)


async def _found(registry: Context, name_or_mac: str, lun: int) -> tuple[Client, OwnLayerRow]:
    async with registry.database.transaction() as connection:
        client = (await find_client(connection, name_or_mac)).client
        return client, await own_layers.get_own_layer(connection, client, lun)


async def _unsealed(registry: Context, own: OwnLayerRow) -> int:
    async with registry.database.transaction() as connection:
        home = await home_of(connection, own.mac)
    return own_layers.written(own, await writebacks.held_of(registry.bus, own.mac, home=home))
