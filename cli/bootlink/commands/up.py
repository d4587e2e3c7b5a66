"""`bootlink up`: the composition root of a whole system on one machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bootlink.errors import CommandError
from bootlink.output import AsJson
from bootlink.supervisor import folder, settings
from bootlink.supervisor.display import Display, JournalDisplay, JsonDisplay, PeopleDisplay, in_journal
from bootlink.supervisor.keeper import FailedToStart, Happening
from bootlink.supervisor.notify import Notifier
from bootlink.supervisor.plan import UpPlan, make_plan
from bootlink.supervisor.supervisor import Supervisor


def up(
    interface: Annotated[
        str | None, typer.Option(help="The network card that serves the PCs.", metavar="IF", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Everything is written below this folder. [default: /var/lib/bootlink]")
    ] = None,
    services: Annotated[str, typer.Option(help="Which services to run, with commas.", metavar="A,B,C")] = ",".join(
        settings.ALL_SERVICES
    ),
    as_json: AsJson = False,
) -> None:
    """Run Bootlink on this machine: NATS, PostgreSQL and the services, until Ctrl-C.

    BOOTLINK_NATS_URL and BOOTLINK_DATABASE_URL name servers of your own instead of the embedded ones. Every service
    reads its settings from the environment: ports, addresses, the DHCP pool (see docs/ports.md).
    """
    try:
        wanted = settings.services_named(services)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--services") from error
    notifier = Notifier.taken_from(os.environ)
    chosen = settings.load()
    chosen = chosen.model_copy(
        update={k: v for k, v in {"data": data, "dhcp_interface": interface}.items() if v is not None}
    )
    plan = make_plan(chosen, wanted, os.environ)
    with folder.locked(plan.data) as lock:
        for variable, path in plan.secrets.items():
            folder.keep_secret(path, instead=variable)
        display = _display(as_json=as_json)
        try:
            asyncio.run(_supervise(plan, display, lock, notifier))
        except FailedToStart as error:
            raise CommandError(error.problem, error.remedy) from error
        finally:
            display.close()


def _display(*, as_json: bool) -> Display:
    if as_json:
        return JsonDisplay(sys.stdout)
    if in_journal(sys.stdout, os.environ):
        return JournalDisplay(sys.stdout)
    command_in = None if shutil.which("bootlink") else Path(sys.executable).parent
    return PeopleDisplay(Console(highlight=False), command_in=command_in)


async def _supervise(plan: UpPlan, display: Display, lock: int, notifier: Notifier) -> None:
    def happened(happening: Happening) -> None:
        display.happened(happening)
        if happening.what != "log":
            notifier.status(_status(supervisor))

    supervisor = Supervisor(plan.programs, happened, inherit=(lock,))

    def stop() -> None:
        notifier.stopping()
        display.stopping()
        supervisor.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    running = asyncio.create_task(supervisor.run())
    beating = asyncio.create_task(_beat(notifier))
    ready = asyncio.create_task(supervisor.all_ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        notifier.ready()
        display.ready(_facts(plan, supervisor))
    ready.cancel()
    try:
        await running
    finally:
        beating.cancel()


async def _beat(notifier: Notifier) -> None:
    """Show systemd that this loop turns, where the unit has a watchdog."""
    while notifier.beat_seconds:
        notifier.beat()
        await asyncio.sleep(notifier.beat_seconds)


def _status(supervisor: Supervisor) -> str:
    """What runs and what does not, in a line."""
    up = [keeper.program.name for keeper in supervisor.keepers if keeper.ready.is_set()]
    down = [keeper.program.name for keeper in supervisor.keepers if not keeper.ready.is_set()]
    return f"{', '.join(up) or 'nothing'} ready" + (f"; {', '.join(down)} not" if down else "")


def _facts(plan: UpPlan, supervisor: Supervisor) -> dict[str, Any]:
    """What whoever started it needs to know."""
    services = {k.program.name: dict(k.addresses) for k in supervisor.keepers if k.program.answers is None}
    api = services.get("registry", {}).get("api")
    return {
        "nats": plan.nats_url,
        "api": f"http://{api}" if api else None,
        "data": str(plan.data),
        "token_file": str(plan.token_file) if plan.token_file else None,
        "nats_key_file": str(plan.nats_key_file) if plan.nats_key_file else None,
        "services": services,
    }
