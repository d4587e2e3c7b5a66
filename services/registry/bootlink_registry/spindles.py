"""The spindle rule: images and write-backs on one rotating disk slow each other down; whoever does that is told.

Each block store says which physical disks lie behind its mounts and where its write-backs are (`Storage`, in its
announcement). Compared with that is where the layers are. Their paths are looked up in the node's own mounts, after
symbolic links were followed where the file is on this machine, too.

With the setting `warn` it is said: in the log when it is first seen, in `bootlink status` for as long as it is so, and
as the event spindle.shared. With `refuse` clients are not sent to such a node for an image that it keeps so; where no
other node is left, their plans carry the refusal `shared_spindle`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from bootlink_events import NodeInfo, SpindleShared
from bootlink_registry.catalogue import Layer
from bootlink_registry.database import Database, DatabaseAway
from bootlink_registry.layers import Layers
from bootlink_registry.nodes import NodeWatch
from bootlink_runtime import Bus, Health, Logger

LOOK_SECONDS: Final = 15.0  # between looks that nobody asked for; an image is soon added
FILES_TOLD: Final = 5  # of those that share a disk, in log and event
STANDBY_SECONDS: Final = 1.0  # while another registry says it, and until it is known which of them does

SpindlePolicy = Literal["warn", "refuse"]


@dataclass(frozen=True, slots=True)
class Shared:
    """A rotating disk of a node that holds write-backs and layers."""

    node: str
    disk: str
    model: str
    writebacks: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        of_images = f"{len(self.files)} files of images" if len(self.files) > 1 else "the file of an image"
        return f"node {self.node}: {of_images} and the write-backs share the rotating disk {self.disk}"


def shared(nodes: Iterable[NodeInfo], paths: Iterable[str]) -> list[Shared]:
    """The disks that break the rule, by node and name."""
    every = sorted(set(paths))
    found = []
    for node in nodes:
        storage = node.storage
        if storage is None:
            continue
        written = storage.behind(storage.writebacks)
        for disk in storage.disks:
            files = (
                tuple(path for path in every if disk.name in storage.behind(path))
                if disk.rotational and disk.name in written
                else ()
            )
            if files:
                found.append(Shared(node.node, disk.name, disk.model, storage.writebacks, files))
    return found


def unfit(nodes: Iterable[NodeInfo], paths: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Of layers (id to path) those that some node keeps against the rule, and the portals of such nodes."""
    found: dict[str, frozenset[str]] = {}
    for node in nodes:
        bad = {path for one in shared([node], paths.values()) for path in one.files}
        for layer, path in paths.items():
            if path in bad:
                found[layer] = found.get(layer, frozenset()) | frozenset(node.portals)
    return found


class Spindles:
    """Looks again and again whether the rule is kept, and says when it is not."""

    def __init__(
        self,
        database: Database,
        layers: Layers,
        nodes: NodeWatch,
        bus: Bus,
        *,
        policy: SpindlePolicy,
        on_change: Callable[[], None],
        health: Health,
        log: Logger,
    ) -> None:
        self._database = database
        self._layers = layers
        self._nodes = nodes
        self._bus = bus
        self._policy = policy
        self._on_change = on_change
        self._log = log
        self._real: dict[str, str] = {}  # paths with their symbolic links followed
        self._told: dict[tuple[str, str], Shared] = {}
        health.check("spindles", self._check, required=False)

    def _check(self) -> tuple[bool, str]:
        if not self._told:
            return True, "images and write-backs share no rotating disk"
        return False, "; ".join(str(one) for one in self._told.values())

    def unfit(self, layers: Mapping[str, Layer]) -> Mapping[str, frozenset[str]]:
        """For the compiler: the portals that must not serve a layer, where the rule is enforced."""
        if self._policy == "warn":
            return {}
        paths = {layer.id: self._real.get(layer.path, layer.path) for layer in layers.values()}
        return unfit(self._nodes.nodes.all, paths)

    async def watch(self, due: Callable[[], bool]) -> None:
        """Look for ever; say and publish what is found while `due()`: of several registries one does."""
        while True:
            seen = self._nodes.changed
            try:
                async with self._database.transaction() as connection:
                    paths = [row["path"] for row in await connection.fetch("SELECT DISTINCT path FROM layers")]
                real = await self._layers.real_paths(paths)
            except DatabaseAway:
                await self._database.recovered()
                continue
            say = due()
            self._compare(real, say=say)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if say else STANDBY_SECONDS):
                    await seen.wait()

    def _compare(self, real: dict[str, str], *, say: bool) -> None:
        now = {(one.node, one.disk): one for one in shared(self._nodes.nodes.all, real.values())}
        moved = {path: there for path, there in real.items() if path != there} != self._real
        self._real = {path: there for path, there in real.items() if path != there}
        if self._policy == "refuse" and (moved or now != self._told):
            self._on_change()
        for key, one in now.items():
            if say and key not in self._told:
                self._tell(one)
        for key in self._told.keys() - now.keys():
            if say:
                self._log.info("spindle no longer shared", node=key[0], disk=key[1])
        if say:
            self._told = now

    def _tell(self, one: Shared) -> None:
        self._log.warning(
            "spindle shared",
            problem=str(one),
            files=list(one.files[:FILES_TOLD]),
            writebacks=one.writebacks,
            remedy="move the images or BOOTLINK_DATA to another disk; "
            f"if it is none that rotates: echo 0 > /sys/block/{one.disk}/queue/rotational",
        )
        self._bus.emit(
            SpindleShared(
                node=one.node,
                disk=one.disk,
                model=one.model,
                writebacks=one.writebacks,
                files=one.files[:FILES_TOLD],
                count=len(one.files),
                refused=self._policy == "refuse",
                at=datetime.now(UTC),
            )
        )
