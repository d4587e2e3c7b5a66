"""`bootlink cache`: what the block stores hold in RAM, and how much of what PCs read they answer from there."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.text import Text

from bootlink.output import AsJson, console, print_json, print_table, size
from bootlink.settings import CommandSettings
from bootlink_runtime import NatsAccess, ask, connect_once

LOW_RATIO = 0.9  # below, disks do much of the work: shown in yellow


def cache(as_json: AsJson = False) -> None:
    """Show each block store's RAM cache: its budget, and every layer's hit ratio and share of it."""
    settings = CommandSettings.from_environment()
    url = settings.nats_url
    nodes = asyncio.run(_ask(url, settings.nats_access()))
    if as_json:
        print_json(nodes)
        return
    out = console()
    for node in nodes:
        out.print(
            Text.assemble(
                (node["node"], "bold"),
                f"  {size(node['used'])} of {size(node['budget'])} used, hit ratio ",
                _percent(node["hit_ratio"]),
            )
        )
    print_table(
        (
            "node",
            "layer",
            "images",
            "clients",
            "hit ratio",
            "held",
            "file read",
            "read ahead",
            "in vain",
            "evicted",
        ),
        [
            (
                node["node"],
                layer["path"],
                layer["images"],
                layer["clients"],
                _percent(layer["hit_ratio"]),
                size(layer["bytes"]),
                size(layer["bytes_read"]),
                layer["read_ahead"],
                layer["read_ahead_wasted"],
                layer["evicted"],
            )
            for node in nodes
            for layer in node["layers"]
        ],
        empty="no layer is open: no PC has logged in to its disk yet"
        if nodes
        else f"NATS runs at {url}, but no block store answers there; start one: bootlink up",
    )


async def _ask(url: str, access: NatsAccess) -> list[dict[str, Any]]:
    client = await connect_once(url, "bootlink-cache", access)
    try:
        return await ask(client, "cache", "blockstore")
    finally:
        await client.close()


def _percent(ratio: float | None) -> Text:
    if ratio is None:
        return Text("-")
    # Cut, not rounded: 100 % is said only where nothing was missed.
    return Text(f"{int(ratio * 10_000) / 100:.2f} %", style="green" if ratio >= LOW_RATIO else "yellow")
