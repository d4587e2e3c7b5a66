"""Downloading: a file from an http or https address, gone on with after interruptions, and whole or not there.

How it works. What has come so far lies beside the target (`NAME.part`), and beside it what is known of it
(`NAME.part.json`): the address, the server's validator (a strong ETag, or Last-Modified), the whole length, and
how much was flushed. Another attempt, in this run or after a restart, asks for the rest with Range and If-Range, and
goes on if the server answers 206 for the same file; else it begins anew. Only what was flushed counts, so that a power
cut leaves no zeros in the middle.

The file gets its name when it has the length that the server said, and the checksum that was given or that
`ADDRESS.sha256` says. A server that says no length, and ends by hanging up, is believed only with a checksum.

An attempt that fails for reasons that may pass (the network, a busy server) is repeated, with pauses that grow; one
that brought something forward starts the count anew. Redirects are followed to http and https alone, and from https
to http only if the checksum was given.

Sources: RFC 9110, sections 13.1.5 (If-Range), 14 (ranges), 8.8 (validators).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from bootlink_disks.writing import drafted, write_at
from bootlink_registry.imaging import checksums
from bootlink_registry.imaging.requests import Fetch
from bootlink_registry.imaging.results import Fetched
from bootlink_registry.imaging.work import CHUNK, Stages, Tell, wrong_checksum
from bootlink_registry.problems import Problem, invalid

ATTEMPTS: Final = 8  # in a row that brought nothing; with the pauses that is about two minutes
FIRST_ATTEMPTS: Final = 3  # while the server was never reached: the address may be wrong, and somebody waits
PAUSES: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds before each further one
CONNECT_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 60.0  # without a byte, until the connection counts as dead
REDIRECTS: Final = 5
FLUSH_EVERY: Final = 64 << 20  # bytes that a power cut may cost
RESERVE: Final = 64 << 20  # bytes of the file system that a download leaves free

_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be others a little later
_NONE_BESIDE: Final = frozenset({401, 403, 404, 410})
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


T = TypeVar("T")


@dataclass(slots=True)
class Notes:
    """What is known of a download that is on its way."""

    url: str
    validator: str = ""  # for If-Range; empty: it cannot be gone on with
    total: int | None = None  # bytes of the whole file
    flushed: int = 0  # bytes


class _Passing(Exception):
    """An attempt failed for a reason that may pass."""


class _Refused(Problem):
    """The server's answer will not change."""

    def __init__(self, answered: int, detail: str, remedy: str) -> None:
        super().__init__(422, detail, remedy)
        self.answered = answered


def fetch(request: Fetch, tell: Tell) -> Fetched:
    """The file, downloaded to the request's target."""
    if request.target.exists():
        raise invalid(f"{request.target}: a file of this name exists", "choose another name")
    with httpx.Client(timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)) as client:
        download = _Download(request, client, tell)
        try:
            return download.run()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                download.forget()  # a full disk hurts PCs that run, so half a file must not keep it full
            raise


