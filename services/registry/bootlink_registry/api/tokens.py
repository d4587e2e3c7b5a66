"""/v1/tokens"""

from __future__ import annotations

from fastapi import APIRouter, Response

from bootlink_registry import tokens
from bootlink_registry.api.context import PAGE, After, Changing, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.tokens import MadeToken, NewToken, TokenAnswer
from bootlink_registry.database import Connection

router = APIRouter(prefix="/tokens", tags=["tokens"])


@router.post("", status_code=201, responses={409: {}})
async def add_token(body: NewToken, registry: Registry, response: Response) -> MadeToken:
    """Make a token for a person or a program. It is in this answer, and in no other."""
    async with registry.database.transaction() as connection:
        row, token = await tokens.add_token(
            connection,
            name=body.name,
            role=body.role,
            note=body.note,
            expires=body.expires,
            author=registry.author,
            source=registry.source,
        )
    await registry.tokens.load()
    response.headers["Location"] = f"/v1/tokens/{body.name}"
    return registry.shown(MadeToken(**MadeToken.fields_of(row), token=token))


@router.get("")
async def list_tokens(registry: Registry, limit: Limit = PAGE, after: After = "") -> Page[TokenAnswer]:
    """All tokens, by name."""
    async with registry.database.transaction() as connection:
        found = await tokens.list_tokens(connection, after=after, limit=limit)
    more = found[-1].identity.name if len(found) == limit else None
    return Page(items=[TokenAnswer.of(row) for row in found], next=more)


@router.get("/{name}", responses={404: {}})
async def show_token(name: str, registry: Registry) -> TokenAnswer:
    """One token."""
    async with registry.database.transaction() as connection:
        return registry.shown(TokenAnswer.of(await tokens.get_token(connection, name)))


@router.delete("/{name}", status_code=204, responses={404: {}})
async def remove_token(name: str, registry: Changing) -> None:
    """Take a token away. Requests with it are refused from now on; at another registry in a few seconds."""
    async with registry.change(lambda c: _token(c, name)) as connection:
        await tokens.remove_token(connection, name, author=registry.author, source=registry.source)
    await registry.tokens.load()


async def _token(connection: Connection, name: str) -> TokenAnswer:
    return TokenAnswer.of(await tokens.get_token(connection, name))
