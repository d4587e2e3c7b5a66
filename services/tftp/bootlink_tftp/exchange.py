"""One HTTP/1.1 connection of a boot client, the server's side: bytes in, requests out; answers in, bytes out. Pure.

Theory of operation. h11 holds the protocol (RFC 9112); this machine says what a boot server makes of it. After each
request there is one answer, then the next request, for as long as the client wants to keep the connection. Boot
clients (EDK2, iPXE, GRUB) ask with GET and HEAD and send no body; a guest that is up posts a small one (see `hello`).
Whoever sends another, or anything that h11 does not take, gets one answer with `Connection: close`, and is not listened
to any more.

    bytes ──receive──> Wanted | Posted | Rejected | None (not yet whole; `interim` may have something to send)
    head(...)  what goes before the content; then the content in pieces through `body`, then `end`

One range of bytes is served (RFC 9110 section 14): iPXE opens ISO images so, and curl goes on after an interruption. A
list of ranges, another unit and a range that makes no sense are ignored, as section 14.2 allows: the whole file
answers. A range behind the end is 416. Which file a name means is decided elsewhere; a name is the path of the
request's target, decoded once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

import h11

from bootlink_tftp import hello

HEAD_MAX: Final = 8_192  # octets of a request's head; iPXE sends 200, a browser with its cookies 2,000
METHODS: Final = (b"GET", b"HEAD")
_CONTINUE: Final = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[])
DIGITS_MAX: Final = 18  # of a number in a range: no file has more bytes

_RANGE: Final = re.compile(rb"bytes=([0-9]{0,%d})-([0-9]{0,%d})" % (DIGITS_MAX, DIGITS_MAX))
_KINDS: Final = {".efi": b"application/efi", ".ipxe": b"text/plain"}  # EDK2 knows a loader by its type or its name


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that may be answered. `name` is as `names.read` takes it; `span` is the Range header."""

    name: bytes
    head: bool
    span: bytes | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """A hello, of at most `hello.BODY_MAX` octets."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request that is answered with this status and its text, and ends the connection."""

    status: HTTPStatus
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to `stop`, which is not among them."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Unsatisfiable(Exception):
    """The range lies behind the end of the file: 416."""


def span_of(header: bytes | None, size: int) -> Span | None:
    """The part of a file of `size` bytes that a Range header asks for; None: all of it. Raises Unsatisfiable."""
    match = _RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or match[0] == b"bytes=-":
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        count = min(int(last), size)
        if not count:
            raise Unsatisfiable
        return Span(size - count, size)
    start = int(first)
    stop = min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Span(start, stop)


class Exchange:
    """Requests and answers of one connection, in turn. Raises nothing of h11's."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._without_content = False  # the request was HEAD
        self._posted: bytearray | None = None  # a hello's body, as far as it has come

    @property
    def open(self) -> bool:
        """Whether another request may come."""
        return self._connection.our_state is h11.IDLE and self._connection.their_state is h11.IDLE

    def receive(self, received: bytes) -> Wanted | Posted | Rejected | None:
        """The request that is whole with these bytes, of which there is at least one."""
        try:
            self._connection.receive_data(received)
            return self._next()
        except h11.RemoteProtocolError as error:
            return Rejected(HTTPStatus(error.error_status_hint), str(error))

    def interim(self) -> bytes:
        """What a client waits for before it sends a body: PowerShell's and .NET's do, for a third of a second."""
        return self._send(_CONTINUE) if self._connection.they_are_waiting_for_100_continue else b""

    def following(self) -> Wanted | Posted | Rejected | None:
        """After an answer: the request that had come already behind the one before it."""
        self._without_content = False
        try:
            self._connection.start_next_cycle()
            return self._next()
        except h11.RemoteProtocolError as error:
            return Rejected(HTTPStatus(error.error_status_hint), str(error))

    def _next(self) -> Wanted | Posted | Rejected | None:
        if self._posted is not None:
            return self._collect(self._posted)
        event = self._connection.next_event()
        if not isinstance(event, h11.Request):
            return None
        self._without_content = event.method == b"HEAD"
        if event.method == b"POST" and _path(event.target) == hello.PATH:
            self._posted = bytearray()
            return self._collect(self._posted)
        if event.method not in METHODS:
            return Rejected(HTTPStatus.METHOD_NOT_ALLOWED, "this server is read-only: GET and HEAD")
        if not isinstance(self._connection.next_event(), h11.EndOfMessage):
            return Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request for a boot file has no body")
        fields = dict(event.headers)
        return Wanted(unquote_to_bytes(_path(event.target)), self._without_content, fields.get(b"range"))

    def _collect(self, body: bytearray) -> Posted | Rejected | None:
        """The body of a hello, once it is whole."""
        while isinstance(event := self._connection.next_event(), h11.Data):
            body += event.data
            if len(body) > hello.BODY_MAX:
                self._posted = None
                return Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a hello has at most {hello.BODY_MAX} octets")
        if not isinstance(event, h11.EndOfMessage):
            return None
        self._posted = None
        return Posted(bytes(body))

    def head(self, name: str, size: int, span: Span | None) -> bytes:
        """What goes before a file, or a part of it."""
        headers = [
            (b"Content-Type", _KINDS.get(name[name.rfind(".") :].lower(), b"application/octet-stream")),
            (b"Content-Length", b"%d" % (size if span is None else span.size)),
            (b"Accept-Ranges", b"bytes"),
            (b"Cache-Control", b"no-store"),  # a script is another one at the next boot
        ]
        if span is not None:
            headers.append((b"Content-Range", b"bytes %d-%d/%d" % (span.start, span.stop - 1, size)))
        status = HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT
        return self._send(h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()))

    def refusal(self, status: HTTPStatus, text: str, *, size: int | None = None, close: bool = True) -> bytes:
        """A whole answer that says why there is no file. `size`: of a file whose range lies behind its end."""
        content = text.encode("ascii", "replace") + b"\n"
        headers = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"%d" % len(content))]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append((b"Allow", b", ".join(METHODS)))
        if size is not None:
            headers.append((b"Content-Range", b"bytes */%d" % size))
        if close:
            headers.append((b"Connection", b"close"))
        if self._connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""  # nothing can be said any more
        head = self._send(h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()))
        return head + self.body(content) + self.end()

    def taken(self) -> bytes:
        """A whole answer to a hello that was taken."""
        status = HTTPStatus.NO_CONTENT
        return self._send(h11.Response(status_code=status, headers=[], reason=status.phrase.encode())) + self.end()

    def body(self, piece: bytes) -> bytes:
        """A piece of the content as it travels; nothing, where the request was HEAD."""
        return b"" if self._without_content else self._send(h11.Data(data=piece))

    def end(self) -> bytes:
        return self._send(h11.EndOfMessage())

    @property
    def over(self) -> bool:
        """After an answer: whether the connection ends with it."""
        return self._connection.our_state is not h11.DONE or self._connection.their_state is not h11.DONE

    def _send(self, event: h11.Event) -> bytes:
        return self._connection.send(event) or b""


def _path(target: bytes) -> bytes:
    """The path of a request's target, not yet decoded."""
    path = target.partition(b"?")[0]
    if path.startswith(b"http://"):  # as to a proxy (RFC 9112 section 3.2.2); some firmware does
        path = b"/" + path[len(b"http://") :].partition(b"/")[2]
    return path
