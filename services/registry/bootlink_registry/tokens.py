"""API tokens: who may use the API, and as what.

A token is 256 random bits; the database keeps its SHA-256, so that neither a dump of it nor a look into it gives a
token away. (A slow hash guards passwords, which can be guessed; these cannot.) All tokens are in memory: a request
costs no query, and tokens go on working while PostgreSQL is away. They are read anew after each change that this
registry makes, and every REFRESH_SECONDS for those that another one made; that long a token that was taken away may
still work there.

One token is in no table: the administrator's of BOOTLINK_ADMIN_TOKEN, with which everything begins.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import asyncpg

from bootlink_events import TokenChanged
from bootlink_registry import outbox
from bootlink_registry.database import Connection, Database, DatabaseAway
from bootlink_registry.locks import Whole
from bootlink_registry.problems import Problem, conflict, invalid, not_found
from bootlink_runtime import Logger, StartupError

Role = Literal["viewer", "operator", "admin"]
"""What a token may do. Each may do what those before it may."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)
ADMIN: Final = "admin"  # the name of the token in BOOTLINK_ADMIN_TOKEN, as author of changes
PREFIX: Final = "blt_"  # so that a token is known for one where it turns up, and by programs that look for leaked ones
TOKEN_BYTES: Final = 32  # random ones: 256 bits
TOKEN_LENGTH_MIN: Final = 32  # characters of an administrator's own token; 128 bits if they are hexadecimal digits
TOKEN_LENGTH_MAX: Final = 256  # characters; a longer one is none, and is not hashed
TOKENS_LIMIT: Final = 1_000  # all are in memory
REFRESH_SECONDS: Final = 5.0
USED_SECONDS: Final = 60.0  # when a token was last used is written down this often


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this is a `role`, or more."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as the database knows it."""

    identity: Identity
    note: str
    created: datetime
    expires: datetime | None
    used: datetime | None  # to a minute or so
    hash: str

    def holds(self, now: datetime) -> bool:
        return self.expires is None or now < self.expires


