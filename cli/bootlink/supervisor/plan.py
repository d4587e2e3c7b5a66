"""Settings in, programs out: what will run, with which environment.

The services run as they would in containers: `python -m bootlink_<name>` and the environment. Nothing is handed to
them that a container could not be handed. What the user has set stays; only what is unset is filled in.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from bootlink.engines import NatsEngine, PostgresEngine
from bootlink.engines.nats_keys import NatsKeys
from bootlink.settings import ADMIN_TOKEN, COMMAND, NATS_KEYS
from bootlink.supervisor import machine
from bootlink.supervisor.program import ENGINE_GRACE, Ailment, Program
from bootlink.supervisor.settings import UpSettings
from bootlink_runtime import StartupError

_PRIVILEGED_PORTS_END: Final = 1024
# Tiers: the registry stops after the other services, so that it stores what they say at their end.
_NATS_TIER, _POSTGRES_TIER, _REGISTRY_TIER, _BOOT_PATH_TIER = range(4)
# What a service calls the address in its log, and the variable that sets its port.
_KEEPS: Final = {
    "registry": {"api": "BOOTLINK_REGISTRY_API_PORT"},
    "blockstore": {"iscsi": "BOOTLINK_BLOCKSTORE_PORT"},
    "tftp": {"tftp": "BOOTLINK_TFTP_PORT"},
}
# A secret that services share: its file below the data folder, and who is told. It is for nobody else.
_SECRETS: Final = {
    "BOOTLINK_CLUSTER_KEY": ("cluster.key", {"blockstore", "tftp"}),
    "BOOTLINK_ADMIN_TOKEN": (ADMIN_TOKEN, {"registry"}),
}
_NATS_SECRETS: Final = {"BOOTLINK_NATS_CREDENTIALS", "BOOTLINK_NATS_CREDENTIALS_FILE"}
_COMMAND_SECRETS: Final = {"BOOTLINK_TOKEN", "BOOTLINK_TOKEN_FILE"}  # the command's alone


@dataclass(frozen=True)
class UpPlan:
    """All that will run."""

    nats_url: str
    data: Path
    programs: tuple[Program, ...]
    secrets: Mapping[str, Path]  # to be made before they start, by the variables that the user did not set
    nats_key_file: Path | None = None  # the command's, for the embedded server; None if the user has given keys

    @property
    def token_file(self) -> Path | None:
        """Where the administrator's token is; None if the user has one of his own, or no registry runs here."""
        return self.secrets.get("BOOTLINK_ADMIN_TOKEN")


def make_plan(settings: UpSettings, services: Sequence[str], environment: Mapping[str, str]) -> UpPlan:
    """What to run for these services. StartupError when something that they need is missing on this machine."""
    data = settings.data.absolute()
    _require_setpriv()
    address = _address_of(settings.dhcp_interface, services)
    _require_privileges(services, environment)

    programs = []
    inherited = dict(environment) | {"BOOTLINK_DATA": str(data), "BOOTLINK_LOG_FORMAT": "json"}
    if settings.dhcp_interface:
        inherited["BOOTLINK_DHCP_INTERFACE"] = settings.dhcp_interface
    nats_url = settings.nats_url
    keys: NatsKeys | None = None  # those of the embedded server, for whom the user has given none of his own
    if nats_url is None:
        nats = NatsEngine(
            data / NATS_KEYS.parent, host=settings.nats_host, port=settings.nats_port, tls=settings.nats_server_tls
        )
        keys = nats.keys
        nats_url = nats.url
        programs.append(_engine(nats, _NATS_TIER, environment, ails=nats.ails))
    inherited["BOOTLINK_NATS_URL"] = nats_url
    database_url = settings.database_url
    if database_url is None and "registry" in services:
        postgres = PostgresEngine(data / "postgres")
        database_url = postgres.url
        programs.append(_engine(postgres, _POSTGRES_TIER, environment))
    secrets = {
        variable: data / file
        for variable, (file, holders) in _SECRETS.items()
        if holders & set(services) and not {variable, f"{variable}_FILE"} & environment.keys()
    }
    for name in services:
        own = _own_settings(name, address) | inherited
        own.pop("BOOTLINK_DATABASE_URL", None)
        if name == "registry" and database_url is not None:
            own["BOOTLINK_DATABASE_URL"] = database_url  # the registry's alone: it holds a password
        if keys is not None and not _NATS_SECRETS & environment.keys():
            own["BOOTLINK_NATS_CREDENTIALS_FILE"] = str(keys.file(name))
        for variable, (_, holders) in _SECRETS.items():
            if name not in holders:
                own.pop(variable, None)
                own.pop(f"{variable}_FILE", None)
            elif variable in secrets:
                own[f"{variable}_FILE"] = str(secrets[variable])
        programs.append(_service(name, {k: v for k, v in own.items() if k not in _COMMAND_SECRETS}))
    key_file = keys.file(COMMAND) if keys is not None and not _NATS_SECRETS & environment.keys() else None
    return UpPlan(nats_url=nats_url, data=data, programs=tuple(programs), secrets=secrets, nats_key_file=key_file)


