"""A real nats-server with JetStream, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bootlink.engines import NatsEngine
from bootlink.engines.nats import free_port
from lab.process import Process


class NatsServer:
    """The embedded engine, as a test wants it: start, kill, start again on the same port and folder."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """`settings`: of the configuration, beside or instead of what the engine writes."""
        self.engine = NatsEngine(folder / "nats", host="127.0.0.1", port=0)
        self.engine.prepare()
        file = self.engine.folder / "nats-server.conf"
        self._configuration = json.loads(file.read_text()) | settings
        file.write_text(json.dumps(self._configuration))
        self._process = Process(self.engine.command, log=folder / "nats-server.log")

    @property
    def url(self) -> str:
        return self.engine.url

    def start(self) -> None:
        self._process.start(self.engine.answers)

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self._process.stop()

    def reload(self, **settings: Any) -> None:
        """Have the running server read its configuration again, with these settings besides."""
        file = self.engine.folder / "nats-server.conf"
        file.write_text(json.dumps(self._configuration | settings))
        os.kill(self._process.pid, signal.SIGHUP)

    def lose_store(self) -> None:
        """Kill the server and delete all that it has stored."""
        self.kill()
        shutil.rmtree(self.engine.folder / "store")

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextlib.contextmanager
def cluster(folder: Path, size: int = 3) -> Iterator[list[NatsServer]]:
    """A cluster of real servers, each with a store of its own."""
    ports = [free_port("127.0.0.1") for _ in range(size)]
    routes = [f"nats-route://127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        servers = []
        for n, port in enumerate(ports):
            (folder / f"server-{n}").mkdir()
            shared = {"name": "lab", "listen": f"127.0.0.1:{port}", "routes": routes}
            servers.append(NatsServer(folder / f"server-{n}", server_name=f"server-{n}", cluster=shared))
        for server in servers:
            stack.enter_context(server)
        yield servers
