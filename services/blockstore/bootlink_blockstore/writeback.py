"""Write-backs on disk: which overlay file belongs to which client, boot and image.

Layout, below the service's folder:

    writebacks/<mac token>/<boot id>.lun<n>.overlay        policy discard: named by its boot, new at every boot;
                           <boot id>.<entry>.lun<n>.overlay  and by what was chosen at a boot menu
    writebacks/<mac token>/keep.lun<n>.<content>.overlay   policy keep: named by the contents that it lies upon
    writebacks/<mac token>/super.lun<n>.<content>.overlay  policy super: likewise, and apart from what was kept
    ... .zeros                                             what was given back of each, under the same name
    ... .json                                              the manifest of each, under the same name

A manifest says whose an overlay is, on what it lies and which boot had it last. It is what makes a login after a
restart of the service find the very same disk, whatever the plan says by then; and the newest boot id among a client's
manifests is its fence, so a restart forgets no fence either (see `ledger` for the one exception). Manifests are
replaced atomically and synced.

What an overlay lies upon is its *content*: the identity of what a version of an image shows. The layers that it is read
from may change below it, as when the registry merges some of them; the content does not. Plans and manifests of before
name none; theirs is the id of the top layer, which is what the registry made of it, too.

A boot outlives the service, but not the machine: what its system wrote and did not flush may be gone after a power cut,
and it would go on with a mixture. So a manifest names the run of the machine (the kernel's own boot id), and only a
newer boot begins after another. And it notes when its overlay has failed for good (see `disk`).

Order at the start of a boot: all overlay files, then their manifests. A boot whose manifests are not all there was
never admitted, so it begins anew; one whose manifests are all there, and cannot be read, is never given a fresh disk.
An overlay without a manifest was never used and goes at the next start. At removal the manifest goes first.

One process at a time writes here: it holds a lock on `.lock`, which the kernel gives back when the process ends.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from bootlink_blockstore import ledger
from bootlink_blockstore.durable import replace, sync_folder
from bootlink_blockstore.ledger import Ledger
from bootlink_blockstore.overlay import Overlay, zeros_path
from bootlink_events import BootId, LayerPlan, Mac, mac_token, normalise_mac
from bootlink_events.plans import BootPlan, Chap, DiskPlan, Policy

MANIFEST_LIMIT: Final = 1 << 20  # bytes; one with 256 layers has about 100 KiB
FORMAT: Final = 1
MACHINE_RUN: Final = Path("/proc/sys/kernel/random/boot_id")


class InUseError(Exception):
    """Another process has the write-backs open."""


class Manifest(BaseModel):
    """One overlay file: whose, on what, and of which boot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    file: str = Field(pattern=r"^[0-9a-z][0-9a-z.-]*\.overlay$", description="the overlay, beside the manifest")
    mac: Mac
    client: str
    boot_id: BootId = Field(description="the boot that has it, or had it last")
    entry: str = Field(default="", description="what was chosen at the boot menu; empty: nothing")
    lun: int = Field(ge=0, le=255)
    luns: tuple[int, ...] = Field(description="all logical units of that boot: its manifests are complete with these")
    image: str
    version: int
    policy: Policy
    content: str = Field(default="", description="identity of what it lies upon; empty: as the top layer's id")
    layers: tuple[LayerPlan, ...] = Field(min_length=1, description="it is read from when the boot begins, top first")
    created: AwareDatetime
    machine_run: str = Field(default="", description="the run of the machine that the boot began in; empty: unknown")
    chap: Chap = Field(default="off", description="what a login to that boot must prove")
    failed: str = Field(default="", description="why the overlay may never be opened again")

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self.layers[0].virtual_size

    @property
    def bound_to(self) -> str:
        """Identity of the contents that it lies upon, and that it is senseless on any other than."""
        return self.content or self.layers[0].id

    @property
    def lasts(self) -> bool:
        """Does it outlive its boot?"""
        return self.policy != "discard"


def machine_run() -> str:
    """What is the same until this machine is restarted."""
    return MACHINE_RUN.read_text().strip()


