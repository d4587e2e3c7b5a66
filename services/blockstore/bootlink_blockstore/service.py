"""The block store put together: cache, library, write-backs, attachments, portal, and what watches over them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bootlink_blockstore import metrics, spindles, usage
from bootlink_blockstore.access import Access, Plans
from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.cache import Cache
from bootlink_blockstore.commands import Commands
from bootlink_blockstore.disk import OUT_OF_SPACE
from bootlink_blockstore.exports import Exports
from bootlink_blockstore.holdings import Holdings
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.library import Library
from bootlink_blockstore.memory import settle
from bootlink_blockstore.overlay import HoleError, probe
from bootlink_blockstore.portal import DRAIN_SECONDS, Portal, ticking
from bootlink_blockstore.pressure import Space
from bootlink_blockstore.readahead import JOBS
from bootlink_blockstore.reclaim import Retention, reclaim
from bootlink_blockstore.settings import Settings
from bootlink_blockstore.writeback import InUseError, Writebacks
from bootlink_runtime import Chassis, Service, StartupError, address_error

READERS: Final = 8  # threads that read layers: a disk's queue filled, without starving the event loop of the GIL
WRITERS: Final = 8  # threads for overlays, apart from the readers: a slow image must not hold up writes, nor they it
SWITCH_SECONDS: Final = 0.0005  # until a thread whose disk has answered runs beside a busy loop; Python has 5 ms
SPACE_LOW: Final = 64 << 20  # bytes free below which the store counts as not writable
WILDCARDS: Final = ("0.0.0.0", "::", "")


class BlockStore:
    """The parts of a running block store. `open`, then `portal.serve`, then `close`."""

    def __init__(
        self,
        plans: Plans,
        journal: Journal,
        folder: Path,
        *,
        cache: int,
        advertise: str = "",
        access: Access | None = None,
        limit: int = 0,
        images: Path | None = None,
        node: str = "",
    ) -> None:
        """`folder`: of the service's own; `images`: the image store, beside it if not given; `node`: what plans call
        this block store."""
        self.root = folder / "writebacks"
        self.cache = Cache(cache)
        self._readers = ThreadPoolExecutor(READERS, "layer")
        self._writers = ThreadPoolExecutor(WRITERS, "overlay")
        self._ahead = ThreadPoolExecutor(JOBS, "ahead")
        images = images or folder / "images"
        self.library = Library(self.cache, self._readers, self._ahead, store=images, unsealed=journal.unsealed)
        self._writebacks = Writebacks(self.root)
        self.holdings = Holdings(self._writebacks, self._writers)
        self.attachments = Attachments(
            plans, self.holdings, self.library, self._writers, journal, access, node=node, limit=limit
        )
        self.exports = Exports(self.attachments, self.holdings, images, self._writers, journal)
        self.commands = Commands(self.attachments, self.holdings, self.exports, journal)
        self.portal = Portal(self.attachments, journal, advertise)

    async def open(self) -> None:
        """Make the folder, try the file system, take in what is there. StartupError if it cannot serve."""
        try:
            self.root.mkdir(exist_ok=True)
            self._writebacks.lock()
            await asyncio.to_thread(self._try_file_system)
            await self.attachments.load()
        except InUseError as error:
            raise StartupError(
                f"another block store uses {self.root}",
                "stop it first, or give this one a BOOTLINK_DATA of its own",
            ) from error
        except HoleError as error:
            raise StartupError(
                f"the file system of {self.root} cannot hold write-backs: {error}",
                "put BOOTLINK_DATA on ext4, XFS or Btrfs, made with blocks of 4096 bytes",
            ) from error
        except OSError as error:
            raise StartupError(
                f"{self.root} cannot be used for write-backs ({error.strerror})",
                "make it writable for the user that runs Bootlink, with space left, or set BOOTLINK_DATA",
            ) from error

    def _try_file_system(self) -> None:
        try:
            probe(self.root)
        except OSError as error:
            # One that is full was tried before the write-backs were made that fill it; their clients must go on.
            if error.errno not in OUT_OF_SPACE or next(self.root.glob("*/*.overlay"), None) is None:
                raise

    async def close(self, *, drain: float = 0.0) -> None:
        """End every session, then close every file. `drain`: seconds for operating systems to log out."""
        await self.portal.close(drain=drain)
        await self.exports.close()
        await self.attachments.close()
        self._writers.shutdown()
        self._readers.shutdown()
        self._ahead.shutdown()
        self.library.shut()
        self._writebacks.unlock()


async def run(chassis: Chassis, settings: Settings) -> None:
    """Serve until the chassis stops."""
    sys.setswitchinterval(SWITCH_SECONDS)
    journal = Journal(chassis.bus.emit, chassis.telemetry, chassis.log, chassis.health.count)
    plans = chassis.plan_book()
    access = Access(settings.shared_key(), require_boot_id=settings.require_boot_id)
    limit = int(settings.writeback_limit)
    store = BlockStore(
        plans,
        journal,
        chassis.data,
        cache=int(settings.cache),
        access=access,
        limit=limit,
        images=settings.image_store,
        node=chassis.node,
    )
    await store.open()
    try:
        host, port = await store.portal.serve(settings.host, settings.port)
    except OSError as error:
        raise address_error(
            error, "the iSCSI portal", settings.host, settings.port, "BOOTLINK_BLOCKSTORE_PORT"
        ) from error
    reachable = settings.advertise or (own_address() if host in WILDCARDS else host)
    if settings.advertise:
        store.portal.advertise = f"{reachable}:{port}"
    chassis.health.page("cache", lambda: usage.report(store.cache, store.library, store.attachments, chassis.node))
    usage.measure(store.cache, store.library, chassis.meter)
    space = Space(store.root, int(settings.space_reserve))
    metrics.measure(chassis, store.portal, store.attachments, store.library.readers, space, limit)
    chassis.health.check("portal", lambda: (store.portal.listening, f"{host}:{port}"))
    chassis.health.check("write-backs", lambda: _writable(store.root))
    chassis.health.check("event loop", chassis.pulse.check)
    chassis.spawn(ticking(store.portal), name="ticking")
    retention = Retention(settings.undo_count, settings.undo_age, int(settings.undo_space))
    chassis.spawn(reclaim(store.attachments, journal, space, retention), name="reclaim")
    chassis.listening("iscsi", host, port)
    chassis.serve_commands(store.commands.handlers)
    chassis.announce_portals([f"{reachable}:{port}"], lambda: spindles.storage(store.root), space.left)
    settle()
    chassis.ready()
    try:
        await chassis.stopping.wait()
    finally:
        await store.close(drain=DRAIN_SECONDS)


def _writable(folder: Path) -> tuple[bool, str]:
    """Whether write-backs can be made. Looks at cached metadata only, so it does not block."""
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        return False, f"{folder}: {error.strerror}"
    free = stat.f_bavail * stat.f_frsize
    if not os.access(folder, os.W_OK):
        return False, f"{folder} may not be written to"
    return free >= SPACE_LOW, f"{free >> 20} MiB free in {folder}"


def own_address() -> str:
    """The address of this machine that others reach it at: the one its default route leaves from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe_socket, contextlib.suppress(OSError):
        probe_socket.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737); a datagram socket sends nothing for this
        return str(probe_socket.getsockname()[0])
    return "127.0.0.1"


SERVICE: Final = Service("blockstore", Settings, run)