def _engine(
    engine: NatsEngine | PostgresEngine,
    tier: int,
    environment: Mapping[str, str],
    *,
    ails: Callable[[], Ailment | None] | None = None,
) -> Program:
    return Program(
        name=engine.name,
        command=lambda: engine.command,
        environment=environment,
        tier=tier,
        prepare=engine.prepare,
        answers=engine.answers,
        ails=ails,
        stop_signal=engine.stop_signal,
        grace=ENGINE_GRACE,
        shown_level="warning",
    )


def _service(name: str, environment: Mapping[str, str]) -> Program:
    command = [sys.executable, "-m", f"bootlink_{name}"]
    return Program(
        name=name,
        command=lambda: command,
        environment=environment,
        tier=_REGISTRY_TIER if name == "registry" else _BOOT_PATH_TIER,
        stop_signal=signal.SIGTERM,
        keeps=_KEEPS.get(name, {}),
        shown_level=environment.get("BOOTLINK_LOG_LEVEL") or "info",
    )


def _own_settings(name: str, address: IPv4Address | None) -> dict[str, str]:
    """What `--interface` means to one service; the user's own settings come before it."""
    if name == "blockstore":
        # The PCs' disks are for the PCs' network alone; without one, for this machine.
        return {"BOOTLINK_BLOCKSTORE_HOST": str(address or "127.0.0.1")}
    if name == "tftp" and address is not None:
        return {"BOOTLINK_TFTP_HOST": str(address)}
    return {}


def _address_of(interface: str | None, services: Sequence[str]) -> IPv4Address | None:
    if not interface:
        if "dhcp" in services:
            raise StartupError(
                "no network card is named for dhcp",
                f"bootlink up --interface NAME; {machine.described_cards()}. "
                "Without PCs on a network: bootlink up --services registry,blockstore",
            )
        return None
    cards = machine.cards()
    if interface not in cards:
        raise StartupError(f"there is no network card {interface}", f"name another; {machine.described_cards()}")
    address = cards[interface]
    if address is None:
        raise StartupError(
            f"{interface} has no IPv4 address", f"give it one, such as: ip addr add 10.77.0.1/24 dev {interface}"
        )
    return address


def _require_privileges(services: Sequence[str], environment: Mapping[str, str]) -> None:
    """dhcp needs port 67 and raw frames, tftp port 69; a child has the privileges that we have."""
    wanted: list[tuple[str, tuple[str, ...]]] = []
    if "dhcp" in services:
        wanted.append(("dhcp", ("CAP_NET_BIND_SERVICE", "CAP_NET_RAW")))
    port = environment.get("BOOTLINK_TFTP_PORT", "69")
    if "tftp" in services and port.isdigit() and 0 < int(port) < _PRIVILEGED_PORTS_END:
        wanted.append(("tftp", ("CAP_NET_BIND_SERVICE",)))
    refused = [name for name, capabilities in wanted if machine.missing_privileges(*capabilities)]
    if refused:
        raise StartupError(
            f"{' and '.join(refused)} may not be run by user {os.geteuid()}: they need privileged ports",
            "run `bootlink up` as root, or without them: bootlink up --services registry,blockstore",
        )


def _require_setpriv() -> None:
    if shutil.which("setpriv") is None:
        raise StartupError("there is no setpriv on this machine", "apt-get install util-linux")
