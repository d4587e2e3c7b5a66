"""Servers that tests share, each real, on 127.0.0.1 or a Unix socket, and gone when the tests are; and how hypothesis
runs: by its examples alone. Its time limits would be assertions of speed, and fail on a busy machine.

A shell that runs the tests in the background has them, and all that they start, ignore SIGINT. That is undone: some
tests press Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lab.nats import NatsServer
from lab.netns import Cable
from lab.postgres import PostgresServer
from lab.up import Up

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A running nats-server of this test's own, with an empty store."""
    with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL for the whole run."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    """The URL of a database of this test's own: the registry's schema, and nothing in it."""
    return postgres.new_registry_database()


@pytest.fixture
def empty_database(postgres: PostgresServer) -> str:
    """The URL of an empty database of this test's own, which nobody has migrated."""
    return postgres.new_database()


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """A running `bootlink up` with registry and blockstore, for tests of the command that leave it working."""
    with Up() as system:
        yield system


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Two network namespaces and a wire between them: a server's end and a PC's."""
    with Cable() as made:
        yield made
