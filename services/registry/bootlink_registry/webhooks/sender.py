"""One attempt: an event as an HTTP request to a webhook. Nothing here raises for what a receiver does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import httpx

from bootlink_events.cloudevent import CONTENT_TYPE
from bootlink_registry.webhooks.deliveries import Delivery
from bootlink_registry.webhooks.names import Names
from bootlink_registry.webhooks.rows import Webhook
from bootlink_registry.webhooks.schedule import Attempt, Verdict, seconds_of, verdict_of
from bootlink_registry.webhooks.signing import signed
from bootlink_registry.webhooks.targets import Network, why_not
from bootlink_runtime import __version__

ATTEMPT_SECONDS: Final = 15.0  # of one attempt, name and connection and answer; Standard Webhooks says 15 to 30
CONNECTIONS: Final = 4  # to one webhook
ANSWER_LIMIT: Final = 200  # bytes of an answer that are read, to say why it refuses
WORDS_LIMIT: Final = 80  # characters of its status line, which may have 100 KB as well


class Sender:
    """The connections to one webhook."""

    def __init__(self, webhook: Webhook, allowed: Sequence[Network], names: Names) -> None:
        self._webhook = webhook
        self._allowed = allowed
        self._names = names
        self._url = httpx.URL(webhook.url)
        self._port = self._url.port or (443 if self._url.scheme == "https" else 80)
        # No proxy, no .netrc and no redirect: they would lead past the check of the address. OpenSSL's own variable
        # (SSL_CERT_FILE) names further authorities.
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=ATTEMPT_SECONDS,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def attempt(self, delivery: Delivery) -> Attempt:
        """Send it once."""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                address = await self._address()
                if isinstance(address, Attempt):
                    return address
                return await self._post(delivery, address)
        except TimeoutError:
            return Attempt(Verdict.AWAY, f"no answer within {ATTEMPT_SECONDS:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return Attempt(Verdict.AWAY, _plain(f"{type(error).__name__}: {error}"[:ANSWER_LIMIT]).rstrip(": "))

    async def _address(self) -> str | Attempt:
        """The first address of the host that may be connected to."""
        host = self._url.host
        try:
            found = await self._names.addresses(host)
        except OSError as error:
            return Attempt(Verdict.AWAY, f"the name {host} is not known: {error}")
        refused = ""
        for address in found:
            refused = why_not(address, self._allowed)
            if not refused:
                return address
        return Attempt(Verdict.AWAY, refused or f"the name {host} has no address")

    async def _post(self, delivery: Delivery, address: str) -> Attempt:
        headers = {
            **signed(delivery.event_id, datetime.now(UTC), delivery.body, self._webhook.keys(datetime.now(UTC))),
            "content-type": CONTENT_TYPE,
            "user-agent": f"bootlink/{__version__}",
            "host": urlsplit(self._webhook.url).netloc,
        }
        # To the address that was checked, not to what the name may stand for by now. TLS asks for the name.
        request = self._client.build_request(
            "POST",
            self._url.copy_with(host=address.partition("%")[0]),
            content=delivery.body,
            headers=headers,
            extensions={"sni_hostname": self._url.host},
        )
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error):
                raise
            return Attempt(Verdict.AWAY, f"nobody takes connections at {address} port {self._port}")
        try:
            verdict = verdict_of(answer.status_code)
            if verdict is Verdict.DELIVERED:
                return Attempt(verdict)
            said = await _beginning(answer)
        finally:
            await answer.aclose()
        problem = _plain(f"it answers {answer.status_code} {answer.reason_phrase}"[:WORDS_LIMIT]).strip()
        if answer.is_redirect:
            problem += ", and redirects are not followed: give the webhook the URL that it leads to"
        elif said:
            problem += f": {said}"
        return Attempt(verdict, problem, seconds_of(answer.headers.get("retry-after", "")))


async def _beginning(answer: httpx.Response) -> str:
    """The first line of an answer, as far as it is text that can be kept and shown."""
    data = b""
    async for part in answer.aiter_raw(ANSWER_LIMIT):
        data += part
        if len(data) >= ANSWER_LIMIT:
            break
    lines = data[:ANSWER_LIMIT].decode(errors="replace").splitlines()
    return _plain(lines[0]).strip() if lines else ""


def _plain(text: str) -> str:
    """What of a text can be kept and shown."""
    return "".join(c for c in text if c.isprintable())
