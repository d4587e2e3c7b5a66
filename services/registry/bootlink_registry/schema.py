"""Brings the database's schema up to what this version of the registry expects, at its start.

One transaction under an advisory lock: of several registries that start at once one migrates and the others find it
done; one that is killed in the middle leaves the former schema. alembic is synchronous; SQLAlchemy's `run_sync` lets
it work on an asyncpg connection in this event loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from bootlink_registry.locks import Whole
from bootlink_runtime import StartupError

OLDEST_POSTGRES: Final = 130_000  # 13: the first with xid8 (server_version_num)


def expected() -> str:
    """The schema's revision that this version of the registry works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


async def migrate(url: str) -> None:
    """Migrate the database at `url`. StartupError if it cannot be, OSError or asyncpg's errors if it is away."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            version = int((await connection.execute(text("SHOW server_version_num"))).scalar_one())
            if version < OLDEST_POSTGRES:
                raise StartupError(
                    f"the database server is PostgreSQL {version // 10_000}", "use PostgreSQL 13 or newer"
                )
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({Whole.MIGRATION:d})"))
            await connection.run_sync(_upgrade)
    except CommandError as error:
        raise StartupError(
            f"the database was made by another version of Bootlink ({error})",
            "run that version or a newer one, or restore a dump that this version made",
        ) from error
    except DBAPIError as error:
        # SQLAlchemy wraps what asyncpg raised; callers tell an absent server from a wrong one by the original.
        raise (error.orig.__cause__ if error.orig is not None else None) or error from error
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
