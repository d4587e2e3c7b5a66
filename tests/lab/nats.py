"""A real nats-server with JetStream, on a free port of 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from bootlink.engines import NatsEngine
from lab.process import Process


class NatsServer:
    """The embedded engine, as a test wants it: start, kill, start again on the same port and folder."""

    def __init__(self, folder: Path) -> None:
        self.engine = NatsEngine(folder / "nats", host="127.0.0.1", port=0)
        self.engine.prepare()
        self._configuration = json.loads((self.engine.folder / "nats-server.conf").read_text())
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
