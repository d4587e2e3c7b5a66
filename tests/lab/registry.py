"""A running registry in the test's own loop, and disk images to add to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from bootlink_registry import SERVICE
from bootlink_registry.settings import RegistrySettings
from bootlink_runtime import Chassis, Telemetry, running

WAIT = 20.0  # seconds until a test gives up; what it waits for takes one or two
DISK_SIZE = 1 << 20  # bytes
TOKEN = "the-token-of-the-labs-administrator"  # BOOTLINK_ADMIN_TOKEN of the registries here
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


class Registry:
    """A running registry and an HTTP client for its API."""

    def __init__(self, chassis: Chassis, http: httpx.AsyncClient) -> None:
        self.chassis = chassis
        self.http = http

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def add_image(self, name: str, path: Path) -> Any:
        answer = await self.http.post("/v1/images", json={"name": name, "path": str(path)})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def job(self, path: str, /, **body: Any) -> Any:
        """Have long work done; the job at its end, whatever that is."""
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 202, answer.text
        return await self.job_over(answer.headers["location"])

    async def job_over(self, location: str) -> Any:
        """Wait for the end of a job."""
        job: dict[str, Any] = {}

        async def over() -> bool:
            job.update(await self.get(location))
            return job["state"] in ("done", "failed", "cancelled")

        await until(over, f"the end of {location}")
        return job

    async def result(self, path: str, /, **body: Any) -> Any:
        """Have long work done that must succeed; its result."""
        job = await self.job(path, **body)
        assert job["state"] == "done", job["problem"]
        return job["result"]

    async def add_client(self, mac: str, name: str, **more: Any) -> Any:
        answer = await self.http.post("/v1/clients", json={"mac": mac, "name": name, **more})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def all_told(self) -> None:
        """Wait until all that happened until now is published."""

        async def published() -> bool:
            return bool((await self.get("/v1/info"))["counts"]["unpublished_events"] == 0)

        await until(published, "the outbox to be empty")

    async def link(self, scope: str, name: str, image: str, **more: Any) -> Any:
        body = {"scope": scope, "name": name, "image": image, **more}
        answer = await self.http.put("/v1/links", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.asynccontextmanager
async def registry_on(
    nats_url: str, database_url: str, folder: Path, *, telemetry: Telemetry | None = None, **settings: Any
) -> AsyncIterator[Registry]:
    """A registry on free ports, ready, with its data below `folder`."""
    told: dict[str, Any] = {"nats_url": nats_url, "database_url": database_url, "data": folder, "node": "lab"}
    told |= {"api_port": 0, "admin_token": TOKEN} | settings
    async with running(SERVICE, RegistrySettings(**told), telemetry=telemetry) as chassis, api_of(chassis) as http:
        yield Registry(chassis, http)


@contextlib.asynccontextmanager
async def api_of(chassis: Chassis) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for the API of this registry."""
    address = next(address for address in chassis.health.addresses if address.what == "api")
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=WAIT, headers=AUTHORISED) as http:
        yield http


def problem(answer: httpx.Response, status: int) -> Any:
    """The problem document of an answer, which must be one with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["detail"]
    assert told["remedy"]
    return told


def raw_disk(path: Path, *, size: int = DISK_SIZE) -> Path:
    """A raw disk with a boot signature and nothing else."""
    with path.open("wb") as out:
        out.truncate(size)
        out.seek(510)
        out.write(b"\x55\xaa")
    return path


# Prints the text behind it on the console, by the BIOS, and stops (16 bit, at 0x7C00):
#   cld; xor ax,ax; mov ds,ax; mov si,text; next: lodsb; test al,al; jz stop; mov ah,0Eh; mov bx,7; int 10h; jmp next
#   stop: hlt; jmp stop
_CYLINDERS = 16 << 20  # bytes; iPXE reads a boot sector by cylinder, head and sector: a disk must have a cylinder
_PRINTS = bytes.fromhex("fc 31c0 8ed8 be197c ac 84c0 7409 b40e bb0700 cd10 ebf2 f4 ebfd")


def speaking_disk(path: Path, text: str) -> Path:
    """A raw disk whose boot sector shows `text` on the PC's console."""
    raw_disk(path, size=_CYLINDERS)
    with path.open("r+b") as out:
        out.write(_PRINTS + text.encode("ascii") + b"\0")
    return path


async def until(holds: Callable[[], bool | Awaitable[bool]], what: str, *, seconds: float = WAIT) -> None:
    """Wait until `holds()`."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = holds()
                if answer if isinstance(answer, bool) else await answer:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:.0f} s") from None
