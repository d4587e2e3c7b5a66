"""The tftp service, put together: folders, plans, chronicle and the UDP endpoint."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bootlink_runtime import Chassis, PlanBook, Service, StartupError, address_error, listen
from bootlink_tftp import endpoint, hello, lan, metrics
from bootlink_tftp.answers import Answer, Answers
from bootlink_tftp.chronicle import Chronicle, StageName, Transport
from bootlink_tftp.endpoint import Endpoint
from bootlink_tftp.folders import Folders
from bootlink_tftp.lan import OnLink
from bootlink_tftp.settings import DEBIAN_LOADERS, TftpSettings
from bootlink_tftp.transfers import Capacity, Peer
from bootlink_tftp.web import Web
from bootlink_wire.tftp_options import Limits
from bootlink_wire.tftp_transfer import Outcome

DRAIN_SECONDS: Final = 3.0  # for transfers under way when the service stops: a loader takes well under one
DRAIN_STEP: Final = 0.05
TFTP_PORT: Final = 69
HTTP_PORT: Final = 80


async def run(chassis: Chassis, settings: TftpSettings) -> None:
    """Serve boot files until the chassis stops."""
    folders = _loader_folders(settings, chassis.data)
    key = settings.shared_key()
    host = str(settings.host)
    try:
        sock = endpoint.bind(host, settings.port)
    except OSError as error:
        raise address_error(error, "TFTP", host, settings.port, "BOOTLINK_TFTP_PORT") from error
    port: int = sock.getsockname()[1]
    plans = chassis.plan_book()
    chronicle = Chronicle(
        emit=chassis.bus.emit,
        telemetry=chassis.telemetry,
        health=chassis.health,
        log=chassis.log,
        plans=plans,
        mac_of=lan.mac_of,
    )
    complete, on_link = _complete(chassis, plans), OnLink(settings.on_link_networks)
    figures = {protocol: metrics.Figures() for protocol in metrics.PROTOCOLS}

    def answers(base: Callable[[str], str]) -> Answers:
        return Answers(
            folders=folders,
            plans=plans,
            plans_read=complete,
            chronicle=chronicle,
            on_link=on_link,
            base=lambda asked: base(str(settings.advertise or asked)),
            log=chassis.log,
            key=key,
        )

    over_http = answers(lambda address: _http_base(address, settings.http_port))
    server = Endpoint(
        sock,
        over_http if settings.script_urls == "http" else answers(lambda address: _base(address, port)),
        limits=Limits(settings.blksize_max, settings.windowsize_max),
        capacity=Capacity(settings.transfers_max, settings.transfers_per_client_max),
        single_port=settings.single_port,
        on_end=_Report(chassis, chronicle, "tftp", figures["tftp"]),
        health=chassis.health,
        log=chassis.log,
    )
    web = None
    if settings.http_port:
        try:
            listener = listen(host, settings.http_port, what="HTTP", variable="BOOTLINK_TFTP_HTTP_PORT")
        except StartupError:
            sock.close()
            raise
        web = Web(
            listener,
            over_http,
            capacity=Capacity(settings.http_connections_max, settings.transfers_per_client_max),
            on_end=_Report(chassis, chronicle, "http", figures["http"]),
            on_hello=lambda body, peer: chronicle.hello(hello.read(body), peer, datetime.now(UTC)),
            health=chassis.health,
            log=chassis.log,
        )
        await web.start()
        chassis.listening("http", host, settings.http_port)
    chassis.health.check("loaders", lambda: _loaders_found(folders))
    chassis.health.check("transfers", lambda: (True, f"{_busy(server, web)} under way"), required=False)
    metrics.measure(chassis, figures, lambda: _busy(server, web))
    server.start()
    try:
        chassis.listening("tftp", host, port)
        chassis.ready()
        await chassis.stopping.wait()
        server.stop_taking()
        if web is not None:
            web.stop_taking()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while _busy(server, web):  # noqa: ASYNC110 - once per life of the service; an event would cost every transfer
                    await asyncio.sleep(DRAIN_STEP)
    finally:
        await server.close()
        if web is not None:
            await web.close()


def _busy(server: Endpoint, web: Web | None) -> int:
    """Transfers under way."""
    return server.busy + (web.busy if web is not None else 0)


class _Report:
    """Says how each transfer over one protocol ended: to the log, the counters and the chronicle."""

    def __init__(self, chassis: Chassis, chronicle: Chronicle, over: Transport, figures: metrics.Figures) -> None:
        self._chassis = chassis
        self._chronicle = chronicle
        self._over = over
        self._figures = figures

    def __call__(self, answer: Answer, peer: Peer, outcome: Outcome, seconds: float) -> None:
        log, health = self._chassis.log, self._chassis.health
        ended = datetime.now(UTC)
        started = ended - timedelta(seconds=seconds)
        facts = {"file": answer.file, "peer": peer[0], "bytes": answer.size, "seconds": round(seconds, 3)}
        if answer.boot_id is not None:
            facts["boot_id"] = str(answer.boot_id)
        if outcome.kind == "probe":
            health.count("tftp_probes")
            log.debug("size asked", **facts)  # EDK2 does so before every download; nothing is wrong
            return
        if not outcome.delivered:
            health.count("tftp_broken_off")
            log.warning("not sent", **facts, outcome=outcome.kind, why=outcome.detail)
            if answer.boot_id is not None:
                stage: StageName = "script" if answer.script else "loader"
                self._chronicle.not_delivered(
                    answer.boot_id, stage, answer.file, outcome, peer=peer[0], elapsed=ended - started
                )
            return
        health.count("tftp_sent")
        self._figures.delivered(answer.size, seconds)
        log.info("sent", **facts, outcome=outcome.kind)
        if answer.boot_id is None:
            return
        if answer.script is not None and answer.mac is not None:
            self._chronicle.script_served(
                answer.mac, answer.boot_id, answer.script, peer[0], started, ended, over=self._over
            )
        else:
            self._chronicle.loader_sent(
                answer.boot_id, answer.file, answer.size, peer[0], started, ended, over=self._over
            )


def _complete(chassis: Chassis, plans: PlanBook) -> PlansRead:
    """Whether the plans that we hold are all there are: after a start they may be a snapshot, or none."""
    read = PlansRead()

    async def follow() -> None:
        await plans.synced()
        read.complete = True

    chassis.spawn(follow(), name="plans read")
    return read


class PlansRead:
    """True once the plans' bucket was read whole."""

    def __init__(self) -> None:
        self.complete = False

    def __call__(self) -> bool:
        return self.complete