def hash_of(token: str) -> str:
    """What is kept of a token: its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The tokens that hold now."""

    def __init__(self, database: Database, admin_token: str, log: Logger) -> None:
        """`admin_token` may be empty. StartupError if it is too short or too long to be one."""
        self._database = database
        self._log = log
        self._admin_hash = _checked(admin_token)
        self._rows: dict[str, TokenRow] | None = None
        self._used: dict[str, datetime] = {}

    @property
    def loaded(self) -> bool:
        """Whether the database was read yet: before that only the administrator's token is known."""
        return self._rows is not None

    def identify(self, token: str) -> Identity | None:
        """Whose token this is; None if it is nobody's, or holds no more.

        What is compared are hashes: how long that takes says nothing of the tokens that there are.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            return None
        found = hash_of(token)
        if self._admin_hash is not None and hmac.compare_digest(found, self._admin_hash):
            return Identity(ADMIN, "admin")
        row = (self._rows or {}).get(found)
        now = datetime.now(UTC)
        if row is None or not row.holds(now):
            return None
        self._used[row.identity.name] = now
        return row.identity

    async def load(self) -> None:
        """Read the tokens. Raises DatabaseAway."""
        async with self._database.transaction() as connection:
            rows = await list_tokens(connection)
        self._rows = {row.hash: row for row in rows}

    async def open(self) -> None:
        """Read them for the first time, whenever the database answers."""
        while not self.loaded:
            try:
                await self.load()
            except DatabaseAway:
                await self._database.recovered()
        if self._admin_hash is None and not self._rows:
            self._log.warning(
                "nobody can use the API",
                problem="there is no token",
                remedy="set BOOTLINK_ADMIN_TOKEN or BOOTLINK_ADMIN_TOKEN_FILE; make one: openssl rand -hex 32",
            )

    async def watch(self) -> None:
        """Keep them true to the database, for ever."""
        now = asyncio.get_running_loop().time
        written = now()
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                if now() - written >= USED_SECONDS:
                    written = now()
                    await self._write_used()
                await self.load()
            except DatabaseAway:
                await self._database.recovered()

    async def _write_used(self) -> None:
        used, self._used = self._used, {}
        if used:
            async with self._database.transaction() as connection:
                await connection.executemany("UPDATE tokens SET used = $2 WHERE name = $1", list(used.items()))


def _checked(admin_token: str) -> str | None:
    if not admin_token:
        return None
    if not TOKEN_LENGTH_MIN <= len(admin_token) <= TOKEN_LENGTH_MAX:
        raise StartupError(
            f"the administrator's token has {len(admin_token)} characters; "
            f"it needs {TOKEN_LENGTH_MIN} at least, and {TOKEN_LENGTH_MAX} at most",
            "make one for BOOTLINK_ADMIN_TOKEN: openssl rand -hex 32",
        )
    return hash_of(admin_token)


async def add_token(
    connection: Connection, *, name: str, role: Role, note: str, expires: datetime | None, author: str, source: str
) -> tuple[TokenRow, str]:
    """Make a token. The second value is the token itself, which is told this once. Raises Problem."""
    if name == ADMIN:
        raise conflict(f"{ADMIN!r} is the name of the token in BOOTLINK_ADMIN_TOKEN", "choose another name")
    if expires is not None and expires <= datetime.now(UTC):
        raise invalid(f"it would have expired already, at {expires.isoformat()}", "give a time to come")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", Whole.TOKENS)
    if await connection.fetchval("SELECT count(*) FROM tokens") >= TOKENS_LIMIT:
        raise conflict(
            f"there are {TOKENS_LIMIT} tokens, which is the limit",
            "remove those that nobody uses: bootlink token list, bootlink token remove NAME",
        )
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    try:
        row = await connection.fetchrow(
            "INSERT INTO tokens (name, role, hash, note, expires) VALUES ($1, $2, $3, $4, $5) RETURNING *",
            *(name, role, hash_of(token), note, expires),
        )
    except asyncpg.UniqueViolationError as error:
        raise conflict(f"there is a token {name!r} already", "choose another name, or remove that token") from error
    await _tell(connection, _row(row), "added", author=author, source=source)
    return _row(row), token


async def remove_token(connection: Connection, name: str, *, author: str, source: str) -> None:
    """Take a token away. Raises Problem."""
    row = await connection.fetchrow("DELETE FROM tokens WHERE name = $1 RETURNING *", name)
    if row is None:
        raise _no_such(name)
    await _tell(connection, _row(row), "removed", author=author, source=source)


async def get_token(connection: Connection, name: str) -> TokenRow:
    """One token. Raises Problem."""
    row = await connection.fetchrow("SELECT * FROM tokens WHERE name = $1", name)
    if row is None:
        raise _no_such(name)
    return _row(row)


async def list_tokens(connection: Connection, *, after: str = "", limit: int = TOKENS_LIMIT) -> list[TokenRow]:
    """Tokens by name, after the given name."""
    found: Iterable[Any] = await connection.fetch(
        "SELECT * FROM tokens WHERE name > $1 ORDER BY name LIMIT $2", after, limit
    )
    return [_row(row) for row in found]


async def _tell(
    connection: Connection, row: TokenRow, change: Literal["added", "removed"], *, author: str, source: str
) -> None:
    event = TokenChanged(
        name=row.identity.name,
        role=row.identity.role,
        change=change,
        expires=row.expires,
        author=author,
        at=datetime.now(UTC),
    )
    await outbox.record(connection, event, source=source)


def _no_such(name: str) -> Problem:
    return not_found(f"there is no token {name!r}", "bootlink token list shows the tokens there are")


def _row(row: Any) -> TokenRow:
    return TokenRow(
        identity=Identity(row["name"], row["role"]),
        note=row["note"],
        created=row["created"],
        expires=row["expires"],
        used=row["used"],
        hash=row["hash"],
    )
