"""A Docker engine of a test's own: it lives on the test's network, and nothing of it is left when the test is over.

`dockerd` runs in the network namespace of a `Lan`, so that a container on the "host's" network is on that LAN, and
Docker's bridges and packet filter rules are in there too; in a mount namespace, so that its mounts end with it; and as
the first process of a PID namespace, so that every container dies with it, however the test ends. Its folders and its
socket are its own, and its control groups lie below one that is removed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from guest.lan import Lan
from lab import control_groups
from lab.process import Process

START_SECONDS: Final = 60.0
TOOL_SECONDS: Final = 600.0  # an image is built in a minute or two, on a busy machine
GROUPS: Final = Path("/sys/fs/cgroup")
MEMORY: Final = "6g"  # at most, for images and volumes; two are used


class EngineFailed(Exception):
    """Docker did not do what it was asked; the text holds its own last words."""


class Engine:
    """A running dockerd on `lan`."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.folder = Path(tempfile.mkdtemp(prefix="bl-docker-"))  # a Unix socket's path is short
        self.group = f"bootlink-{lan.namespace}"
        self.environment = os.environ | {
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER_CONFIG": str(self.folder / "client"),
            "DOCKER_BUILDKIT": "0",  # Debian's Docker has the classic builder alone
            "COMPOSE_PROJECT_NAME": "bootlink",
        }
        self._process = Process(
            [
                "setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{lan.namespace}",
                "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                # In memory: Docker syncs each layer to disk, which takes longer than making it, and for nothing here.
                "sh", "-c", f'mount -t tmpfs -o size={MEMORY} tmpfs {self.folder}/data && exec "$@"', "sh",
                "dockerd", "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "run"),
                "--host", self.environment["DOCKER_HOST"], "--pidfile", str(self.folder / "pid"),
                "--config-file", str(self.folder / "daemon.json"),
                "--bridge", "none", "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.group}",
            ],
            log=self.folder / "dockerd.log",
        )  # fmt: skip

    def __enter__(self) -> Engine:
        (self.folder / "daemon.json").write_text("{}")
        (self.folder / "data").mkdir()
        self._process.start(self._answers, seconds=START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # dockerd and all containers die with their PID namespace
        control_groups.remove((*GROUPS.glob(f"*/{self.group}"), *GROUPS.glob(self.group)))
        shutil.rmtree(self.folder, ignore_errors=True)

    def docker(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        """Run `docker ARGUMENTS`; what it printed. EngineFailed if it fails."""
        return self._tool(["docker", *map(str, arguments)], stdin=stdin)

    def compose(self, file: Path, *arguments: str, settings: Mapping[str, str]) -> str:
        """Run `docker-compose -f FILE ARGUMENTS`; what it printed."""
        return self._tool(["docker-compose", "-f", str(file), *arguments], more=settings)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker says of each container, by its compose service."""
        numbers = self.docker("ps", "--all", "--quiet", "--no-trunc").split()
        told: list[dict[str, Any]] = json.loads(self.docker("inspect", *numbers)) if numbers else []
        return {one["Config"]["Labels"].get("com.docker.compose.service", one["Name"]): one for one in told}

    def kill(self, service: str) -> None:
        """kill -9 the first process of a service's container, as the kernel does when memory is short. `docker kill`
        would count as the administrator's wish, after which Docker does not start the container anew."""
        pid = self.containers()[service]["State"]["Pid"]
        subprocess.run(["nsenter", "--target", str(self._inner), "--pid", "kill", "-KILL", str(pid)], check=True)

    @property
    def _inner(self) -> int:
        """A process in the engine's PID namespace, as this machine counts."""
        children = subprocess.run(
            ["pgrep", "--parent", str(self._process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        return int(children[0])

    def _answers(self) -> bool:
        return subprocess.run(["docker", "version"], env=self.environment, capture_output=True).returncode == 0

    def _tool(self, command: Sequence[str], *, stdin: bytes = b"", more: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            command, env={**self.environment, **(more or {})}, input=stdin, capture_output=True, timeout=TOOL_SECONDS
        )
        if done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace")
            raise EngineFailed(f"{' '.join(command)} ended with {done.returncode}:\n{words[-4000:]}")
        return done.stdout.decode(errors="replace")
