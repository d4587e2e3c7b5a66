"""A real PostgreSQL on a Unix socket, made once per test run; each test gets a database of its own.

Most tests need the registry's schema, and migrating takes longer than copying a database that was migrated once.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bootlink.engines import PostgresEngine
from bootlink.engines.nats import free_port
from bootlink_registry import schema
from lab.process import Process


class PostgresServer:
    """The embedded engine without fsync, unless it is to be `durable`: tests kill processes, not machines."""

    def __init__(self, *, durable: bool = False) -> None:
        # A Unix socket's path is short, and pytest's folders are long.
        self.folder = Path(tempfile.mkdtemp(prefix="bl-pg-"))
        self.engine = PostgresEngine(self.folder / "pg", durable=durable)
        self.engine.prepare()
        self._process = Process(
            self.engine.command, log=self.folder / "postgres.log", stop_signal=self.engine.stop_signal
        )
        self._databases = 0
        self._template = ""

    @property
    def url(self) -> str:
        return self.engine.url

    def start(self) -> None:
        self._process.start(self.engine.answers)

    def kill(self) -> None:
        self._process.kill()

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        return self._create("")

    def new_registry_database(self) -> str:
        """The URL of a fresh database with the registry's schema, and nothing in it."""
        if not self._template:
            url = self._create("")
            with ThreadPoolExecutor(1) as thread:  # the caller's own may have an event loop
                thread.submit(asyncio.run, schema.migrate(url)).result()
            self._template = f"test_{self._databases}"
        return self._create(f"TEMPLATE {self._template}")

    def _create(self, how: str) -> str:
        self._databases += 1
        name = f"test_{self._databases}"
        done = self.engine._psql("-qc", f"CREATE DATABASE {name} {how}")
        assert done.returncode == 0, done.stderr
        return self.engine.url.replace("/bootlink?", f"/{name}?")

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class OwnServer(PostgresServer):
    """A server as a user has one already: reached over TCP, and by a user with a password and no more rights than to
    the database `own`."""

    PASSWORD = "s3cret-of-the-lab"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port("127.0.0.1")
        cluster = self.folder / "pg" / "cluster"
        (cluster / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        self._process.command += ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}"]

    @property
    def url(self) -> str:
        return f"postgresql://someone:{self.PASSWORD}@127.0.0.1:{self.port}/own"

    def start(self) -> None:
        self._process.start(lambda: self._run("SELECT 1"))
        self._run(f"CREATE ROLE someone LOGIN PASSWORD '{self.PASSWORD}'")
        self._run("CREATE DATABASE own OWNER someone")

    def _run(self, statement: str) -> bool:
        return self.engine._psql("-p", str(self.port), "-qc", statement).returncode == 0
