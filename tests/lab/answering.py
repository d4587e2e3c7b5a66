"""A web server on 127.0.0.1 that answers as a test's function says, and hangs up where it asks for that."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    target: str  # as it came, query and all
    authorization: str | None
    body: bytes


Answering = Callable[[Asked], tuple[int, str] | None]
"""Status and body for what was asked; None to hang up."""


@contextlib.contextmanager
def answering(answer: Answering) -> Iterator[str]:
    """Its address. It keeps connections, as the registry does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = answer(Asked(self.command, self.path, self.headers.get("Authorization"), body))
            if told is None:
                self.close_connection = True
                return
            status, text = told
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815  (the library's names)

        def log_message(self, format: str, *_: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # one may wait for a client that has forgotten it
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
