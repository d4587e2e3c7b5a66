"""A room of 500 PCs without disks is switched on: from each one's first DISCOVER to the script that starts its disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import boot_servers
from bench.boot_servers import SERVER
from bench.machine import cpu_seconds
from bench.report import Goal, Section, percentile, table
from bench.servers import mac
from bench.switched_on import Boot
from lab.boot_plans import plan
from lab.dhcp_client import FIRMWARE_PATIENCE
from lab.netns import Cable

PCS = 500
POOL = "10.77.64.0-10.77.127.250"
IPXE_PATIENCE = 1.0  # seconds until iPXE asks again for the first time


def room(folder: Path) -> Section:
    with serving(folder) as (cable, servers):
        before = [cpu_seconds(pid) for pid in servers]
        boots = switched_on(cable, PCS)
        used = [cpu_seconds(pid) - then for pid, then in zip(servers, before, strict=True)]
    there = [boot for boot in boots if not boot.problem]
    problems = sorted({boot.problem for boot in boots if boot.problem})
    if problems:
        print(*problems[:5], sep="\n", file=sys.stderr)
    waits = [boot.longest_wait for boot in boots]
    again = sum(boot.asked_again for boot in boots)
    rows = [
        (what, *(f"{percentile(values, percent):.2f}" for percent in (50, 99)), f"{max(values):.2f}")
        for what, values in (
            ("DISCOVER to loader", [boot.loader for boot in there]),
            ("DISCOVER to script", [boot.script for boot in there]),
            ("longest wait for one answer", waits),
        )
    ]
    late = sum(wait > IPXE_PATIENCE for wait in waits)
    text = (
        f"{PCS} simulated PCs ask at one moment: two DHCP exchanges each, a loader in blocks one at a time, a script. "
        f"dhcp and tftp share one core and used {used[0]:.1f} s and {used[1]:.1f} s of it; nats-server and the PCs "
        f"have the other. {len(there)} PCs got their script, {late} waited for longer than {IPXE_PATIENCE:.0f} s for "
        f"some answer, and {again} times one asked again, as firmware does after {FIRMWARE_PATIENCE:.0f} s.\n\n"
    )
    return Section(
        "A room that is switched on",
        text + table(("seconds", "p50", "p99", "longest"), rows),
        (
            Goal(
                f"{PCS} PCs at once, DISCOVER to script, without one firmware time-out",
                len(there) == PCS and not again,
                f"{len(there)} PCs, {again} time-outs, p50 {rows[1][1]} s, p99 {rows[1][2]} s",
            ),
        ),
    )


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Cable, list[int]]]:
    """dhcp and tftp beside one NATS, with a plan for each PC."""
    folder.mkdir(exist_ok=True)
    model = plan()
    plans = [model.model_copy(update={"mac": mac(number), "client": f"pc-{number:03}"}) for number in range(1, PCS + 1)]
    with boot_servers.lan() as cable, boot_servers.nats(folder, cable, plans) as url:
        loaders = str(boot_servers.loaders(folder))
        with (
            boot_servers.ours(
                "dhcp", folder, cable, url, interface=cable.server_card, pool=POOL, loaders=loaders
            ) as dhcp,
            boot_servers.ours("tftp", folder, cable, url, host=str(SERVER), port="69", loaders=loaders) as tftp,
        ):
            yield cable, [dhcp.pid, tftp.pid]


def switched_on(cable: Cable, count: int) -> list[Boot]:
    said = boot_servers.clients(cable, "switched_on", cable.client_card, str(SERVER), str(count))
    return [Boot(**json.loads(line)) for line in said]
