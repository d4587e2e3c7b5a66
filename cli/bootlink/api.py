"""The registry's HTTP API, as the commands use it.

An answer that is a problem (RFC 9457) becomes a CommandError with its `detail` and `remedy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from bootlink.errors import CommandError
from bootlink.settings import API_TIMEOUT, CommandSettings

VERSION: Final = "v1"
PAGE_MOST: Final = 1_000  # items asked for at once; the API gives no more
_LOOK_AT_LOG: Final = "look at the registry's log"
_START: Final = (
    "start it with `bootlink up --interface IF` (`bootlink up --services registry,blockstore` without PCs), "
    "or say where it is: BOOTLINK_API=http://HOST:8600"
)


class Api:
    """A connection to the registry's API."""

    def __init__(self, url: str, *, token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        """Without a token the API will say that it needs one. CommandError if `url` or `token` cannot be one."""
        self.url = url.rstrip("/")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise CommandError("the token is none: it has characters that no token has", "correct BOOTLINK_TOKEN")
        try:
            # No proxy from the environment: an office's web proxy cannot reach this machine's loopback.
            self._client = httpx.Client(
                base_url=f"{self.url}/{VERSION}/",
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=API_TIMEOUT,
                trust_env=False,
                transport=transport,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise CommandError(f"{url} is no address of an API", "set BOOTLINK_API=http://HOST:PORT") from error

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def get(self, *path: str, **query: str | int | None) -> Any:
        """The JSON at `path`, whose parts are quoted. A query parameter that is None is left out."""
        return self._call("GET", path, query={k: v for k, v in query.items() if v is not None})

    def listing(self, *path: str, cursor: str = "after", most: int | None = None, **query: str | int | None) -> Any:
        """All items of a listing, page by page (`items` and `next`); at most `most` of them."""
        items: list[Any] = []
        at: str | None = None
        while most is None or len(items) < most:
            page = self.get(*path, **query, **{cursor: at}, limit=PAGE_MOST if most is None else min(most, PAGE_MOST))
            items += page["items"]
            at = page["next"]
            if at is None:
                break
        return items if most is None else items[:most]

    def text(self, *path: str, **query: str | int | None) -> str:
        """The text at `path`, where that is no JSON."""
        return self._ask("GET", path, query={k: v for k, v in query.items() if v is not None}).text

    def post(self, *path: str, body: Mapping[str, Any], **query: str | int | None) -> Any:
        return self._call("POST", path, query={k: v for k, v in query.items() if v is not None}, body=body)

    def put(self, *path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PUT", path, body=body)

    def patch(self, *path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PATCH", path, body=body)

    def delete(self, *path: str, **query: str | int | None) -> Any:
        return self._call("DELETE", path, query={k: v for k, v in query.items() if v is not None})

    def _call(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        return _json(self._ask(method, path, query=query, body=body))

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        url = "/".join(quote(part, safe="") for part in path)
        try:
            answer = self._client.request(method, url, params=query, json=body)
        except httpx.TimeoutException as error:
            raise CommandError(f"the registry at {self.url} does not answer in time", _LOOK_AT_LOG) from error
        except httpx.UnsupportedProtocol as error:
            raise CommandError(f"{self.url} is no address of an API", "set BOOTLINK_API=http://HOST:PORT") from error
        except httpx.TransportError as error:
            raise CommandError(f"the registry's API does not answer at {self.url}", _START) from error
        if answer.is_success:
            return answer
        raise _problem(answer)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json() if answer.content else None
    except ValueError as error:
        raise CommandError(f"{answer.url} answers, but is no Bootlink registry", "correct BOOTLINK_API") from error


def _problem(answer: httpx.Response) -> CommandError:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not problem.get("detail"):
        return CommandError(f"{answer.url} answers with status {answer.status_code}", _LOOK_AT_LOG)
    lines = [f"line {one['line']}: {one['problem']}" for one in problem.get("lines", ())]  # of a file that was sent
    remedy = str(problem.get("remedy") or _LOOK_AT_LOG)
    return CommandError(str(problem["detail"]), remedy, lines=lines, status=answer.status_code)


def from_environment() -> Api:
    """The API that the environment names."""
    settings = CommandSettings()
    return Api(settings.api, token=settings.token_to_show())
