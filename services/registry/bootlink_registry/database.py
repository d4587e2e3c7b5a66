"""The connection to PostgreSQL: a pool, and the knowledge whether the server is there.

How it works. Every piece of work is one transaction on a pooled connection. When the server goes away, whoever works
gets `DatabaseAway`; a watch, which asks the server every few seconds and at once when somebody got that error, says
when it is back. So the API answers 503 in the meantime, background tasks wait for `until_up`, and nobody has to be
restarted. What was wrong from the start (address, password, database) ends the service with one line instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, Protocol

import asyncpg

from bootlink_registry import schema
from bootlink_runtime import Logger, StartupError, ended

POOL_SIZE: Final = 10  # connections; the embedded PostgreSQL allows 40 for all
CONNECT_SECONDS: Final = 5.0
COMMAND_SECONDS: Final = 15.0  # the longest any statement of ours may take
RETRY_SECONDS: Final = 0.5  # between tries while the server is away
WATCH_SECONDS: Final = 3.0  # between looks while it is there
SAY_AGAIN_SECONDS: Final = 10.0  # between log lines while it stays away for the same reason

_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg 0.32 on a connection that breaks while it looks a type up
    asyncpg.OperatorInterventionError,  # shutdown, crash of another backend, or starting up
    asyncpg.InsufficientResourcesError,  # too many connections, out of disk or memory
)

_WRONG: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (asyncpg.InvalidPasswordError, "PostgreSQL refuses the password", "correct it in BOOTLINK_DATABASE_URL"),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "PostgreSQL refuses the user",
        "correct BOOTLINK_DATABASE_URL, or create the user: createuser",
    ),
    (asyncpg.InvalidCatalogNameError, "PostgreSQL has no such database", "create it: createdb bootlink"),
    (
        asyncpg.InsufficientPrivilegeError,
        "PostgreSQL does not let this user make tables",
        "give it the database: ALTER DATABASE bootlink OWNER TO bootlink",
    ),
)


class DatabaseAway(Exception):
    """PostgreSQL did not answer. What was asked may or may not have been done."""


class Connection(Protocol):
    """What we use of an asyncpg connection, pooled or not. Rows answer to `row["column"]`."""

    async def execute(self, query: str, *args: Any) -> str: ...
    async def executemany(self, query: str, args: Any) -> None: ...
    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any) -> Any: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    def transaction(self, *, isolation: str | None = None) -> Any: ...


class Database:
    """The registry's database."""

    def __init__(self, url: str, log: Logger) -> None:
        self.problem = "not connected yet"
        self.migrated = False
        self._url = url
        self._log = log
        self._pool: Any = None
        self._up = asyncio.Event()
        self._away = asyncio.Event()
        self._away.set()
        self._suspected = asyncio.Event()

    # -- state --------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    def check(self) -> tuple[bool, str]:
        """For readiness: whether the server answers."""
        return (True, "connected") if self.is_up else (False, self.problem)

    def check_schema(self) -> tuple[bool, str]:
        """For readiness: whether the schema is this version's."""
        return (True, f"schema {schema.expected()}") if self.migrated else (False, "the schema was not looked at yet")

    async def until_up(self) -> None:
        await self._up.wait()

    async def recovered(self) -> None:
        """After a DatabaseAway: wait a moment, and then until the server answers."""
        await asyncio.sleep(RETRY_SECONDS)
        await self._up.wait()

    async def until_away(self) -> None:
        await self._away.wait()

    async def while_up(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something without an end, for ever, except while the server is away."""
        while True:
            await self.until_up()
            working = asyncio.create_task(work(), name="work while the database is up")
            away = asyncio.create_task(self.until_away(), name="database away")
            try:
                await asyncio.wait({working, away}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    working.result()
            finally:
                await ended(working, away)

    def _is_away(self, error: BaseException) -> None:
        self.problem = f"PostgreSQL does not answer: {_reason(error)}"
        if self._up.is_set():
            self._log.warning("database away", problem=self.problem)
        self._up.clear()
        self._away.set()

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and migrate, waiting for a server that is not there yet. StartupError where waiting is no cure."""
        said, said_at = "", 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._try()
                await schema.migrate(self._url)
                break
            except Exception as error:
                _raise_if_wrong(error)
                if not isinstance(error, _AWAY):
                    raise
                self._is_away(error)
                if self.problem != said or loop.time() - said_at > SAY_AGAIN_SECONDS:
                    said, said_at = self.problem, loop.time()
                    self._log.warning(
                        "waiting for the database", problem=said, remedy="start it, or correct BOOTLINK_DATABASE_URL"
                    )
                await asyncio.sleep(RETRY_SECONDS)
        self.migrated = True
        self._pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=POOL_SIZE,
            command_timeout=COMMAND_SECONDS,
            timeout=CONNECT_SECONDS,
            init=_prepare,
        )
        await self._pool
        self._is_back()

    async def _try(self) -> None:
        """Connect and disconnect. Raises what asyncpg raises; StartupError for a URL that it cannot read."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await asyncpg.connect(self._url)
                await connection.close()
        except ValueError as error:
            raise StartupError(
                f"BOOTLINK_DATABASE_URL is no database URL ({_reason(error)})",
                "write it like postgresql://bootlink:secret@db.example:5432/bootlink",
            ) from error

    def _is_back(self) -> None:
        self._suspected.clear()
        self._away.clear()
        self._up.set()
        self._log.info("database connected")

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.terminate()

    async def watch(self) -> None:
        """Keep `is_up` true to the facts, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS if self.is_up else RETRY_SECONDS):
                    await self._suspected.wait()
            try:
                await self._try()
            except (*_AWAY, asyncpg.PostgresError) as error:
                self._suspected.clear()
                self._is_away(error)
                continue
            if not self.is_up:
                # What is left in the pool belongs to the former server process.
                await self._pool.expire_connections()
                self._is_back()
            self._suspected.clear()

    # -- work ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def transaction(self, *, isolation: str | None = None) -> AsyncIterator[Connection]:
        """One transaction, committed at the end of the block. DatabaseAway if the server goes away under it."""
        if self._pool is None:
            raise DatabaseAway(self.problem)
        try:
            async with (
                self._pool.acquire(timeout=CONNECT_SECONDS) as connection,
                connection.transaction(isolation=isolation),
            ):
                yield connection
        except _AWAY as error:
            self._suspected.set()
            raise DatabaseAway(f"PostgreSQL does not answer: {_reason(error)}") from error

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """A connection outside the pool, for a LISTEN or a session's lock. DatabaseAway as above."""
        try:
            connection = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS)
            try:
                await _prepare(connection)
                yield connection
            finally:
                connection.terminate()
        except _AWAY as error:
            self._suspected.set()
            raise DatabaseAway(f"PostgreSQL does not answer: {_reason(error)}") from error


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


def _raise_if_wrong(error: Exception) -> None:
    for kind, problem, remedy in _WRONG:
        if isinstance(error, kind):
            raise StartupError(f"{problem} ({_reason(error)})", remedy) from error


def _reason(error: BaseException) -> str:
    """In a line; of the system's errors without their number."""
    words = str(getattr(error, "strerror", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__
