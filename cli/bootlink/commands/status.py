"""`bootlink status`: who runs, where, and whether it is ready. Asked over NATS, so it needs no list of addresses."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.text import Text

from bootlink.output import AsJson, print_json, print_table
from bootlink.settings import CommandSettings
from bootlink_runtime import connect_once, survey


def status(as_json: AsJson = False) -> None:
    """Show the services that run, their addresses, and whether they are ready."""
    url = CommandSettings.from_environment().nats_url
    reports = asyncio.run(_survey(url))
    if as_json:
        print_json({"nats": url, "ready": bool(reports) and all(r["ready"] for r in reports), "services": reports})
        return
    print_table(
        ("service", "node", "ready", "listens on", "what is wrong"),
        [
            (
                report["service"],
                report["node"],
                Text("yes", style="green") if report["ready"] else Text("no", style="bold red"),
                ", ".join(f"{what} {address}" for what, address in report.get("addresses", {}).items()),
                "; ".join(_wrong(report)),
            )
            for report in reports
        ],
        empty=f"NATS runs at {url}, but no service of Bootlink answers there; start them: bootlink up",
    )


async def _survey(url: str) -> list[dict[str, Any]]:
    client = await connect_once(url, "bootlink-status")
    try:
        return await survey(client)
    finally:
        await client.close()


def _wrong(report: dict[str, Any]) -> list[str]:
    return [f"{name}: {check['detail']}" for name, check in report.get("checks", {}).items() if not check["ok"]]