class _Download:
    """One download, over as many attempts as it takes."""

    def __init__(self, request: Fetch, client: httpx.Client, tell: Tell) -> None:
        self._request = request
        self._client = client
        self._tell = tell
        self._url = httpx.URL(str(request.url))
        self._shown = str(self._url.copy_with(username=None, password=None))  # in messages
        self._part = request.target.with_name(f"{request.target.name}.part")
        self._notes_at = self._part.with_name(f"{self._part.name}.json")
        self._notes_draft = self._part.with_name(f"{self._part.name}.json.new")
        self._notes = Notes(str(self._url))
        self._reached = False
        self._went_on = False  # with bytes of an earlier attempt
        self._unsure = False  # whether it is whole: the server said no length

    def run(self) -> Fetched:
        expected = self._request.sha256 or self._patiently(self._beside)
        if self._request.resume:
            self._notes = self._read_notes()
        found = self._patiently(self._attempt)
        if expected is not None and found != expected and self._went_on:
            # Two halves of two files, if the server's validator lied. Once more, from the start.
            self.forget()
            found = self._patiently(self._attempt)
        if expected is not None and found != expected:
            self.forget()
            raise wrong_checksum(self._shown, expected, found)
        if expected is None and self._unsure:
            self.forget()
            raise invalid(
                f"{self._shown}: the server does not say how long the file is, so half of it cannot be told from all",
                "give its checksum: --sha256",
            )
        size = self._part.stat().st_size
        self._publish()
        return Fetched(path=self._request.target, size=size, sha256=found, checked=expected is not None)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, tried again while it fails for reasons that may pass."""
        failed = furthest = 0
        while True:
            try:
                return attempt()
            except (_Passing, httpx.TransportError, httpx.StreamError) as error:
                failed = 1 if self._notes.flushed > furthest else failed + 1
                furthest = max(furthest, self._notes.flushed)
                if failed == (ATTEMPTS if self._reached else FIRST_ATTEMPTS) or "CERTIFICATE_VERIFY" in str(error):
                    raise self._unreachable(error) from error
                time.sleep(PAUSES[min(failed, len(PAUSES)) - 1])

    def _attempt(self) -> str:
        """Get what is missing; the checksum of the whole. _Passing and httpx's errors where another may succeed."""
        with _opened(self._part) as fd:
            summed = self._begin(fd)
            headers = {}
            if self._notes.flushed:
                headers = {"Range": f"bytes={self._notes.flushed}-", "If-Range": self._notes.validator}
            with self._answer(self._url, headers) as answer:
                if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and self._notes.flushed:
                    return self._nothing_missing(answer, summed)
                if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                    self._start_anew(fd, answer)
                    summed = hashlib.sha256()
                elif not self._goes_on(answer):
                    self._notes = Notes(self._notes.url)  # and the next attempt begins anew
                    raise _Passing("the server went on with another file")
                else:
                    self._went_on = True
                self._require_room()
                return self._take(fd, answer, summed)

    def _begin(self, fd: int) -> Any:
        """The running checksum of what was flushed; what came after it is cut off."""
        if os.fstat(fd).st_size < self._notes.flushed:
            self._notes = Notes(self._notes.url)
        os.ftruncate(fd, self._notes.flushed)
        summed = hashlib.sha256()
        done = 0
        while data := os.pread(fd, CHUNK, done):
            summed.update(data)
            done += len(data)
        return summed

    @contextmanager
    def _answer(self, url: httpx.URL, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer to a GET, its body not read yet. Problem where another attempt would not change it."""
        # As they are, and not packed for the way: the bytes of the file are what is counted, gone on with and summed.
        asked = {"Accept-Encoding": "identity", "User-Agent": "bootlink", **headers}
        request = self._client.build_request("GET", url, headers=asked)
        for _ in range(REDIRECTS + 1):
            answer = self._client.send(request, stream=True)
            try:
                if answer.next_request is None:
                    yield self._judged(answer)
                    return
                request = answer.next_request
                self._require_web(answer.url, request.url)
            finally:
                answer.close()
        raise invalid(f"{self._shown}: it redirects more than {REDIRECTS} times", "give the last address of them")

    def _require_web(self, before: httpx.URL, after: httpx.URL) -> None:
        if after.scheme not in ("http", "https"):
            raise invalid(f"{self._shown}: it redirects to {after.scheme}:, which is not followed", "give another")
        if before.scheme == "https" and after.scheme == "http" and self._request.sha256 is None:
            raise invalid(
                f"{self._shown}: it redirects from https to http, where anybody may change the file on its way",
                "give its checksum, --sha256, or another address",
            )

    def _judged(self, answer: httpx.Response) -> httpx.Response:
        self._reached = True
        status = answer.status_code
        if status in _PASSING:
            raise _Passing(f"the server answers {status}")
        fine = (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE)
        if status not in fine:
            words = f"{self._shown}: the server answers {status} {answer.reason_phrase}"
            raise _Refused(status, words, "check the address, and whether it can be had without logging in")
        if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise invalid(f"{self._shown}: the server sends it packed, unasked", "give another address")
        return answer

    def _start_anew(self, fd: int, answer: httpx.Response) -> None:
        """Note what the server says of the file, and drop what came before."""
        os.ftruncate(fd, 0)
        length = answer.headers.get("Content-Length", "")
        self._went_on = False
        self._notes = Notes(self._notes.url, _validator(answer), int(length) if length.isdigit() else None)
        self._unsure = self._notes.total is None and "chunked" not in answer.headers.get("Transfer-Encoding", "")

    def _goes_on(self, answer: httpx.Response) -> bool:
        """Whether a 206 is the rest of the file that was begun."""
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None or found[1] is None or int(found[1]) != self._notes.flushed:
            return False
        if found[2] != "*":
            if self._notes.total not in (None, int(found[2])):
                return False
            self._notes.total = int(found[2])
        return _validator(answer) in ("", self._notes.validator)

    def _nothing_missing(self, answer: httpx.Response, summed: Any) -> str:
        """A 416: the file ends where we are, or is another now."""
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is not None and found[2] == str(self._notes.flushed) == str(self._notes.total):
            self._went_on = True
            return str(summed.hexdigest())
        self._notes = Notes(self._notes.url)
        raise _Passing("the server's file is shorter than it was")

    def _take(self, fd: int, answer: httpx.Response, summed: Any) -> str:
        """Write what comes; the checksum of the whole file."""
        done, total = self._notes.flushed, self._notes.total
        stages = Stages(lambda now, _: self._tell(now, total), total or sys.maxsize)
        try:
            for data in answer.iter_raw():
                write_at(fd, done, data)
                summed.update(data)
                done += len(data)
                stages(done)
                if done - self._notes.flushed >= FLUSH_EVERY:
                    self._flush(fd, done)
        finally:
            self._flush(fd, done)
        if total is not None and done != total:
            raise _Passing(f"the server hung up after {done} of {total} bytes")
        return str(summed.hexdigest())

    def _beside(self) -> str | None:
        """The checksum that lies beside the file, if there is one. Problem if there is one for other files alone."""
        url = self._url.copy_with(path=f"{self._url.path}.sha256")
        try:
            with self._answer(url, {}) as answer:
                text = b""
                for data in answer.iter_raw():
                    text += data
                    if len(text) > checksums.LIMIT:
                        break
        except _Refused as refused:
            if refused.answered in _NONE_BESIDE:
                return None
            raise
        name = self._url.path.rsplit("/", 1)[-1]
        found = checksums.find(text.decode(errors="replace"), name)
        # Some servers answer with a page whatever is asked for, and say 200.
        if found is None and "html" not in answer.headers.get("Content-Type", ""):
            raise invalid(f"{self._shown}.sha256: there is no SHA-256 of {name} in it", "give its checksum: --sha256")
        return found

    def _require_room(self) -> None:
        """Problem if the file system has no room for what is missing."""
        if self._notes.total is None:
            return
        room = os.statvfs(self._request.target.parent)
        missing = self._notes.total - self._notes.flushed
        free = room.f_bavail * room.f_frsize
        if missing + RESERVE > free:
            raise Problem(
                507,
                f"{self._shown}: {missing} bytes are to come, and {self._request.target.parent} has {free} bytes free",
                "free some space, then repeat",
            )

    def _flush(self, fd: int, done: int) -> None:
        """Make what has come durable, and note it."""
        os.fdatasync(fd)
        self._notes.flushed = done
        if self._notes.validator:
            self._notes_draft.write_text(json.dumps(asdict(self._notes)))
            self._notes_draft.rename(self._notes_at)

    def _read_notes(self) -> Notes:
        """What an earlier run noted of the same address, or nothing."""
        try:
            found = Notes(**json.loads(self._notes_at.read_bytes()))
        except (OSError, ValueError, TypeError):
            return Notes(str(self._url))
        return found if found.url == str(self._url) and found.validator else Notes(str(self._url))

    def forget(self) -> None:
        """Remove what has come."""
        self._notes = Notes(str(self._url))
        for path in (self._part, self._notes_at, self._notes_draft):
            path.unlink(missing_ok=True)

    def _publish(self) -> None:
        """Give the file its name, and the notes up. DiskError."""
        with drafted(self._request.target) as draft:
            self._part.rename(draft)
        self._notes_at.unlink(missing_ok=True)

    def _unreachable(self, error: Exception) -> Problem:
        return Problem(
            502,
            f"{self._shown}: {error or type(error).__name__}",
            "check the address and the network of the registry's machine, then repeat: what has come is kept",
        )


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def _validator(answer: httpx.Response) -> str:
    """What names this very file, for If-Range. A weak ETag does not; nor does a date that is not past, as the file
    could change again within its second (RFC 9110, section 8.8.2.2)."""
    tag: str = answer.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    changed: str = answer.headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(answer.headers.get("Date", "")) - parsedate_to_datetime(changed)
    except ValueError:
        return ""
    return changed if age.total_seconds() >= 1 else ""
