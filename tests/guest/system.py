"""The whole of Bootlink on a boot LAN: `bootlink up`, and the `bootlink` command as an administrator types it.

    async with System(lan, folder, say) as system:
        await system.command("image", "add", "demo", str(disk))
        plan = await system.query("client", "show", "pc-001")     # --json, parsed

`up` and every command run inside the LAN's namespace, where the API and NATS listen on its own loopback.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from guest.lan import Lan

START_TIMEOUT = 120.0  # seconds; a first start makes a PostgreSQL cluster, which takes five
STOP_TIMEOUT = 40.0
COMMAND_TIMEOUT = 30.0
LINE_LIMIT = 1 << 20  # bytes of one line of `up --json`

BOOTLINK = (sys.executable, "-m", "bootlink")


class SystemFailed(Exception):
    """Bootlink did not do what it was asked. `cause` and `remedy` are its own words."""

    def __init__(self, stage: str, cause: str, remedy: str = "") -> None:
        super().__init__(f"{stage}: {cause}" + (f" ({remedy})" if remedy else ""))
        self.stage = stage
        self.cause = cause
        self.remedy = remedy


class System:
    """Bootlink running on `lan`, with all its data below `folder`, and `settings` as an administrator might set them.

    `say` is told what `up` says.
    """

    def __init__(
        self,
        lan: Lan,
        folder: Path,
        say: Callable[[Mapping[str, Any]], None] | None = None,
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.lan = lan
        self.facts: dict[str, Any] = {}
        self.pids: dict[str, int] = {}  # of the engines and services that run now
        self._say = say or (lambda _: None)
        self._settings = dict(settings or {})
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._words: list[Mapping[str, Any]] = []

    @property
    def log(self) -> Path:
        """Everything that `up` said, as JSON lines."""
        return self.folder / "up.jsonl"

    async def __aenter__(self) -> "System":
        self.folder.mkdir(parents=True, exist_ok=True)
        up = (*BOOTLINK, "up", "--interface", Lan.BRIDGE, "--data", str(self.folder), "--json")
        with (self.folder / "up.stderr").open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self.lan.command(*up),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LINE_LIMIT,
                env=self._environment() | self._settings,
            )
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._read(self._process.stdout), name="bootlink up")
        ready = asyncio.create_task(self._ready.wait())
        try:
            done, _ = await asyncio.wait(
                {ready, self._reader}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
            if ready not in done:
                errors_said = (self.folder / "up.stderr").read_text(errors="replace").strip()
                cause = errors_said or ("it ended" if done else f"it was not ready within {START_TIMEOUT:g} s")
                raise SystemFailed("start of Bootlink", cause, f"its log is {self.log}")
        except BaseException:
            await self._stop()
            raise
        finally:
            ready.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _read(self, lines: asyncio.StreamReader) -> None:
        with self.log.open("ab") as log:
            while line := await lines.readline():
                log.write(line)
                log.flush()
                said = json.loads(line)
                self._say(said)
                if said.get("event") == "started":
                    self.pids[said["service"]] = said["pid"]
                if said.get("event") == "ready":
                    self.facts = said
                    self._ready.set()

    async def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise SystemFailed("stop of Bootlink", f"it did not stop within {STOP_TIMEOUT:g} s") from None
        finally:
            if self._reader is not None:
                await self._reader
            self._process = None

    def _environment(self) -> dict[str, str]:
        # The administrator's own settings must not reach a demo: it has servers and addresses of its own.
        return {name: value for name, value in os.environ.items() if not name.startswith("BOOTLINK_")}

    async def command(self, *arguments: str) -> str:
        """Run `bootlink ARGUMENTS` and return what it printed. Raises SystemFailed with the command's own words."""
        process = await asyncio.create_subprocess_exec(
            *self.lan.command(*BOOTLINK, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment()
            | {"BOOTLINK_API": self.facts["api"], "BOOTLINK_NATS_URL": self.facts["nats"]}
            | {"BOOTLINK_DATA": self.facts["data"], "COLUMNS": "100"},
        )
        try:
            out, errors = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise SystemFailed(f"bootlink {' '.join(arguments)}", "no answer") from None
        if process.returncode != 0:
            raise SystemFailed(f"bootlink {' '.join(arguments)}", errors.decode(errors="replace").strip())
        return out.decode()

    async def query(self, *arguments: str) -> Any:
        """Run `bootlink ARGUMENTS --json` and return what it answered."""
        return json.loads(await self.command(*arguments, "--json"))
