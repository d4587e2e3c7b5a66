"""An image whose versions stand on one another, and what a version shows by the layers that the registry names."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from bootlink_disks import ImageInfo, create_vhd_differencing, create_vhd_dynamic, open_layer
from lab.disks import MIB, apply_changes, changes_of, sparse_disk
from lab.registry import Registry
from lab.stack import read_stack

SIZE = 8 * MIB


class Chain:
    """An image whose versions stand on one another, and what each of them shows."""

    def __init__(self, folder: Path, length: int) -> None:
        raw = sparse_disk(folder / "gold.img", SIZE)
        shown = bytearray(raw.read_bytes())
        self.files: list[ImageInfo] = [create_vhd_dynamic(folder / "gold-1.vhd", raw)]
        self.shows = [bytes(shown)]
        for number in range(2, length + 1):
            changes = changes_of(random.Random(number), SIZE, 20)
            self.files.append(create_vhd_differencing(folder / f"gold-{number}.vhd", self.files[-1], changes))
            apply_changes(shown, changes)
            self.shows.append(bytes(shown))

    async def add_to(self, registry: Registry) -> None:
        await registry.add_image("gold", self.files[0].path)
        for number, file in enumerate(self.files[1:], 2):
            body = {"path": str(file.path), "parent": {"image": "gold", "version": number - 1}}
            answer = await registry.http.post("/v1/images/gold/versions", json=body)
            assert answer.status_code == 201, answer.text
        answer = await registry.http.put("/v1/images/gold/channels/production", json={"version": len(self.files)})
        assert answer.status_code == 200, answer.text


async def shown(registry: Registry, image: str, number: int) -> bytes:
    """What a version shows, read from the layers that the registry names, top first."""
    rows = {row["layer"]: row for row in (await registry.get(f"/v1/images/{image}/versions"))["items"]}
    row: Any = await registry.get(f"/v1/images/{image}/versions/{number}")
    opened = []
    try:
        while row is not None:
            opened.append(open_layer(row["path"], row["format"], file_size=row["file_size"]))
            row = rows[row["below"]] if row["below"] else None
        return read_stack(opened, 0, opened[0].size)
    finally:
        for layer in opened:
            layer.close()
