"""`bootlink install` and `bootlink uninstall`: `bootlink up` as a service of this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bootlink.errors import CommandError
from bootlink.output import console
from bootlink.settings import DEFAULT_DATA
from bootlink.supervisor import machine
from bootlink.supervisor.settings import ALL_SERVICES, services_named
from bootlink.systemd import installation


def install(
    interface: Annotated[
        str | None, typer.Option(help="The network card that serves the PCs.", metavar="IF", show_default=False)
    ] = None,
    data: Annotated[Path, typer.Option(help="Everything is written below this folder.")] = DEFAULT_DATA,
    services: Annotated[str, typer.Option(help="Which services to run, with commas.", metavar="A,B,C")] = ",".join(
        ALL_SERVICES
    ),
    user: Annotated[str, typer.Option(help="The user that it runs as; made if there is none.")] = installation.USER,
    start: Annotated[bool, typer.Option(help="Start it now, or anew.")] = True,
    print_only: Annotated[bool, typer.Option("--print", help="Show what would be written, and do nothing.")] = False,
) -> None:
    """Make `bootlink up` a service of this machine: started at its boot, restarted when it fails.

    The same command installs a newer version over an older one. Settings are kept in /etc/bootlink/bootlink.env.
    """
    try:
        wanted = services_named(services)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--services") from error
    if "dhcp" in wanted and interface not in machine.cards() and not (interface is None and print_only):
        raise CommandError(
            f"there is no network card {interface}" if interface else "no network card is named for dhcp",
            f"bootlink install --interface NAME; {machine.described_cards()}",
        )
    settings = {"BOOTLINK_DATA": str(data.absolute())}
    if interface:
        settings["BOOTLINK_DHCP_INTERFACE"] = interface
    command = Path(sys.executable).with_name("bootlink")
    plan = installation.Installation(
        program=(sys.executable, "-m", "bootlink"),
        settings=settings,
        data=data.absolute(),
        options=() if wanted == ALL_SERVICES else ("--services", ",".join(wanted)),
        user=user,
        link_to=command if command.exists() else None,
    )
    if print_only:
        for path, text in plan.files().items():
            typer.echo(f"# {path}\n{text}")
        return
    installation.install(plan, start=start)
    out = console()
    out.print(f"{installation.SERVICE} {'runs' if start else 'is installed'}, as {user}, on {data.absolute()}")
    out.print(f"settings: {installation.SETTINGS}; after a change: systemctl restart bootlink")
    out.print("its log: journalctl -u bootlink; what runs: bootlink status; away with it: bootlink uninstall")


def uninstall() -> None:
    """Stop the service and take it away. Images, clients, settings and its user stay."""
    installation.uninstall()
    console().print(f"{installation.SERVICE} is gone; {installation.SETTINGS} and the data folder stay")
