"""Importing into the image store, and what the store holds after crashes, merges and removals."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import BootId
from bootlink_registry import making, store
from bootlink_registry.database import Database
from bootlink_registry.store import Place, Sweeper
from bootlink_runtime import logger
from lab.blockstore import make_image
from lab.chain import Chain, shown
from lab.disks import MIB, digest, qemu_img, sparse_disk
from lab.filesystem import small
from lab.nats import NatsServer
from lab.registry import Registry, problem, raw_disk, registry_on, until
from lab.web import Page, Web

SIZE = 8 * MIB
MAC = "52:54:00:12:34:56"


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        yield running


def stored(folder: Path) -> list[str]:
    """The names of all files in the store."""
    return sorted(str(path.relative_to(folder / "data" / "images")) for path in folder.glob("data/images/*/*"))


# -- importing ------------------------------------------------------------------------------------------------------


async def test_an_import_is_a_copy_of_its_own_and_the_source_is_not_needed_again(
    registry: Registry, tmp_path: Path
) -> None:
    source = sparse_disk(tmp_path / "source.img", SIZE)
    qcow2 = tmp_path / "source.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", source, qcow2)
    before = digest(qcow2)
    result = await registry.result("/v1/imports", name="gold", source=str(qcow2), sha256=before, note="from elsewhere")
    assert result["source_checked"] is True
    assert digest(qcow2) == before
    qcow2.unlink()
    (version,) = (await registry.get("/v1/images/gold"))["versions"]
    assert (version["number"], version["format"], version["owned"]) == (1, "vhd-dynamic", True)
    assert (version["note"], version["channels"]) == ("from elsewhere", ["production"])
    path = Path(version["path"])
    assert version["sha256"] == result["sha256"] == digest(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    qemu_img("compare", "-f", "vpc", "-F", "raw", path, source)
    assert stored(tmp_path) == [f"gold/{path.name}"]


async def test_a_further_import_is_a_new_version_and_may_be_published_at_once(
    registry: Registry, tmp_path: Path
) -> None:
    source = sparse_disk(tmp_path / "one.img", SIZE)
    for form, number in (("raw", 1), ("vhdx", 2)):
        more: dict[str, Any] = {} if number == 1 else {"new_version": True, "channel": "test"}
        await registry.result("/v1/imports", name="gold", source=str(source), format=form, **more)
    image = await registry.get("/v1/images/gold")
    assert image["channels"] == {"production": 1, "test": 2}
    assert [version["format"] for version in image["versions"]] == ["vhdx", "raw"]


async def test_a_checksum_beside_the_source_is_compared_before_the_image_exists(
    registry: Registry, tmp_path: Path
) -> None:
    source = sparse_disk(tmp_path / "source.img", SIZE)
    beside = tmp_path / "source.img.sha256"
    beside.write_text(f"{'0' * 64}  source.img\n")
    job = await registry.job("/v1/imports", name="gold", source=str(source))
    assert job["state"] == "failed"
    assert "SHA-256" in job["problem"]["detail"]
    problem(await registry.http.get("/v1/images/gold"), 404)
    assert stored(tmp_path) == []
    beside.write_text(f"{digest(source)}  source.img\n")
    assert (await registry.result("/v1/imports", name="gold", source=str(source)))["source_checked"] is True


async def test_an_import_that_cannot_begin_is_refused_at_once(registry: Registry, tmp_path: Path) -> None:
    await registry.add_image("taken", raw_disk(tmp_path / "taken.img"))
    for body, status in (
        ({"name": "taken", "source": "/x.img"}, 409),
        ({"name": "gone", "source": "/x.img", "new_version": True}, 404),
        ({"name": "gold", "source": "x.img"}, 422),
        ({"name": "gold", "source": "ftp://server/x.img"}, 422),
        ({"name": "gold", "source": "http://"}, 422),
        ({"name": "gold", "source": "http://me:secret@server/x.img"}, 422),
        ({"name": "gold", "source": "/x.img", "sha256": "abc"}, 422),
        ({"name": "gold", "source": "/x.img", "channel": "test"}, 422),
    ):
        problem(await registry.http.post("/v1/imports", json=body), status)


async def test_a_source_that_is_no_disk_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no disk\n" * 100)
    for source in (text, tmp_path / "gone.img"):
        job = await registry.job("/v1/imports", name="gold", source=str(source))
        assert job["state"] == "failed"
        assert str(source) in job["problem"]["detail"]
        assert job["problem"]["remedy"]
    problem(await registry.http.get("/v1/images/gold"), 404)
    assert stored(tmp_path) == []


async def test_an_image_comes_from_a_url_and_is_compared_with_the_checksum_beside_it(
    registry: Registry, tmp_path: Path
) -> None:
    source = sparse_disk(tmp_path / "source.img", SIZE)
    with Web() as web:
        web.pages["/win.img"] = Page(source.read_bytes())
        web.pages["/win.img.sha256"] = Page(f"{digest(source)}  win.img\n".encode())
        web.pages["/text"] = Page(b"no disk\n" * 100)
        result = await registry.result("/v1/imports", name="gold", source=f"{web.url}/win.img")
        assert result["source_checked"] is True
        qemu_img("compare", "-f", "vpc", "-F", "raw", result["path"], source)
        job = await registry.job("/v1/imports", name="other", source=f"{web.url}/text")
        assert job["state"] == "failed"
        assert f"{web.url}/text" in job["problem"]["detail"]
        job = await registry.job("/v1/imports", name="other", source=f"{web.url}/win.img", sha256="0" * 64)
        assert "SHA-256" in job["problem"]["detail"]
    assert stored(tmp_path) == [f"gold/{Path(result['path']).name}"]
    problem(await registry.http.get("/v1/images/other"), 404)


async def test_what_a_failed_import_has_fetched_is_not_taken_for_what_is_there_now(
    registry: Registry, tmp_path: Path
) -> None:
    former, wanted = sparse_disk(tmp_path / "former.img", SIZE, seed=1), sparse_disk(tmp_path / "new.img", SIZE, seed=2)
    with Web() as web:
        web.pages["/win.img"] = Page(former.read_bytes())
        await registry.add_image("other", raw_disk(tmp_path / "other.img"))
        answer = await registry.http.post("/v1/imports", json={"name": "gold", "source": f"{web.url}/win.img"})
        await registry.add_image("gold", raw_disk(tmp_path / "gold.img"))  # somebody else was quicker
        assert (await registry.job_over(answer.headers["location"]))["state"] == "failed"
        web.pages["/win.img"] = Page(wanted.read_bytes())
        result = await registry.result(
            "/v1/imports", name="gold", source=f"{web.url}/win.img", sha256=digest(wanted), new_version=True
        )
    assert result["source_checked"] is True
    qemu_img("compare", "-f", "vpc", "-F", "raw", result["path"], wanted)


async def test_a_download_goes_on_after_a_restart_of_the_registry(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    source = sparse_disk(tmp_path / "source.img", SIZE)
    with Web() as web:
        page = web.pages["/win.img"] = Page(source.read_bytes(), hang_up_after=SIZE // 4)
        async with registry_on(nats.url, database, tmp_path / "data") as registry:
            answer = await registry.http.post("/v1/imports", json={"name": "gold", "source": f"{web.url}/win.img"})
            await until(lambda: any(name.endswith(".part.json") for name in stored(tmp_path)), "half of it")
        page.hang_up_after = None
        web.asked.clear()
        async with registry_on(nats.url, database, tmp_path / "data") as registry:
            over = await registry.job_over(answer.headers["location"])
        assert (over["state"], over["attempts"]) == ("done", 2), over["problem"]
        (asked,) = [asked for path, asked in web.asked if path == "/win.img"]
        assert asked is not None, "it began anew"
    qemu_img("compare", "-f", "vpc", "-F", "raw", over["result"]["path"], source)
    assert stored(tmp_path) == [f"gold/{Path(over['result']['path']).name}"]


async def test_a_disk_that_fills_during_an_import_leaves_nothing_behind(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    source = make_image(tmp_path / "source.img", 32 * MIB)
    with small("ext4", tmp_path, 16 * MIB) as full:
        async with registry_on(nats.url, database, tmp_path / "data", store=full / "images") as registry:
            job = await registry.job("/v1/imports", name="gold", source=str(source))
            assert job["state"] == "failed"
            assert "it cannot be written" in job["problem"]["detail"] or "is full" in job["problem"]["detail"]
            assert "free some space" in job["problem"]["remedy"]
            problem(await registry.http.get("/v1/images/gold"), 404)
        assert list((full / "images").rglob("*.*")) == []


# -- crashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["before the draft has its name", "before the row"])
async def test_an_import_that_was_interrupted_is_done_by_the_next_registry_once(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    source = sparse_disk(tmp_path / "source.img", SIZE)
    reached = asyncio.Event()

    async def interrupted(*_: Any, **__: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        if step == "before the row":
            patched.setattr(making, "record", interrupted)
        else:
            patched.setattr(Place, "seal", interrupted)
        async with registry_on(nats.url, database, tmp_path / "data") as registry:
            answer = await registry.http.post("/v1/imports", json={"name": "gold", "source": str(source)})
            job = answer.headers["location"]
            await asyncio.wait_for(reached.wait(), 20)
            problem(await registry.http.get("/v1/images/gold"), 404)
    if step == "before the row":
        assert len(stored(tmp_path)) == 1
    else:  # what a kill leaves, where a stop cleans up
        number = job.rpartition("/")[2]
        (tmp_path / "data" / "images" / "gold" / f"{number}.vhd.tmp-{number}").write_bytes(b"half of it")
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        over = await registry.job_over(job)
        assert (over["state"], over["attempts"]) == ("done", 2), over["problem"]
        (version,) = (await registry.get("/v1/images/gold"))["versions"]
        assert stored(tmp_path) == [f"gold/{Path(version['path']).name}"]
        assert version["sha256"] == digest(Path(version["path"]))
        qemu_img("compare", "-f", "vpc", "-F", "raw", version["path"], source)


async def test_a_raw_import_that_was_interrupted_stays_what_its_source_was_said_to_be(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last sector looks like the footer of a fixed VHD, which is not for the bytes of a raw disk to say."""
    source = tmp_path / "source.img"
    qemu_img("convert", "-O", "vpc", "-o", "subformat=fixed", raw_disk(tmp_path / "flat.img"), source)
    reached = asyncio.Event()

    async def interrupted(*_: Any, **__: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(making, "record", interrupted)
        async with registry_on(nats.url, database, tmp_path / "data") as registry:
            wanted = {"name": "gold", "source": str(source), "source_format": "raw", "format": "raw"}
            job = (await registry.http.post("/v1/imports", json=wanted)).headers["location"]
            await asyncio.wait_for(reached.wait(), 20)
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        over = await registry.job_over(job)
        assert over["state"] == "done", over["problem"]
        (version,) = (await registry.get("/v1/images/gold"))["versions"]
        assert (version["format"], version["virtual_size"]) == ("raw", source.stat().st_size)
        assert version["sha256"] == digest(source)


async def test_a_merge_that_was_interrupted_is_done_by_the_next_registry_once(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(tmp_path, 2)
    reached = asyncio.Event()

    async def interrupted(*_: Any, **__: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(making, "record", interrupted)
        async with registry_on(nats.url, database, tmp_path / "data") as registry:
            await chain.add_to(registry)
            answer = await registry.http.post("/v1/images/gold/merge", json={})
            await asyncio.wait_for(reached.wait(), 20)
            before = await registry.get("/v1/images/gold/versions/2")
            assert before["layers"] == 2  # the old state, whole
            assert await shown(registry, "gold", 2) == chain.shows[1]
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        over = await registry.job_over(answer.headers["location"])
        assert (over["state"], over["attempts"]) == ("done", 2), over["problem"]
        after = await registry.get("/v1/images/gold/versions/2")
        assert (after["layers"], after["content"]) == (1, before["content"])
        assert await shown(registry, "gold", 2) == chain.shows[1]
        assert stored(tmp_path) == [f"gold/{Path(after['path']).name}"]


async def test_a_cancelled_import_leaves_nothing_behind(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def slow(self: Place) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Place, "seal", slow)
    source = sparse_disk(tmp_path / "source.img", SIZE)
    answer = await registry.http.post("/v1/imports", json={"name": "gold", "source": str(source)})
    await asyncio.wait_for(reached.wait(), 20)
    assert (await registry.http.post(f"{answer.headers['location']}/cancel")).status_code == 200
    assert (await registry.job_over(answer.headers["location"]))["state"] == "cancelled"
    assert stored(tmp_path) == []
    problem(await registry.http.get("/v1/images/gold"), 404)


# -- the sweeper ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def sweeping(url: str, folder: Path, *, retired_days: float = 7) -> AsyncIterator[tuple[Sweeper, Database]]:
    rows = Database(url, logger("test"))
    await rows.open()
    try:
        yield Sweeper(folder / "data" / "images", rows, logger("test"), retired_days=retired_days), rows
    finally:
        await rows.close()


async def test_the_sweeper_removes_what_nobody_names_and_nothing_else(
    registry: Registry, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.result("/v1/imports", name="gold", source=str(sparse_disk(tmp_path / "a.img", SIZE)))
    (layer,) = stored(tmp_path)
    folder = tmp_path / "data" / "images" / "gold"
    job, other = uuid.uuid4(), uuid.uuid4()
    draft, orphan, half = f"{job}.vhd.tmp-{job}", f"{job}.vhd", "download-abc.part"
    strange = f"{other}.vhd"  # of another database, perhaps
    for name in (draft, orphan, half, strange):
        (folder / name).write_bytes(b"left over")
    everything = sorted([layer, *(f"gold/{name}" for name in (draft, orphan, half, strange))])
    async with sweeping(database, tmp_path) as (sweeper, rows):

        async def swept(state: str) -> list[str]:
            async with rows.transaction() as connection:
                await connection.execute(
                    """
                    INSERT INTO jobs (id, kind, subject, request, state, ended)
                    VALUES ($1, 'image.none', 'gold', '{}', $2, $3)
                    ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended = excluded.ended
                    """,
                    *(job, state, datetime.now(UTC) if state == "failed" else None),
                )
            await sweeper.sweep()
            return stored(tmp_path)

        assert await swept("failed") == everything  # they are fresh
        monkeypatch.setattr(store, "SETTLED_SECONDS", -1.0)
        monkeypatch.setattr(store, "DOWNLOAD_SECONDS", -1.0)
        # No other job of the registry takes this one up: it knows no work of that kind, and would end it.
        assert await swept("running") == everything
        assert await swept("failed") == sorted([layer, f"gold/{strange}"])
    assert await registry.get("/v1/images/gold")


async def test_a_layer_that_was_left_goes_when_no_boot_of_before_lasts(
    registry: Registry, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SETTLED_SECONDS", -1.0)
    await registry.add_client(MAC, "pc-07")
    await registry.result("/v1/imports", name="gold", source=str(sparse_disk(tmp_path / "a.img", SIZE)))
    (layer,) = stored(tmp_path)
    boot = uuid.UUID(int=BootId.mint().int)
    async with sweeping(database, tmp_path, retired_days=0) as (sweeper, rows):
        async with rows.transaction() as connection:
            await connection.execute(
                "INSERT INTO boots (boot_id, mac, state, started, summary) VALUES ($1, $2, 'running', now(), '{}')",
                *(boot, MAC),
            )
        assert (await registry.http.delete("/v1/images/gold")).status_code == 204
        await sweeper.sweep()
        assert stored(tmp_path) == [layer]  # the PC that runs reads it
        async with rows.transaction() as connection:
            await connection.execute("UPDATE boots SET state = 'ended' WHERE boot_id = $1", boot)
        with contextlib.suppress(ZeroDivisionError):
            async with rows.transaction() as connection:
                await connection.execute("INSERT INTO recompiles (scope, key) VALUES ('client', $1)", MAC)
                assert await store.forget_retired(connection, 0) == [], "a plan that waits may name it still"
                raise ZeroDivisionError  # so that nobody delivers it
        await sweeper.sweep()
    assert stored(tmp_path) == []
    await registry.result("/v1/imports", name="gold", source=str(tmp_path / "a.img"))
    assert len(stored(tmp_path)) == 1
