"""Reads of images under eviction, sharing, reading ahead and broken disks. (`make soak` runs more.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs import image_reads


@pytest.mark.parametrize("seed", [20261124, 20261125])
async def test_every_byte_is_right_whatever_is_read_at_once_evicted_or_broken(tmp_path: Path, seed: int) -> None:
    figures = await image_reads.reads(36, seed, tmp_path)
    assert figures["reads"] == 36 * image_reads.CLIENTS * image_reads.READS
    assert figures["reads that met a broken page"], "no read met one, so nothing was shown of them"
