"""The same files over HTTP: one task for each connection, around the machine in `exchange`.

Places are limited, in all and for each IP address, and time is: a client that does not send its request, asks for
nothing more, or does not take what it asked for is cut, so that nobody who opens connections and falls silent keeps a
PC from its loader. A file of the loader folders' cache is sent out of memory; a larger one (an initrd, an ISO image) is
read piece by piece on a thread, and no more than a piece of it is held for each client.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from bootlink_runtime import Health, Logger
from bootlink_tftp.answers import Answer, Answers, Forbidden, NotFound
from bootlink_tftp.exchange import Exchange, Posted, Rejected, Span, Unsatisfiable, Wanted, span_of
from bootlink_tftp.hello import HelloRefused
from bootlink_tftp.transfers import Capacity, OnEnd, Peer
from bootlink_wire.tftp_transfer import Outcome

BACKLOG: Final = 1_024  # connections that wait to be accepted: a room that is switched on at once
REQUEST_SECONDS: Final = 10.0  # for a request's head, and between two; boot clients ask at once
PIECE: Final = 256 << 10  # bytes written before we wait for the client to take them
PIECE_SECONDS: Final = 20.0  # for that: 13 KB/s, slower than any link that a PC boots over
READ: Final = 16 << 10  # bytes read at once of what a client sends


OnHello = Callable[[bytes, str], str | None]
"""Takes a hello's body and its peer's address; why it is refused, if it is. Raises HelloRefused."""


class Web:
    """Serves `answers` over HTTP on the listening socket `sock` from `start` to `close`."""

    def __init__(
        self,
        sock: socket.socket,
        answers: Answers,
        *,
        capacity: Capacity,
        on_end: OnEnd,
        on_hello: OnHello,
        health: Health,
        log: Logger,
    ) -> None:
        self._sock = sock
        self._answers = answers
        self._capacity = capacity
        self._on_end = on_end
        self._on_hello = on_hello
        self._health = health
        self._log = log
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_client: Counter[str] = Counter()
        self._sending = 0

    @property
    def busy(self) -> int:
        """Answers under way."""
        return self._sending

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, sock=self._sock, backlog=BACKLOG, limit=READ, start_serving=True
        )

    def stop_taking(self) -> None:
        """Accept no further connections; answers under way go on."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """End everything."""
        self.stop_taking()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._sock.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: Peer | None = writer.get_extra_info("peername")
        if peer is None:  # gone between its SYN and now
            writer.transport.abort()
            return
        host = peer[0]
        if len(self._tasks) >= self._capacity.total or self._per_client[host] >= self._capacity.per_client:
            self._health.count("http_over_capacity")
            self._log.warning("too many connections", peer=host, busy=len(self._tasks))
            writer.transport.abort()
            return
        self._per_client[host] += 1
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer, peer[:2]), name="http connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        host = peer[0]
        try:
            await self._serve(reader, writer, peer)
        except (OSError, TimeoutError):
            pass  # the client is gone or silent; what that means for an answer was told where it happened
        except Exception as error:
            # A bug of ours must cost one connection, not the service.
            self._health.count("http_internal_errors")
            self._log.error("connection failed", peer=host, exc_info=error)
        finally:
            writer.transport.abort()
            self._per_client[host] -= 1
            if not self._per_client[host]:
                del self._per_client[host]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        exchange = Exchange()
        local = writer.get_extra_info("sockname")[0]
        request: Wanted | Posted | Rejected | None = None
        while True:
            async with asyncio.timeout(REQUEST_SECONDS):
                while request is None:
                    received = await reader.read(READ)
                    if not received:
                        return
                    request = exchange.receive(received)
                    if request is None and (interim := exchange.interim()):
                        await _write(writer, interim)
            self._health.count("http_requests")
            if isinstance(request, Rejected):
                self._health.count("http_rejected")
                self._log.debug("request rejected", peer=peer[0], status=int(request.status), problem=request.text)
                await _write(writer, exchange.refusal(request.status, request.text))
                await _finish(writer)
                return
            if isinstance(request, Posted):
                await _write(writer, self._greeted(request, exchange, peer))
            else:
                await self._answer(request, exchange, writer, peer, local)
            if exchange.over:
                await _finish(writer)
                return
            await asyncio.sleep(0)  # a client that sent many at once leaves others their turns
            request = exchange.following()

    def _greeted(self, request: Posted, exchange: Exchange, peer: Peer) -> bytes:
        """The answer to a hello."""
        try:
            refusal = self._on_hello(request.body, peer[0])
        except HelloRefused as error:
            self._health.count("hellos_unreadable")
            return exchange.refusal(HTTPStatus.BAD_REQUEST, str(error), close=False)
        if refusal is not None:
            self._health.count("hellos_refused")
            self._log.info("hello refused", peer=peer[0], why=refusal)
            return exchange.refusal(HTTPStatus.FORBIDDEN, refusal, close=False)
        return exchange.taken()

    async def _answer(
        self, request: Wanted, exchange: Exchange, writer: asyncio.StreamWriter, peer: Peer, local: str
    ) -> None:
        self._sending += 1
        answer: Answer | None = None
        try:
            answer = await self._answers.find(request.name, peer=peer[0], local=local, large=True)
            try:
                span = span_of(request.span, answer.size)
            except Unsatisfiable:
                status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                text = f"{answer.file} has {answer.size} bytes"
                await _write(writer, exchange.refusal(status, text, size=answer.size, close=False))
                return
            await self._send(answer, span, request, exchange, writer, peer)
        except NotFound as error:
            await _write(writer, exchange.refusal(HTTPStatus.NOT_FOUND, str(error), close=False))
        except Forbidden as error:
            await _write(writer, exchange.refusal(HTTPStatus.FORBIDDEN, str(error), close=False))
        finally:
            self._sending -= 1
            if answer is not None and answer.opened is not None:
                answer.opened.close()

    async def _send(
        self,
        answer: Answer,
        span: Span | None,
        request: Wanted,
        exchange: Exchange,
        writer: asyncio.StreamWriter,
        peer: Peer,
    ) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        part = span or Span(0, answer.size)
        head = exchange.head(answer.name, answer.size, span)
        if request.head:
            self._health.count("http_heads")
            await _write(writer, head + exchange.end())
            return
        at = part.start
        try:
            while True:
                piece = await _piece(answer, at, min(PIECE, part.stop - at))
                at += len(piece)
                await _write(writer, head + exchange.body(piece))
                head = b""
                if at >= part.stop:
                    break
            await _write(writer, exchange.end())
        except (OSError, TimeoutError) as error:
            outcome = Outcome("lost", f"{_why(error)} after {at - part.start} bytes")
            self._on_end(answer, peer, outcome, loop.time() - began)
            raise
        if part.stop == answer.size:  # a client that fetches in pieces has it all with the last
            self._on_end(answer, peer, Outcome("complete"), loop.time() - began)


class _Unreadable(OSError):
    """It is our file that fails, and not the client."""


def _why(error: OSError) -> str:
    if isinstance(error, _Unreadable):
        return str(error)
    return "the client did not take it" if isinstance(error, TimeoutError) else "the client closed the connection"


async def _piece(answer: Answer, start: int, size: int) -> bytes:
    if answer.opened is None:
        return answer.payload[start : start + size]
    try:
        piece = await asyncio.to_thread(answer.opened.read, start, size)
    except OSError as error:
        raise _Unreadable(f"the file cannot be read ({error.strerror})") from error
    if len(piece) < size:
        raise _Unreadable("the file became shorter while it was sent")
    return piece


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Hand over to the kernel. TimeoutError where the client does not take it."""
    writer.write(data)
    async with asyncio.timeout(PIECE_SECONDS):
        await writer.drain()


async def _finish(writer: asyncio.StreamWriter) -> None:
    """End in order: what was written still reaches the client."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PIECE_SECONDS):
            writer.close()
            await writer.wait_closed()
