"""One request to a webhook over real TLS: whose certificate is believed, and what of an answer is kept."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme

from bootlink_registry.webhooks.deliveries import Delivery
from bootlink_registry.webhooks.names import LOOKUPS_LIMIT, Names
from bootlink_registry.webhooks.rows import Webhook
from bootlink_registry.webhooks.schedule import Attempt, Verdict
from bootlink_registry.webhooks.sender import ANSWER_LIMIT, Sender
from bootlink_registry.webhooks.signing import new_secret
from bootlink_registry.webhooks.targets import why_not
from lab.netns import Cable, entered

HERE = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
NOW = datetime.now(UTC)
DELIVERY = Delivery(1, "an-id", "{}", 1, 0, "", NOW, NOW, 0.0)


def webhook(url: str) -> Webhook:
    return Webhook("a", url, (), "", True, "", None, None, "", NOW, new_secret(), None, None)


@contextlib.asynccontextmanager
async def server(answer: bytes, authority: trustme.CA | None = None, name: str = "localhost") -> AsyncIterator[int]:
    """Answers every request with these bytes; over TLS with a certificate of this authority for this name."""
    context = None
    if authority is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(answer)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await listening.wait_closed()


async def attempt(url: str, *, allowed: bool = True) -> Attempt:
    sender = Sender(webhook(url), HERE if allowed else (), Names())
    try:
        return await sender.attempt(DELIVERY)
    finally:
        await sender.close()


TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_the_certificate_must_be_of_an_authority_that_is_known_and_of_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ours.pem"))
    async with server(TAKEN, ours) as port:
        assert (await attempt(f"https://localhost:{port}/")).verdict is Verdict.DELIVERED
        refused = await attempt(f"https://localhost:{port}/", allowed=False)
        assert "BOOTLINK_REGISTRY_WEBHOOK_NETWORKS" in refused.problem
        assert "CERTIFICATE_VERIFY_FAILED" in (await attempt(f"https://127.0.0.1:{port}/")).problem
    for authority, name in ((other, "localhost"), (ours, "elsewhere.example")):
        async with server(TAKEN, authority, name) as port:
            found = await attempt(f"https://localhost:{port}/")
            assert found.verdict is Verdict.AWAY
            assert "CERTIFICATE_VERIFY_FAILED" in found.problem


@pytest.mark.parametrize(
    ("answer", "verdict", "said"),
    [
        (b"HTTP/1.1 400 Bad\r\n\r\n" + b"x" * 100_000, Verdict.REFUSED, "it answers 400 Bad: " + "x" * ANSWER_LIMIT),
        (
            b"HTTP/1.1 400 Bad\r\n\r\n\x1b[31mno\0\xff\nmore",
            Verdict.REFUSED,
            "it answers 400 Bad: [31mno\N{REPLACEMENT CHARACTER}",
        ),
        (b"HTTP/1.1 503 Away\r\nretry-after: 7\r\n\r\n", Verdict.AWAY, "it answers 503 Away"),
        (b"HTTP/1.1 410 " + b"x" * 50_000 + b"\r\n\r\nno", Verdict.GONE, "it answers 410 xx"),
        (b"SSH-2.0-" + b"x" * 50_000 + b"\r\n\r\n", Verdict.AWAY, "RemoteProtocolError: "),
        (b"SSH-2.0-OpenSSH\r\n", Verdict.AWAY, "RemoteProtocolError: "),
        (b"", Verdict.AWAY, "RemoteProtocolError: "),
    ],
    ids=["long", "unprintable", "busy", "long words", "long and no http", "no http", "nothing"],
)
async def test_of_an_answer_its_beginning_is_kept_as_plain_text(answer: bytes, verdict: Verdict, said: str) -> None:
    async with server(answer) as port:
        found = await attempt(f"http://127.0.0.1:{port}/")
    assert found.verdict is verdict
    assert found.problem.startswith(said)
    assert len(found.problem) < 300
    assert found.retry_after == (7 if b"503" in answer else 0)


async def test_a_port_that_nobody_listens_on_and_a_name_that_nobody_has_are_away() -> None:
    async with server(TAKEN) as port:
        pass
    nobody = await attempt(f"http://127.0.0.1:{port}/")
    assert nobody == Attempt(Verdict.AWAY, f"nobody takes connections at 127.0.0.1 port {port}")
    unknown = await attempt("http://no-such-host.invalid/")
    assert unknown.verdict is Verdict.AWAY
    assert "the name no-such-host.invalid is not known" in unknown.problem


async def test_names_that_no_name_server_answers_for_hold_up_neither_other_names_nor_the_threads_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    released, look_up = threading.Event(), socket.getaddrinfo

    def answer(host: str, *rest: Any, **more: Any) -> Any:
        if host.endswith(".silent.example"):
            asked.append(host)
            released.wait(30)
        return look_up("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    names = Names()
    hosts = [f"{n}.silent.example" for n in range(LOOKUPS_LIMIT)]
    waiting = [asyncio.create_task(names.addresses(host)) for host in (*hosts[1:], *[hosts[1]] * 100)]
    try:
        async with server(TAKEN) as port, asyncio.timeout(10):
            while len(asked) < LOOKUPS_LIMIT - 1:
                await asyncio.sleep(0.01)
            sender = Sender(webhook(f"http://localhost:{port}/"), HERE, names)
            assert (await sender.attempt(DELIVERY)).verdict is Verdict.DELIVERED
            await sender.close()
            assert await asyncio.to_thread(lambda: "a thread") == "a thread"
            waiting.append(asyncio.create_task(names.addresses(hosts[0])))
            await asyncio.sleep(0)
            with pytest.raises(OSError, match="other names wait for an answer"):
                await names.addresses("too-many.silent.example")
            assert await names.addresses("10.77.0.1") == ["10.77.0.1"], "there is nothing to look up"
    finally:
        released.set()
        found = await asyncio.gather(*waiting)
    assert found == [["127.0.0.1"]] * len(waiting)
    assert sorted(asked) == sorted(hosts), "one thread for each name"


def test_an_address_of_this_machines_card_is_its_own_and_that_of_its_neighbour_is_not() -> None:
    with Cable() as cable, entered(cable.server):
        assert "is an address of this machine" in why_not("10.77.0.1", ())
        assert why_not("10.77.0.1", (ip_network("10.77.0.0/24"),)) == ""
        assert why_not("10.77.0.9", ()) == ""
