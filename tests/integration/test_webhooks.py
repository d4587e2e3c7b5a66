"""Webhooks end to end: a real registry, NATS and PostgreSQL, and a receiver that checks what it is sent with Standard
Webhooks' own library."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from bootlink_events import ImagePublished
from bootlink_registry.webhooks import deliveries, forwarder
from bootlink_registry.webhooks.deliveries import PROBLEM_LIMIT
from bootlink_runtime import follow
from lab.nats import NatsServer
from lab.receiver import Receiver, receiving
from lab.registry import Registry, problem, registry_on, until

HERE = "127.0.0.0/8"
ADDED = "type=client.changed data.change=added"


def mac(n: int) -> str:
    return f"52:54:00:00:00:{n:02x}"


@contextlib.asynccontextmanager
async def house(nats: NatsServer, database: str, folder: Path, **settings: Any) -> AsyncIterator[Registry]:
    told: dict[str, Any] = {"webhook_networks": HERE, "webhook_retry": 0.002} | settings
    async with registry_on(nats.url, database, folder / "data", **told) as registry:
        yield registry


async def hook(registry: Registry, receiver: Receiver, *filters: str, name: str = "helpdesk") -> Any:
    answer = await registry.http.post(
        "/v1/webhooks", json={"name": name, "url": receiver.url, "filters": list(filters or [ADDED])}
    )
    assert answer.status_code == 201, answer.text
    receiver.secret = answer.json()["secret"]
    return answer.json()


async def shown(registry: Registry, name: str = "helpdesk") -> Any:
    return await registry.get(f"/v1/webhooks/{name}")


async def all_sent(registry: Registry, count: int, receiver: Receiver) -> None:
    await until(lambda: len(set(receiver.ids)) >= count, f"{count} events at the receiver")

    async def nothing_waits() -> bool:
        return bool((await shown(registry))["waiting"] == 0)

    await until(nothing_waits, "nothing to wait")


async def stored(registry: Registry) -> dict[str, Any]:
    """All events there are, by their id."""
    await registry.all_told()
    return {event.id: event async for event in follow(registry.chassis.bus, wait=False)}


async def test_what_the_filter_takes_arrives_signed_as_the_event_that_was_committed_and_no_secret_with_it(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with receiving() as receiver, house(nats, database, tmp_path) as registry:
        await registry.add_client(mac(1), "pc-1")
        made = await hook(registry, receiver)
        for n in range(2, 12):
            await registry.add_client(mac(n), f"pc-{n}")
        await registry.http.patch("/v1/clients/pc-2", json={"note": "x"})
        await all_sent(registry, 10, receiver)
        there = await stored(registry)
        for one in receiver.received:
            assert one.verified
            event = there[one.headers["webhook-id"]]
            assert one.body == event.payload()
            read = from_http_event(HTTPMessage({"content-type": one.headers["content-type"]}, one.body))
            assert (read.get_id(), read.get_data()) == (event.id, event.data)
            assert one.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert {one.event["data"]["client"] for one in receiver.received} == {f"pc-{n}" for n in range(2, 12)}
        # As JetStream repeats an event whose acknowledgement was lost.
        again = there[receiver.ids[0]]
        await registry.chassis.bus.jetstream.publish(again.nats_subject, again.payload())
        await registry.add_client(mac(12), "pc-12")
        await all_sent(registry, 11, receiver)
        assert len(receiver.received) == 11
        now = await shown(registry)
        assert (now["waiting"], now["dead"], now["problem"], now["failing_since"]) == (0, 0, "", None)
        assert now["delivered"] is not None
        listed = (await registry.http.get("/v1/webhooks")).text
        told = "".join(event.payload().decode() for event in there.values())
        for secret in (made["secret"], "key=value"):
            assert secret not in told
        assert made["secret"] not in listed + str(now)
        assert [e.data["change"] for e in there.values() if e.type.endswith("webhook.changed")] == ["added"]


async def test_a_receiver_that_is_away_is_asked_by_one_event_at_a_time_and_then_gets_all(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "FAILING_SECONDS", 0.0)
    monkeypatch.setattr(forwarder, "REFRESH_SECONDS", 0.2)
    async with receiving() as receiver, house(nats, database, tmp_path, webhook_retry=0.1) as registry:
        receiver.answers = lambda _: 503
        await hook(registry, receiver)
        for n in range(12):
            await registry.add_client(mac(n), f"pc-{n}")
        await until(lambda: len(receiver.received) > 3, "some attempts")

        async def said() -> bool:
            check = registry.chassis.health.report()["checks"]["webhooks"]
            return bool(not check["ok"] and "helpdesk takes nothing: it answers 503" in check["detail"])

        await until(said, "the status to say so")

        async def queued() -> bool:
            return bool((await shown(registry))["waiting"] == 12)

        await until(queued, "all events to wait")
        now = await shown(registry)
        assert now["enabled"]
        assert now["failing_since"] is not None
        assert len(receiver.received) < 12  # four at once before the first answer, and then one per rest
        receiver.answers = lambda _: 204
        await all_sent(registry, 12, receiver)
        now = await shown(registry)
        assert (now["failing_since"], now["dead"], now["problem"]) == (None, 0, "")
        assert all(one.verified for one in receiver.received)  # each attempt is signed anew


async def test_an_event_that_is_refused_is_given_up_kept_and_sent_again_and_holds_up_no_other(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with receiving() as receiver, house(nats, database, tmp_path) as registry:
        await hook(registry, receiver)
        receiver.answers = lambda one: 422 if one.event["data"]["client"] == "pc-1" else 200
        for n in range(4):
            await registry.add_client(mac(n), f"pc-{n}")

        async def given_up() -> bool:
            return bool((await shown(registry))["dead"] == 1)

        await until(given_up, "the event to be given up")
        assert len(receiver.received) == 8 + 3
        (dead,) = (await registry.get("/v1/webhooks/helpdesk/dead"))["items"]
        assert dead["event"]["data"]["client"] == "pc-1"
        assert dead["problem"] == "it answers 422 Unprocessable Entity: not today"
        assert len(dead["problem"]) < PROBLEM_LIMIT
        assert dead["attempts"] == 8
        answer = await registry.http.post("/v1/webhooks/helpdesk/resend", json={"event_id": "no-such"})
        assert "bootlink webhook dead helpdesk" in problem(answer, 404)["remedy"]
        receiver.answers = lambda _: 200
        before = len(receiver.received)
        answer = await registry.http.post("/v1/webhooks/helpdesk/resend", json={"event_id": dead["event_id"]})
        assert answer.json() == {"events": 1}
        await until(lambda: len(receiver.received) > before, "the event once more")
        assert receiver.ids[-1] == dead["event_id"]
        assert receiver.received[-1].verified
        assert (await registry.get("/v1/webhooks/helpdesk/dead"))["items"] == []
        assert (await registry.http.post("/v1/webhooks/helpdesk/resend", json={})).json() == {"events": 0}


async def test_an_event_that_nobody_took_in_time_is_given_up_too_and_all_can_be_sent_again(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with receiving() as receiver:
        receiver.answers = lambda _: 500
        async with house(nats, database, tmp_path, webhook_hours=0.1 / 3600) as registry:
            await hook(registry, receiver)
            for n in range(3):
                await registry.add_client(mac(n), f"pc-{n}")

            async def given_up() -> bool:
                return bool((await shown(registry))["dead"] == 3)

            await until(given_up, "the events to be given up")
            receiver.answers = lambda _: 202
            receiver.received.clear()
            assert (await registry.http.post("/v1/webhooks/helpdesk/resend", json={})).json() == {"events": 3}
            await all_sent(registry, 3, receiver)


async def test_no_event_is_lost_while_nats_or_the_registry_is_away(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "LEASE_SECONDS", 1.0)
    async with receiving() as receiver:
        receiver.hold = asyncio.Event()
        async with house(nats, database, tmp_path) as registry:
            await hook(registry, receiver)
            for n in range(6):
                await registry.add_client(mac(n), f"pc-{n}")
            await until(lambda: len(receiver.received) == 4, "four attempts under way")
            nats.kill()
            for n in range(6, 9):
                await registry.add_client(mac(n), f"pc-{n}")
        # It was stopped while the receiver took its time: nobody knows whether those four were taken.
        receiver.hold.set()
        nats.start()
        async with house(nats, database, tmp_path) as registry:
            await registry.add_client(mac(9), "pc-9")
            await all_sent(registry, 10, receiver)
            added = [e.id for e in (await stored(registry)).values() if e.type.endswith("client.changed")]
        assert set(receiver.ids) == set(added)
        assert len(receiver.ids) <= 10 + 4
        assert all(one.verified for one in receiver.received)


async def test_a_receiver_that_is_gone_is_sent_nothing_more_until_somebody_switches_it_on(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with receiving() as receiver, house(nats, database, tmp_path) as registry:
        await hook(registry, receiver)
        receiver.answers = lambda _: 410
        await registry.add_client(mac(1), "pc-1")

        async def off() -> bool:
            return not (await shown(registry))["enabled"]

        await until(off, "the webhook to be switched off")
        now = await shown(registry)
        assert "gone for good: it answers 410" in now["problem"]
        assert now["waiting"] == 1
        await registry.add_client(mac(2), "pc-2")  # while it is off: not for it
        (told,) = [e for e in (await stored(registry)).values() if e.data.get("change") == "switched_off"]
        assert (told.severitytext, told.data["name"], told.data["author"]) == ("WARN", "helpdesk", "")
        receiver.answers = lambda _: 204
        answer = await registry.http.patch("/v1/webhooks/helpdesk", json={"enabled": True})
        assert (answer.json()["enabled"], answer.json()["problem"]) == (True, "")
        await all_sent(registry, 1, receiver)
        assert receiver.received[-1].event["data"]["client"] == "pc-1"


async def test_this_machine_is_not_reached_unless_a_setting_says_so_and_a_redirect_is_not_followed(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with receiving() as receiver, receiving() as inner:
        async with house(nats, database, tmp_path, webhook_networks="") as registry:
            await hook(registry, receiver)
            await registry.add_client(mac(1), "pc-1")

            async def refused() -> bool:
                return "BOOTLINK_REGISTRY_WEBHOOK_NETWORKS" in (await shown(registry))["problem"]

            await until(refused, "the address to be refused")
            assert receiver.received == []
        receiver.answers = lambda _: 307
        receiver.headers = [(b"location", inner.url.encode())]
        async with house(nats, database, tmp_path) as registry:

            async def dead() -> bool:
                return bool((await shown(registry))["dead"] == 1)

            await until(dead, "the event to be given up")
            assert "redirects are not followed" in (await shown(registry))["problem"]
            assert inner.received == []


async def test_a_secret_that_was_replaced_signs_besides_the_new_one(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with receiving() as receiver, house(nats, database, tmp_path) as registry:
        former = (await hook(registry, receiver))["secret"]
        made = (await registry.http.post("/v1/webhooks/helpdesk/secret", json={})).json()
        assert made["secret"] != former
        for n, secret in enumerate((former, made["secret"])):
            receiver.secret = secret
            await registry.add_client(mac(n), f"pc-{n}")
            await all_sent(registry, n + 1, receiver)
            assert receiver.received[-1].verified
            assert receiver.received[-1].headers["webhook-signature"].count("v1,") == 2


async def test_a_webhook_that_too_much_waits_for_is_switched_off_and_said(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "WAITING_LIMIT", 3)
    async with receiving() as receiver, house(nats, database, tmp_path) as registry:
        receiver.answers = lambda _: 503
        await hook(registry, receiver)
        for n in range(5):
            await registry.add_client(mac(n), f"pc-{n}")

        async def off() -> bool:
            return not (await shown(registry))["enabled"]

        await until(off, "the webhook to be switched off")
        now = await shown(registry)
        assert now["waiting"] == 3
        assert now["problem"] == "3 events wait for it; what came since is not among them"
        await registry.http.delete("/v1/webhooks/helpdesk")
        async with registry_database(database) as connection:
            assert await connection.fetchval("SELECT count(*) FROM deliveries") == 0


async def test_events_of_other_services_are_sent_as_well_and_removing_a_webhook_ends_it(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with receiving() as receiver, house(nats, database, tmp_path) as registry:
        made = await hook(registry, receiver, "type=image.published data.version=2", "type=webhook")
        bus = registry.chassis.bus
        for version in (1, 2, 3):
            bus.emit(ImagePublished(image="win11", version=version, channel="test", at=made["created"]))
        await until(lambda: any("image" in one.event["data"] for one in receiver.received), "the version's event")
        assert (await registry.http.delete("/v1/webhooks/helpdesk")).status_code == 204
        problem(await registry.http.get("/v1/webhooks/helpdesk"), 404)
        bus.emit(ImagePublished(image="win11", version=2, channel="test", at=made["created"]))
        await registry.all_told()
        versions = [one.event["data"].get("version") for one in receiver.received if "image" in one.event["data"]]
        assert versions == [2]


@contextlib.asynccontextmanager
async def registry_database(url: str) -> AsyncIterator[Any]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
