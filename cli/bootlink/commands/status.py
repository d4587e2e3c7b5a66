"""`bootlink status`: who runs, where, and whether it is ready. Asked over NATS, so it needs no list of addresses."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from rich.text import Text

from bootlink.output import AsJson, console, print_json, print_table
from bootlink.settings import CommandSettings
from bootlink_runtime import NatsAccess, connect_once, survey

_START: Final = "where it should run, `bootlink up` says why it does not; where it runs, it does not reach this NATS"
MISSED: Final = {
    "registry": "nothing can be changed, and no new PC comes in",
    "blockstore": "no PC has a disk",
    "tftp": "no PC is sent its loader or script",
    "dhcp": "no PC is given an address, or told what to boot",
}
"""What does not work without a service, for which nobody else can speak."""


def status(as_json: AsJson = False) -> None:
    """Show the services that run, their addresses, whether they are ready, and what is wrong."""
    settings = CommandSettings.from_environment()
    url = settings.nats_url
    reports = asyncio.run(_survey(url, settings.nats_access()))
    silent = [service for service in MISSED if all(report["service"] != service for report in reports)]
    if as_json:
        ready = bool(reports) and all(r["ready"] for r in reports)
        print_json({"nats": url, "ready": ready, "services": reports, "silent": silent})
        return
    print_table(
        ("service", "node", "ready", "listens on"),
        [
            (
                report["service"],
                report["node"],
                Text("yes", style="green") if report["ready"] else Text("no", style="bold red"),
                ", ".join(f"{what} {address}" for what, address in report.get("addresses", {}).items()),
            )
            for report in reports
        ],
        empty=f"NATS runs at {url}, but no service of Bootlink answers there; "
        "unless it was started a moment ago, start them: bootlink up",
    )
    wrong = [(f"{report['service']} {report['node']}", line) for report in reports for line in _wrong(report)]
    if reports:
        wrong += [(service, f"does not answer, so {MISSED[service]}: {_START}") for service in silent]
    if wrong:
        console().print()
        print_table(("whose", "what is wrong"), wrong, empty="")


async def _survey(url: str, access: NatsAccess) -> list[dict[str, Any]]:
    client = await connect_once(url, "bootlink-status", access)
    try:
        return await survey(client)
    finally:
        await client.close()


def _wrong(report: dict[str, Any]) -> list[str]:
    return [f"{name}: {check['detail']}" for name, check in report.get("checks", {}).items() if not check["ok"]]
