"""What the unit and its settings file say. Nothing here is written or run.

`up` runs as a user of its own that may bind low ports and speak raw frames, and nothing else that root may. It stays
able to read image files wherever they lie and to write exports where it is let, so the file system is shut only where
the system itself lives. Of namespaces it may make the two that keep image work off the network, of sockets those that
the services have. It is told to stop alone (`mixed`) and stops its children in their order; what is left after that is
killed.

Source: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.syntax(7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_SECONDS: Final = 300  # a first start makes a PostgreSQL cluster, which `up` itself gives two minutes
STOP_SECONDS: Final = 100  # two tiers of services with 10 s each, PostgreSQL and NATS with 30 s each, and their ends
WATCHDOG_SECONDS: Final = 60  # a supervisor that has not said a word for so long restarts nobody any more
RESTART_SECONDS: Final = 2  # between starts, for ever: the network card may get its address later
FILES: Final = 524_288  # descriptors that services may raise themselves to; 2 and more for each PC and layer
TASKS: Final = 8_192  # threads and processes of all children

_UNIT: Final = """\
# Written by `bootlink install`, and anew by the next. Settings belong into {environment}.
[Unit]
Description=Bootlink: boots PCs that have no disk
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
EnvironmentFile={environment}
{user}
Restart=on-failure
RestartSec={restart}
TimeoutStartSec={start}
TimeoutStopSec={stop}
WatchdogSec={watchdog}
KillMode=mixed
OOMScoreAdjust=-500
LimitNOFILE={files}
TasksMax={tasks}
UMask=0027
NoNewPrivileges=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=user net
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

_OF_ITS_OWN: Final = """\
User={user}
Group={user}
AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_RAW
"""

_SETTINGS: Final = """\
# Settings of bootlink.service, as NAME=value: see docs/settings.md. After a change: systemctl restart bootlink
"""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@,+=-]+")


@dataclass(frozen=True, slots=True)
class Unit:
    """What `bootlink.service` runs, and as whom."""

    command: Sequence[str]
    user: str
    environment: Path  # the settings file


def unit_text(unit: Unit) -> str:
    """The unit file."""
    return _UNIT.format(
        command=" ".join(_word(part) for part in unit.command),
        environment=_path(unit.environment),
        user="" if unit.user == "root" else _OF_ITS_OWN.format(user=unit.user).rstrip(),
        restart=RESTART_SECONDS,
        start=START_SECONDS,
        stop=STOP_SECONDS,
        watchdog=WATCHDOG_SECONDS,
        files=FILES,
        tasks=TASKS,
    )


def with_settings(text: str, settings: Mapping[str, str]) -> str:
    """The settings file `text` with these settings: each line that sets one of them is changed, all else stays.

    An empty text becomes a new file.
    """
    lines = (text or _SETTINGS).splitlines()
    missing = dict(settings)
    for n, line in enumerate(lines):
        name = line.partition("=")[0].strip()
        if name in settings:
            lines[n] = f"{name}={_value(settings[name])}"
            missing.pop(name, None)
    lines += [f"{name}={_value(value)}" for name, value in missing.items()]
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    """One word of a command line: `%` and `$` would be looked up, blanks would part it."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return safe if _PLAIN.fullmatch(text) else f'"{safe}"'


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")


def _value(text: str) -> str:
    """A value of a settings file, which knows quotes, but nothing to look up."""
    if _PLAIN.fullmatch(text) or not text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
