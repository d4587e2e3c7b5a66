"""Web servers on 127.0.0.1 for downloads: BusyBox's, as it is; and one of our own that misbehaves as a test asks."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

START_SECONDS = 10.0


@contextmanager
def busybox(folder: Path) -> Iterator[str]:
    """BusyBox's httpd over a folder: Last-Modified and ranges, no ETags. Its address."""
    assert shutil.which("busybox"), "busybox is missing: apt install busybox-static"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]  # BusyBox takes no port 0 and tells none, so this one is free a moment ago
    command = ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(port):
                assert time.monotonic() < deadline, "busybox httpd did not come up"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except OSError:
        return False
    finally:
        connection.close()
    return True


@dataclass
class Page:
    """What there is at a path, and how the server goes wrong with it."""

    content: bytes = b""
    status: int = 200
    etag: str | None = '"one"'
    headers: dict[str, str] = field(default_factory=dict)
    hang_up_after: int | None = None  # bytes of each answer
    once: list[int] = field(default_factory=list)  # statuses that are answered first, one after the other
    ranges: bool = True
    told: int | None = None  # Content-Length, if it is to be a lie
    length: bool = True  # whether there is one
    chunked: bool = False


class Web:
    """The server: `pages` by path, and what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []  # path and Range
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web._answer(self)

            def log_message(self, format: str, *_: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.asked.append((handler.path, asked))
        page = self.pages.get(handler.path, Page(b"not here", 404))
        handler.close_connection = True
        status, start, body = page.status, 0, page.content
        if page.once:
            status, body = page.once.pop(0), b"later"
        elif asked and page.ranges and handler.headers.get("If-Range") in (None, page.etag):
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            assert found
            start = int(found[1])
            status = 206 if start < len(body) else 416
        handler.send_response(status)
        if page.etag:
            handler.send_header("ETag", page.etag)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        elif status == 416:
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            body = b""
        if page.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        elif page.length:
            handler.send_header("Content-Length", str(len(body) if page.told is None else page.told))
        for name, value in page.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        sent = body[: page.hang_up_after]
        if page.chunked:
            sent = b"%x\r\n%s\r\n%s" % (len(sent), sent, b"0\r\n\r\n" if len(sent) == len(body) else b"")
        with suppress(ConnectionError):  # whoever has seen enough hangs up
            handler.wfile.write(sent)
