"""kill -9 of a block store in the middle of exports, again and again.

A super client writes and trims over iSCSI and logs out; its write-back is asked for as a layer, over NATS, and the
process is killed at some moment of that. Then there is no file of the layer's name, or it is whole. The block store is
started again, and whoever asks goes on asking: the layer is done, and shows what the client saw. The client comes back
to its boot, and finds the disk that it left.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

from bootlink_disks import DiskError, Stack, open_layer, probe, require_chain
from bootlink_events.commands import DisconnectClient
from lab.blockstore import MAC, digest, layer_plan, make_image, plan
from lab.super_client import Lab, export_command, hour_ago, lab, whole, write_at_random
from rigs.figures import Figures, Violation

SIZE = 8 << 20
BOOT = hour_ago()


def shown(*paths: Path) -> bytes:
    """The disk of these files, top first. Violation if they are none."""
    layers = []
    try:
        layers = [open_layer(path, probe(path).format) for path in paths]
        require_chain([layer.info for layer in layers])
        return Stack(layers).read(0, SIZE)
    except DiskError as error:
        raise Violation(f"a layer has its name and cannot be read: {error}") from error
    finally:
        for layer in layers:
            layer.close()


async def _round(running: Lab, number: int, base: Path, held: bytearray, random: Random, longest: float) -> float:
    """One export, killed within `longest` seconds of its begin, unless that is 0. How long the export took."""
    pc = await running.login(BOOT)
    if await whole(pc, SIZE) != held:
        raise Violation("the client found another disk than it left")
    await write_at_random(pc, held, random, 20)
    await pc.close()
    await running.ask(DisconnectClient(mac=MAC))
    command = export_command(running.images, f"job-{number}", layer_plan(base))
    target = Path(command.target)
    began = time.monotonic()
    await running.ask(command)
    if longest:
        await asyncio.sleep(random.random() * longest)
        await asyncio.to_thread(running.service.kill)
        if target.exists() and shown(target, base) != held:
            raise Violation("a layer has its name and shows something else than the client saw")
        await asyncio.to_thread(running.service.start)
    state = await running.exported(command)
    if state.result is None:
        raise Violation(f"the export was not made after all: {state.detail}")
    if shown(target, base) != held or state.result.sha256 != digest(target):
        raise Violation("the layer shows something else than the client saw")
    if [path.name for path in running.images.iterdir()] != [target.name]:
        raise Violation("a draft is left")
    target.unlink()
    return time.monotonic() - began


async def _run(count: int, seed: int, folder: Path) -> Figures:
    random, base = Random(seed), make_image(folder / "base.img", SIZE)
    before, held = digest(base), bytearray(base.read_bytes())
    async with lab(folder) as running:
        await running.plan(plan(base, policy="super", content="branch"))
        longest = await _round(running, 0, base, held, random, 0)
        for number in range(1, count + 1):
            try:
                await _round(running, number, base, held, random, longest)
            except Violation as violation:
                raise Violation(f"seed {seed}, kill {number}: {violation}") from None
    if digest(base) != before:
        raise Violation(f"seed {seed}: the layer below has changed")
    return {"kills": count, "longest export, seconds": round(longest, 1), "violations": 0}


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` kills."""
    return asyncio.run(_run(count, seed, folder))
