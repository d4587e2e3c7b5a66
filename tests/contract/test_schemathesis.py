"""The OpenAPI document is true: schemathesis makes requests from it, good ones and bad ones, for a real registry, and
compares every answer with what the document says."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from lab.nats import NatsServer
from lab.registry import TOKEN, raw_disk, registry_on

SECONDS = 30  # of requests; some hundred, over all operations
CONFIG = Path(__file__).with_name("schemathesis.toml")
MAC = "52:54:00:12:34:56"


@pytest.mark.timeout(180)
async def test_every_answer_is_one_that_the_document_tells_of(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It asks without a token for each operation, and expects 401, not to be told to wait.
    monkeypatch.setattr("bootlink_registry.api.guard.FAILURES", 1_000_000)
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.add_client(MAC, "pc-07", group="room-1")
        for scope, name in (("client", "pc-07"), ("group", "room-1"), ("default", "")):
            await registry.link(scope, name, "demo")
        url = f"{registry.http.base_url}/openapi.json"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", url, "--no-color"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--phases", "coverage,fuzzing"),
            *("--max-time", str(SECONDS), "--workers", "1"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        operations = sum(len(item) for item in (await registry.get("/openapi.json"))["paths"].values())
        assert re.search(rf"Tested: {operations}\b", said), said
        made = re.search(r"(\d+) generated", said)
        assert made is not None, said
        assert int(made[1]) > operations, said