def _loader_folders(settings: TftpSettings, data: Path) -> Folders:
    """The folders to serve. StartupError where there is nothing to serve."""
    own = data / "loaders"
    for folder in settings.loader_folders:
        if not folder.is_dir():
            raise StartupError(
                f"the loader folder {folder} does not exist", "make it, or correct BOOTLINK_TFTP_LOADERS"
            )
    if not settings.loader_folders:
        own.mkdir(exist_ok=True)  # so that an administrator finds where to put a loader
    folders = Folders(settings.loader_folders or (own, DEBIAN_LOADERS))
    holds, _ = _loaders_found(folders)
    if not holds:
        searched = " or ".join(str(root) for root in folders.roots)
        raise StartupError(
            f"there is no boot loader in {searched}",
            f"`apt install ipxe`, or put undionly.kpxe (BIOS) and snponly.efi (UEFI) into {folders.roots[0]}",
        )
    return folders


def _loaders_found(folders: Folders) -> tuple[bool, str]:
    found = folders.names()
    return bool(found), f"{len(found)} files in {', '.join(str(root) for root in folders.roots)}"


def _base(host: str, port: int) -> str:
    return f"tftp://{host}" if port == TFTP_PORT else f"tftp://{host}:{port}"


def _http_base(host: str, port: int) -> str:
    return f"http://{host}" if port == HTTP_PORT else f"http://{host}:{port}"


SERVICE = Service("tftp", TftpSettings, run)
