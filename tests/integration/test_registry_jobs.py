"""Long work of the registry: jobs are begun, told of, cancelled, and survive its restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import JobChanged, JobProgress
from bootlink_registry import jobs, service
from bootlink_registry.database import Database
from bootlink_registry.jobs import JobKind, Work
from bootlink_registry.problems import Problem
from bootlink_runtime import follow, logger
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.registry import Registry, registry_on, until

SOURCE = "/test/lab"


def use(monkeypatch: pytest.MonkeyPatch, *kinds: JobKind) -> None:
    """Let the registry know these kinds of jobs, and no others."""
    monkeypatch.setattr(service, "KINDS", {kind.name: kind for kind in kinds})


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """The registry's database, as a request has it."""
    database = Database(url, logger("test"))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def submit(database: Database, kind: str, *, exclusive: str | None = None, **request: Any) -> str:
    async with database.transaction() as connection:
        job = await jobs.submit(
            connection,
            kind=kind,
            subject="win11",
            request=request,
            author="ann",
            source=SOURCE,
            exclusive=exclusive,
        )
    return str(job)


async def until_over(registry: Registry, job: str) -> Any:
    async def over() -> bool:
        answer = await registry.http.get(f"/v1/jobs/{job}")
        return answer.status_code == 200 and answer.json()["ended"] is not None  # 503 while the database is away

    await until(over, "the end of the job")
    return await registry.get(f"/v1/jobs/{job}")


async def until_running(registry: Registry, job: str) -> None:
    async def running() -> bool:
        return bool((await registry.get(f"/v1/jobs/{job}"))["state"] == "running")

    await until(running, "the job's beginning")


async def told(nats: NatsServer) -> list[Any]:
    """What was published about jobs."""
    async with bus_on(nats.url, service="reader", make=False) as bus:
        return [event.decode() async for event in follow(bus, subject="bootlink.v1.job.>", wait=False)]


async def count_up(work: Work) -> dict[str, Any]:
    for number in range(3):
        await work.progress(number, 3, f"number {number}")
    return {"counted": work.request["to"], "by": work.author}


async def wait_for_ever(work: Work) -> dict[str, Any]:
    await work.progress(0, None, "waiting")
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_job_is_done_and_all_hear_of_it(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, JobKind("count", count_up))
    async with registry_on(nats.url, database, tmp_path) as registry, opened(database) as rows:
        job = await submit(rows, "count", to=3)
        over = await until_over(registry, job)
        assert over["state"] == "done"
        assert over["result"] == {"counted": 3, "by": "ann"}
        assert (over["done"], over["total"], over["attempts"]) == (3, 3, 1)
        listed = await registry.get("/v1/jobs", kind="count", subject="win11", state="done")
        assert [one["id"] for one in listed["items"]] == [job]

        async def published() -> bool:
            return [event.state for event in await told(nats) if isinstance(event, JobChanged)] == [
                *("queued", "running", "done")
            ]

        await until(published, "the job's events")
        stages = [event.stage for event in await told(nats) if isinstance(event, JobProgress)]
        assert stages == ["number 0", "number 1", "number 2"]


async def test_what_a_job_is_refused_is_its_problem(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Work) -> dict[str, Any]:
        raise Problem(422, "the file lies about its size", "make it anew")

    async def break_down(_: Work) -> dict[str, Any]:
        raise ZeroDivisionError("division by zero")

    use(monkeypatch, JobKind("refuse", refuse), JobKind("break", break_down))
    async with registry_on(nats.url, database, tmp_path) as registry, opened(database) as rows:
        refused = await until_over(registry, await submit(rows, "refuse"))
        assert refused["state"] == "failed"
        assert refused["problem"] == {"detail": "the file lies about its size", "remedy": "make it anew"}
        broken = await until_over(registry, await submit(rows, "break"))
        assert broken["state"] == "failed"
        assert "division by zero" in broken["problem"]["detail"]
        unknown = await until_over(registry, await submit(rows, "from the future"))
        assert "knows no work 'from the future'" in unknown["problem"]["detail"]


async def test_one_job_at_a_time_works_on_one_thing(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, JobKind("wait", wait_for_ever))
    async with registry_on(nats.url, database, tmp_path) as registry, opened(database) as rows:
        first = await submit(rows, "wait", exclusive="image:win11")
        with pytest.raises(Problem, match=f"wait of win11.*bootlink job cancel {first}") as refused:
            await submit(rows, "wait", exclusive="image:win11")
        assert refused.value.status == 409
        await submit(rows, "wait", exclusive="image:other")
        await until_running(registry, first)
        assert (await registry.http.post(f"/v1/jobs/{first}/cancel")).status_code == 200
        assert (await until_over(registry, first))["state"] == "cancelled"
        await submit(rows, "wait", exclusive="image:win11")


