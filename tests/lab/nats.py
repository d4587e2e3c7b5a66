"""A real nats-server with JetStream, on a free port of 127.0.0.1.

It knows the services as the embedded one does, by keys with just what each may do, and all services in tests show
theirs: whoever imports this module has the folder of the keys in the environment, for itself and its child processes.
So every test of a service is a test of its permissions, too. The URL carries the name and password of a user who may
do everything, for what tests do besides; so does a key for services that exist in tests alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bootlink.engines import NatsEngine
from bootlink.engines.nats import ServerTls, free_port
from bootlink.engines.nats_keys import ACCOUNT, FIRST_INTEGRATION, NatsKeys
from bootlink_runtime.access import access, new_key, public_key_of
from lab.process import Process

TESTER: Final = "tester"
_FOLDER: Final = Path(tempfile.mkdtemp(prefix="bl-nats-keys-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_ALL: Final = new_key()
for _name in ("probe",):
    (_FOLDER / f"{_name}.nk").write_text(_ALL)
NatsKeys(_FOLDER).make()  # a service shows its key also in a test without a server
os.environ["BOOTLINK_NATS_CREDENTIALS_FILE"] = str(_FOLDER)


class LabEngine(NatsEngine):
    """The embedded engine, with the keys of this run and a user who may do everything."""

    def __init__(self, folder: Path, *, tls: ServerTls | None = None) -> None:
        super().__init__(folder, host="127.0.0.1", port=0, tls=tls)
        self.keys = NatsKeys(_FOLDER)

    @property
    def bare_url(self) -> str:
        """Without the user who may do everything."""
        return super().url

    @property
    def url(self) -> str:
        return super().url.replace("://", f"://{TESTER}:{TESTER}@")

    def prepare(self) -> None:
        super().prepare()
        file = self.folder / "nats-server.conf"
        told = json.loads(file.read_text())
        told["accounts"][ACCOUNT]["users"] += [
            {"user": TESTER, "password": TESTER},
            {"nkey": public_key_of(_ALL)},
        ]
        file.write_text(json.dumps(told))


class NatsServer:
    """The embedded engine, as a test wants it: start, kill, start again on the same port and folder."""

    def __init__(self, folder: Path, *, tls: ServerTls | None = None, **settings: Any) -> None:
        """`settings`: of the configuration, beside or instead of what the engine writes."""
        self.engine = LabEngine(folder / "nats", tls=tls)
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
        """Have the running server read its configuration again, with these settings instead."""
        file = self.engine.folder / "nats-server.conf"
        file.write_text(json.dumps(self._configuration | settings))
        os.kill(self._process.pid, signal.SIGHUP)

    def as_integration(self) -> dict[str, str]:
        """The environment in which programs on docs/integrations.md find it, with a key that may read events."""
        key = self.engine.keys.integration_file(FIRST_INTEGRATION)
        inbox = access(url=self.url, credentials=key.read_text()).inbox
        return {"NATS_URL": self.engine.bare_url, "NATS_KEY": str(key), "NATS_INBOX": inbox}

    def lock_out(self) -> None:
        """Have it know none of its users any more, until it is told to `reload`."""
        self.reload(accounts={ACCOUNT: {"jetstream": "enabled", "users": [{"user": "someone", "password": "else"}]}})

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
