"""Checksums: computed when a file was added in place, and compared when an image is verified.

Both read whole files, so both are jobs. What verifying finds is written to the layers, from where plans are compiled:
a client is not sent to a disk that is damaged. Verifying is also what makes a damaged layer a sound one again, once
its file was restored.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Final

from bootlink_disks import DiskError, require_chain
from bootlink_registry import images, imaging, versions
from bootlink_registry.catalogue import Layer
from bootlink_registry.database import Connection
from bootlink_registry.jobs.queue import submit
from bootlink_registry.jobs.work import Work
from bootlink_registry.problems import Problem

_FINDINGS: Final = {"missing": "the file is gone", "changed": "the file was changed after it was added"}


async def submit_hashing(connection: Connection, layer: uuid.UUID, *, subject: str, author: str, source: str) -> None:
    """Have a layer's checksum computed, in the background."""
    await submit(
        connection,
        kind="image.hash",
        subject=subject,
        exclusive=f"layer:{layer}",
        request={"layer": str(layer)},
        author=author,
        source=source,
    )


async def hash_layer(work: Work) -> dict[str, Any]:
    """The job `image.hash`."""
    layer = uuid.UUID(work.request["layer"])
    async with work.database.transaction() as connection:
        row = await connection.fetchrow("SELECT * FROM layers WHERE id = $1", layer)
    if row is None:
        return {"sha256": None}  # it was removed meanwhile
    found = await imaging.run(imaging.Hash(path=row["path"]), lambda done, total: work.progress(done, total, "hashing"))
    if (found.size, found.mtime_ns) != (row["file_size"], row["mtime_ns"]):
        raise Problem(
            409,
            f"{row['path']} was changed after it was added",
            "restore the file as it was, or add the changed one as a new version",
        )
    result = {"sha256": found.sha256, "size": found.size}
    async with work.database.transaction() as connection:
        await connection.execute("UPDATE layers SET sha256 = $2 WHERE id = $1 AND sha256 IS NULL", layer, found.sha256)
        await work.finish(connection, result)
    return result


async def verify(work: Work) -> dict[str, Any]:
    """The job `image.verify`: every layer of an image, or of one version of it."""
    image, number = work.subject, work.request.get("version")
    async with work.database.transaction() as connection:
        numbers = [number] if number is not None else await versions.numbers_of(connection, image)
        stacks = {each: await images.stack_of(connection, image, each) for each in numbers}
    layers = {layer.id: layer for stack in stacks.values() for layer in stack}
    total = sum(layer.file_size for layer in layers.values())
    done = 0
    findings: dict[str, dict[str, Any]] = {}
    for layer in layers.values():
        findings[layer.id] = await _verify_layer(work, layer, done, total)
        done += layer.file_size
    broken = {each: finding for each, stack in stacks.items() if (finding := await _chain(work, stack))}
    told = [{"layer": layer.id, "path": layer.path, **findings[layer.id]} for layer in layers.values()]
    return {
        "sound": not broken and all(finding["finding"] is None for finding in findings.values()),
        "layers": told,
        "chains": [{"version": each, "finding": finding} for each, finding in sorted(broken.items())],
        "versions": sorted(stacks),
    }


async def _verify_layer(work: Work, layer: Layer, before: int, total: int) -> dict[str, Any]:
    """Read one layer's file; what is found is written to its row. The finding and the checksum."""
    fault = await work.layers.look(layer)
    finding: str | None = _FINDINGS.get(fault or "")
    sha256: str | None = None
    if fault is None:
        found = await imaging.run(
            imaging.Hash(path=Path(layer.path)), lambda done, _: work.progress(before + done, total, "reading")
        )
        sha256 = found.sha256
    async with work.database.transaction() as connection:
        known = await connection.fetchval("SELECT sha256 FROM layers WHERE id = $1", uuid.UUID(layer.id))
        if fault is None and known is not None and known != sha256:
            fault, finding = "corrupt", f"the file is damaged: its SHA-256 is {sha256}, and was {known}"
        if fault is None and known is None:
            await connection.execute("UPDATE layers SET sha256 = $2 WHERE id = $1", uuid.UUID(layer.id), sha256)
        if fault != layer.fault:
            await images.set_fault(connection, layer, fault)
    return {"finding": finding, "sha256": sha256, "known": known is not None}


async def _chain(work: Work, stack: tuple[Layer, ...]) -> str | None:
    """What is wrong with the chain of a version's layers; None if nothing is."""
    try:
        require_chain([await work.layers.probe(Path(layer.path)) for layer in stack])
    except DiskError as error:
        return error.problem
    except Problem as problem:
        return problem.detail
    return None
