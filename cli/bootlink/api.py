"""The registry's HTTP API, as the commands use it.

An answer that is a problem (RFC 9457) becomes a CommandError with its `detail` and `remedy`.

It is spoken by the standard library's client: httpx takes as long to load as a whole command takes otherwise.
"""

from __future__ import annotations

import json
import select
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from bootlink import starts
from bootlink.errors import CommandError
from bootlink.settings import API_TIMEOUT, CommandSettings

PRECONDITION_FAILED: Final = 412
UNPROCESSABLE: Final = 422
VERSION: Final = "v1"
PAGE_MOST: Final = 1_000  # items asked for at once; the API gives no more
_LOOK_AT_LOG: Final = "look at the registry's log"
_START: Final = (
    "start it with `bootlink up --interface IF` (`bootlink up --services registry,blockstore` without PCs), "
    "or say where it is: BOOTLINK_API=http://HOST:8600"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered."""

    url: str
    status: int
    body: bytes
    etag: str = ""

    def json(self) -> Any:
        """Its JSON; None if it is empty. ValueError if it is none."""
        return json.loads(self.body) if self.body else None


class Api:
    """A connection to the registry's API; made at the first request, and anew when the registry has closed it."""

    def __init__(self, url: str, *, token: str = "") -> None:
        """Without a token the API will say that it needs one. CommandError if `url` or `token` cannot be one."""
        self.url = url.rstrip("/")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise CommandError("the token is none: it has characters that no token has", "correct BOOTLINK_TOKEN")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            parts = urlsplit(self.url)
            kinds = {"http": HTTPConnection, "https": HTTPSConnection}
            # No proxy from the environment: an office's web proxy cannot reach this machine's loopback.
            self._connection = kinds[parts.scheme](parts.hostname or "", parts.port, timeout=API_TIMEOUT)
            if not parts.hostname:
                raise ValueError("no host")
            self._root = f"{parts.path}/{VERSION}"
        except (KeyError, ValueError, HTTPException) as error:
            raise CommandError(f"{url} is no address of an API", "set BOOTLINK_API=http://HOST:PORT") from error

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def get(self, *path: str, **query: str | int | None) -> Any:
        """The JSON at `path`, whose parts are quoted. A query parameter that is None is left out."""
        return self._call("GET", path, query={k: v for k, v in query.items() if v is not None})

    def get_to_change(self, *path: str) -> tuple[Any, str]:
        """The JSON at `path`, and its ETag: for `match` of the request that changes it."""
        answer = self._ask("GET", path)
        return _json(answer), answer.etag

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
        return self._ask("GET", path, query={k: v for k, v in query.items() if v is not None}).body.decode()

    def post(self, *path: str, body: Mapping[str, Any], **query: str | int | None) -> Any:
        return self._call("POST", path, query={k: v for k, v in query.items() if v is not None}, body=body)

    def put(self, *path: str, body: Mapping[str, Any], match: str = "") -> Any:
        """`match`: the ETag of what it takes the place of; CommandError if that is another by now."""
        return self._call("PUT", path, body=body, match=match)

    def patch(self, *path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PATCH", path, body=body)

    def delete(self, *path: str, match: str = "", **query: str | int | None) -> Any:
        return self._call("DELETE", path, query={k: v for k, v in query.items() if v is not None}, match=match)

    def _call(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        match: str = "",
    ) -> Any:
        return _json(self._ask(method, path, query=query, body=body, match=match))

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        match: str = "",
    ) -> Answer:
        target = "/".join((self._root, *(quote(part, safe="") for part in path)))
        if query:
            target += f"?{urlencode(query)}"
        headers, content = dict(self._headers), None
        if match:
            headers["If-Match"] = match
        if body is not None:
            headers["Content-Type"], content = "application/json", json.dumps(body).encode()
        try:
            self._drop_closed()
            self._connection.request(method, target, content, headers)
            response = self._connection.getresponse()
            url = self.url + target.removeprefix(urlsplit(self.url).path)
            answer = Answer(url, response.status, response.read(), response.headers.get("ETag", ""))
        except TimeoutError as error:
            self.close()
            raise CommandError(f"the registry at {self.url} does not answer in time", _LOOK_AT_LOG) from error
        except (OSError, HTTPException) as error:
            self.close()
            raise CommandError(f"the registry's API does not answer at {self.url}", _START) from error
        if 200 <= answer.status < 300:
            return answer
        raise _problem(answer)

    def _drop_closed(self) -> None:
        """Close a connection that the registry has closed, as it does after seconds without a request."""
        if self._connection.sock is not None and select.select([self._connection.sock], [], [], 0)[0]:
            self._connection.close()


def _json(answer: Answer) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise CommandError(f"{answer.url} answers, but is no Bootlink registry", "correct BOOTLINK_API") from error


def _problem(answer: Answer) -> CommandError:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not problem.get("detail"):
        return CommandError(f"{answer.url} answers with status {answer.status}", _LOOK_AT_LOG)
    if answer.status == PRECONDITION_FAILED:
        return CommandError(
            "somebody else has changed it meanwhile, and nothing was done",
            "look at how it is now, then give the command again",
            status=answer.status,
        )
    if answer.status == UNPROCESSABLE and problem.get("fields"):  # of the request, which a command wrote for its user
        wrong = "; ".join(_told(one) for one in problem["fields"])
        return CommandError(wrong, "correct it; the command's --help says what it takes", status=answer.status)
    lines = [f"line {one['line']}: {one['problem']}" for one in problem.get("lines", ())]  # of a file that was sent
    remedy = str(problem.get("remedy") or _LOOK_AT_LOG)
    return CommandError(str(problem["detail"]), remedy, lines=lines, status=answer.status)


def _told(wrong: Mapping[str, str]) -> str:
    name = starts.option(wrong["field"]) or wrong["field"].replace("_", " ")
    return f"{name}: {wrong['problem']}" if name else wrong["problem"]


def from_environment() -> Api:
    """The API that the environment names."""
    settings = CommandSettings.from_environment()
    return Api(settings.api, token=settings.token_to_show())