def overlay_name(disk: DiskPlan, boot_id: BootId, entry: str = "") -> str:
    """The file name of a disk's overlay, in a boot for which `entry` was chosen at the boot menu."""
    if disk.policy == "discard":
        chosen = f".{entry}" if entry else ""
        return f"{boot_id}{chosen}.lun{disk.lun}.overlay"
    # Bound to the contents it lies upon: its pages are senseless on any other.
    content = hashlib.sha256((disk.content or disk.layers[0].id).encode()).hexdigest()[:16]
    return f"{disk.policy}.lun{disk.lun}.{content}.overlay"


class Writebacks:
    """The overlay files and their manifests, below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._machine_run = machine_run()
        self._lock = -1

    def lock(self) -> None:
        """Keep every other process out, until `unlock` or the end of this one. InUseError if one is in."""
        fd = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise InUseError(str(self.root)) from error
        self._lock = fd

    def unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def outlived(self, manifest: Manifest) -> bool:
        """Was the machine restarted since this boot began?"""
        return manifest.machine_run not in ("", self._machine_run)

    def path(self, manifest: Manifest) -> Path:
        """The overlay of a manifest."""
        return self.folder(manifest.mac) / manifest.file

    def scan(self) -> tuple[list[Manifest], list[str]]:
        """All manifests, and what could not be read, one line each. Removes what was never used, and drafts."""
        manifests: list[Manifest] = []
        problems: list[str] = []
        for path in sorted(self.root.glob("*/*.json")):
            try:
                if path.stat().st_size > MANIFEST_LIMIT:
                    raise ValueError("it is too large")
                manifest = Manifest.model_validate_json(path.read_bytes())
                if self.path(manifest) != path.with_suffix(".overlay") or not self.path(manifest).exists():
                    raise ValueError("it is not beside its overlay")
            except (ValidationError, ValueError, OSError) as error:
                problems.append(f"{path}: {error}")
            else:
                manifests.append(manifest)
        for path in self.root.glob("*/*.tmp"):
            path.unlink()
        for suffix in (".overlay", ".zeros"):
            for path in self.root.glob(f"*/*{suffix}"):
                if not path.with_suffix(".json").exists():
                    path.unlink()
        return manifests, problems

    def folder(self, mac: str) -> Path:
        """Where a client's files are."""
        return self.root / mac_token(mac)

    def intended(
        self, plan: BootPlan, boot_id: BootId, entry: str = "", returning: Sequence[Manifest] = ()
    ) -> list[Manifest]:
        """The manifests that a new boot has by this plan. `returning`: of a discarded boot, which take the place of
        what the plan says of their logical units. `entry`: what was chosen at the boot menu; the plan names its disks
        already.
        """
        back = {manifest.lun: manifest for manifest in returning}
        luns = tuple(sorted({*back, *(disk.lun for disk in plan.disks)}))
        of_the_boot = {
            "client": plan.client,
            "boot_id": boot_id,
            "entry": entry,
            "luns": luns,
            "chap": plan.chap,
            "machine_run": self._machine_run,
        }
        begun = datetime.now(UTC)
        fresh = [
            Manifest(
                file=overlay_name(disk, boot_id, entry),
                mac=plan.mac,
                lun=disk.lun,
                image=disk.image,
                version=disk.version,
                policy=disk.policy,
                content=disk.content,
                layers=disk.layers,
                created=begun,
                **of_the_boot,
            )
            for disk in plan.disks
            if disk.lun not in back
        ]
        return fresh + [manifest.model_copy(update={**of_the_boot, "created": begun}) for manifest in back.values()]

    def begin(self, manifests: Sequence[Manifest]) -> list[tuple[Manifest, Overlay]]:
        """The overlays for a new boot with these manifests: new ones, and those that are there and go on.

        OSError or ValueError if that cannot be; then nothing of it stays open.
        """
        folder = self.folder(manifests[0].mac)
        folder.mkdir(exist_ok=True)
        begun: list[tuple[Manifest, Overlay]] = []
        records = [self.path(m) for m in manifests if m.file.startswith(f"{m.boot_id}.")]  # this boot's own
        if records and all(path.with_suffix(".json").exists() for path in records):
            raise ValueError(f"boot {manifests[0].boot_id} has begun before, and what it wrote can no longer be read")
        try:
            for manifest in manifests:
                begun.append((manifest, self._overlay(manifest, new=self.path(manifest) in records)))
            sync_folder(folder)
            for manifest in manifests:
                write_manifest(self.path(manifest).with_suffix(".json"), manifest)
            sync_folder(folder)
            sync_folder(self.root)
        except (OSError, ValueError):
            _close(overlay for _, overlay in begun)
            with contextlib.suppress(OSError):
                for path in records:  # it was not admitted, and may try again
                    path.with_suffix(".json").unlink(missing_ok=True)
            raise
        return begun

    def _overlay(self, manifest: Manifest, *, new: bool) -> Overlay:
        path = self.path(manifest)
        if not new and path.with_suffix(".json").exists():
            held = Manifest.model_validate_json(path.with_suffix(".json").read_bytes())
            if held.bound_to != manifest.bound_to:
                raise ValueError(f"{path} lies on other layers than the plan names")
            return Overlay.reopen(path, manifest.size)
        _unlink(path)  # of an attempt to begin this same boot that was cut short
        overlay = Overlay.create(path, manifest.size)
        if manifest.lasts:
            for fd in (overlay.fd, overlay.zeros_fd):
                os.fsync(fd)  # its size must survive a power cut, or it could not be opened again
        return overlay

    def resume(self, manifests: Sequence[Manifest]) -> list[Overlay]:
        """The overlays of a boot that goes on. OSError or ValueError if one is not as it was."""
        resumed: list[Overlay] = []
        try:
            for manifest in manifests:
                resumed.append(Overlay.reopen(self.path(manifest), manifest.size))
        except (OSError, ValueError):
            _close(resumed)
            raise
        return resumed

    def ledgers(self) -> tuple[dict[str, Ledger], list[str]]:
        """The ledgers of all clients that have one, and what could not be read, one line each."""
        found: dict[str, Ledger] = {}
        problems: list[str] = []
        for path in self.root.glob(f"*/{ledger.NAME}"):
            try:
                found[normalise_mac(path.parent.name)] = Ledger.read(path.parent)
            except (OSError, ValueError) as error:
                problems.append(f"{path}: {error}")
        return found, problems

    def write_ledger(self, mac: str, entry: Ledger) -> None:
        """Put down a client's ledger, also for after a power cut."""
        folder = self.folder(mac)
        folder.mkdir(exist_ok=True)
        entry.write(folder)
        sync_folder(folder)
        sync_folder(self.root)

    def rewrite(self, manifest: Manifest) -> None:
        """Put down what has changed in a manifest that is there."""
        write_manifest(self.path(manifest).with_suffix(".json"), manifest)

    def usage(self, manifest: Manifest) -> int:
        """Bytes that an overlay takes; 0 if it is gone."""
        taken = 0
        for path in (self.path(manifest), zeros_path(self.path(manifest))):
            with contextlib.suppress(OSError):
                taken += path.stat().st_blocks * 512
        return taken

    def written(self, manifest: Manifest) -> int:
        """When an overlay's files changed last, in nanoseconds of Unix time; 0 if it is gone."""
        last = 0
        for path in (self.path(manifest), zeros_path(self.path(manifest))):
            with contextlib.suppress(OSError):
                last = max(last, path.stat().st_mtime_ns)
        return last

    def empty(self, manifests: Sequence[Manifest]) -> None:
        """Give the space of overlays back, and leave their manifests. They can never be opened again."""
        for manifest in manifests:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(self.path(manifest), 0)

    def remove(self, manifest: Manifest) -> None:
        """Give the space of an overlay back."""
        path = self.path(manifest)
        path.with_suffix(".json").unlink(missing_ok=True)
        sync_folder(path.parent)  # or a power cut could leave a manifest of nothing
        _unlink(path)


def _unlink(overlay: Path) -> None:
    overlay.unlink(missing_ok=True)
    zeros_path(overlay).unlink(missing_ok=True)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Replace a manifest: whoever reads finds the former one or this one, also after a power cut."""
    replace(path, manifest.model_dump_json(indent=1).encode())


def _close(overlays: Iterator[Overlay] | Sequence[Overlay]) -> None:
    for overlay in overlays:
        overlay.close()