async def test_a_cancelled_job_cleans_up_and_is_told_why(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = tmp_path / "draft"

    async def write(work: Work) -> dict[str, Any]:
        draft.touch()
        try:
            return await wait_for_ever(work)
        finally:
            if work.cancelled:
                draft.unlink()

    use(monkeypatch, JobKind("write", write))
    async with registry_on(nats.url, database, tmp_path / "data") as registry, opened(database) as rows:
        job = await submit(rows, "write")
        await until(draft.exists, "the draft")
        answer = (await registry.http.post(f"/v1/jobs/{job}/cancel")).json()
        assert answer["cancelling"]
        over = await until_over(registry, job)
        assert (over["state"], over["cancelling"], draft.exists()) == ("cancelled", False, False)
        again = await registry.http.post(f"/v1/jobs/{job}/cancel")
        assert again.status_code == 409
        assert "is over: cancelled" in again.json()["detail"]


async def test_a_queued_job_is_cancelled_before_it_began(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, JobKind("behind", wait_for_ever, background=True), JobKind("count", count_up))
    async with registry_on(nats.url, database, tmp_path) as registry, opened(database) as rows:
        first, second = await submit(rows, "behind"), await submit(rows, "behind")
        await until_running(registry, first)
        # The first fills the one slot for work that nobody waits for; what somebody waits for is done beside it.
        assert (await until_over(registry, await submit(rows, "count", to=1)))["state"] == "done"
        assert (await registry.get(f"/v1/jobs/{second}"))["state"] == "queued"
        cancelled = (await registry.http.post(f"/v1/jobs/{second}/cancel")).json()
        assert (cancelled["state"], cancelled["attempts"]) == ("cancelled", 0)


async def test_a_job_goes_on_after_a_restart_of_the_registry(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half"

    async def resume(work: Work) -> dict[str, Any]:
        if half.exists():
            return {"found": half.read_text(), "attempt": work.attempt}
        half.write_text(str(work.request["text"]))
        return await wait_for_ever(work)

    use(monkeypatch, JobKind("resume", resume))
    async with registry_on(nats.url, database, tmp_path / "data") as registry, opened(database) as rows:
        job = await submit(rows, "resume", text="half of it")
        await until(half.exists, "half of the work")
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        over = await until_over(registry, job)
        assert (over["state"], over["attempts"]) == ("done", 2)
        assert over["result"] == {"found": "half of it", "attempt": 2}


async def test_a_jobs_last_change_and_its_end_are_one(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    async def finish(work: Work) -> dict[str, Any]:
        attempts.append(work.attempt)
        async with work.database.transaction() as connection:
            await connection.execute("INSERT INTO images (name) VALUES ('made-by-a-job')")
            await work.finish(connection, {"made": "made-by-a-job"})
        return await wait_for_ever(work)  # it is stopped only after that

    use(monkeypatch, JobKind("finish", finish))
    async with registry_on(nats.url, database, tmp_path / "data") as registry, opened(database) as rows:
        job = await submit(rows, "finish")
        over = await until_over(registry, job)
        assert (over["state"], over["result"]) == ("done", {"made": "made-by-a-job"})
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        assert (await registry.get(f"/v1/jobs/{job}"))["state"] == "done"
        await asyncio.sleep(0.2)
        assert attempts == [1]


async def test_a_job_begins_again_when_the_database_was_away(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    async def second_time(work: Work) -> dict[str, Any]:
        begun.append(work.attempt)
        return await wait_for_ever(work) if work.attempt == 1 else {}

    use(monkeypatch, JobKind("second", second_time))
    with PostgresServer() as server:
        url = server.new_database()
        async with registry_on(nats.url, url, tmp_path) as registry:
            async with opened(url) as rows:
                job = await submit(rows, "second")
            await until_running(registry, job)
            server.kill()
            server.start()

            async def again() -> bool:
                return begun == [1, 2]

            await until(again, "the second attempt")
            over = await until_over(registry, job)
            assert (over["state"], over["attempts"]) == ("done", 2)


async def test_no_such_job_is_told_plainly(nats: NatsServer, database: str, tmp_path: Path) -> None:
    async with registry_on(nats.url, database, tmp_path) as registry:
        absent = "01a206db-0000-7000-8000-000000000000"
        for answer in (
            await registry.http.get(f"/v1/jobs/{absent}"),
            await registry.http.post(f"/v1/jobs/{absent}/cancel"),
        ):
            assert answer.status_code == 404
            assert "bootlink job list" in answer.json()["remedy"]
