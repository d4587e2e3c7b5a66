"""Downloads: whole and right or not there, over a network and servers that fail."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_registry import imaging
from bootlink_registry.imaging import fetch as fetching
from bootlink_registry.imaging import work
from bootlink_registry.problems import Problem
from lab.filesystem import small
from lab.web import Page, Web, busybox

CONTENT = random.Random(4).randbytes(3_000_000)
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSES", (0.0,))


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        server.pages["/a.img"] = Page(CONTENT)
        yield server


def fetch(url: str, folder: Path, **more: Any) -> imaging.Fetched:
    """Download it in the test's own process."""
    return fetching.fetch(imaging.Fetch(url=url, target=folder / "a", **more), lambda *_: None)


def refused(url: str, folder: Path, **more: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        fetch(url, folder, **more)
    assert not (folder / "a").exists()
    return caught.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_download_is_whole_and_tells_how_far_it_is(web: Web, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    async def progress(done: int, total: int | None) -> None:
        told.append((done, total))

    request = imaging.Fetch(url=f"{web.url}/a.img", target=tmp_path / "a")
    answer = await imaging.run(request, progress)
    assert (answer.size, answer.sha256, answer.checked) == (len(CONTENT), SUM, False)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert told
    assert {total for _, total in told} == {len(CONTENT)}
    assert names(tmp_path) == ["a"]


def test_busybox_is_a_server_too(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a.img").write_bytes(CONTENT)
    os.utime(tmp_path / "www" / "a.img", (1_700_000_000, 1_700_000_000))
    (tmp_path / "www" / "a.img.sha256").write_text(f"{SUM}  a.img\n")
    with busybox(tmp_path / "www") as url:
        (tmp_path / "a.part").write_bytes(CONTENT[:1_000_000])
        stamp = "Tue, 14 Nov 2023 22:13:20 GMT"
        notes = f'{{"url": "{url}/a.img", "validator": "{stamp}", "total": {len(CONTENT)}, "flushed": 1000000}}'
        (tmp_path / "a.part.json").write_text(notes)
        answer = fetch(f"{url}/a.img", tmp_path)
        assert (answer.sha256, answer.checked) == (SUM, True)
        assert refused(f"{url}/none.img", tmp_path / "www").detail.endswith("404 Not Found")


def test_a_connection_that_breaks_again_and_again_is_gone_on_with(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].hang_up_after = 200_000
    answer = fetch(f"{web.url}/a.img", tmp_path)
    assert (answer.sha256, answer.size) == (SUM, len(CONTENT))
    ranges = [asked for path, asked in web.asked if path == "/a.img"]
    assert ranges[:3] == [None, "bytes=200000-", "bytes=400000-"]
    assert len(ranges) == 15


async def test_a_download_that_was_killed_is_gone_on_with(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].hang_up_after = 100_000  # so that it takes its time: half a second after each
    request = imaging.Fetch(url=f"{web.url}/a.img", target=tmp_path / "a")
    task = asyncio.create_task(imaging.run(request))
    async with asyncio.timeout(20):
        while not (tmp_path / "a.part.json").exists():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path)[:2] == ["a.part", "a.part.json"]
    web.pages["/a.img"].hang_up_after = None
    web.asked.clear()
    assert (await imaging.run(request)).sha256 == SUM
    assert [asked for path, asked in web.asked if path == "/a.img"] != [None], "it began anew"
    assert "a.part" not in names(tmp_path)


def test_another_file_at_the_address_is_begun_anew(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].hang_up_after = 100_000
    web.pages["/a.img"].once = []
    half(web, tmp_path)
    other = random.Random(5).randbytes(2_000_000)
    web.pages["/a.img"] = Page(other, etag='"two"')
    assert fetch(f"{web.url}/a.img", tmp_path).sha256 == hashlib.sha256(other).hexdigest()


def half(web: Web, folder: Path) -> None:
    """Leave half a download behind."""
    page = web.pages["/a.img"]
    page.hang_up_after, page.ranges = 1_000_000, False
    try:
        problem = refused(f"{web.url}/a.img", folder)
    finally:
        page.hang_up_after, page.ranges = None, True
    assert problem.status == 502
    assert "what has come is kept" in problem.remedy
    assert (folder / "a.part").stat().st_size == 1_000_000
    web.asked.clear()


def test_what_has_come_is_kept_for_the_next_time(web: Web, tmp_path: Path) -> None:
    half(web, tmp_path)
    assert fetch(f"{web.url}/a.img", tmp_path).sha256 == SUM
    assert web.asked == [("/a.img.sha256", None), ("/a.img", "bytes=1000000-")]


def test_what_was_not_flushed_does_not_count(web: Web, tmp_path: Path) -> None:
    half(web, tmp_path)
    with (tmp_path / "a.part").open("ab") as file:
        file.write(bytes(500_000))
    assert fetch(f"{web.url}/a.img", tmp_path).sha256 == SUM


def test_half_a_download_that_is_shorter_than_noted_is_begun_anew(web: Web, tmp_path: Path) -> None:
    half(web, tmp_path)
    os.truncate(tmp_path / "a.part", 10)
    assert fetch(f"{web.url}/a.img", tmp_path).sha256 == SUM


def test_notes_that_are_none_are_no_notes(web: Web, tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"url": 1, "flushed": "x"}', "\0"):
        half(web, tmp_path)
        (tmp_path / "a.part.json").write_text(text)
        assert fetch(f"{web.url}/a.img", tmp_path).sha256 == SUM
        (tmp_path / "a").unlink()


def test_two_halves_of_two_files_are_found_by_the_checksum(web: Web, tmp_path: Path) -> None:
    half(web, tmp_path)
    (tmp_path / "a.part").write_bytes(bytes(1_000_000))  # as if the server's ETag had lied
    web.pages["/a.img.sha256"] = Page(SUM.encode())
    answer = fetch(f"{web.url}/a.img", tmp_path)
    assert (answer.sha256, answer.checked) == (SUM, True)
    assert [asked for path, asked in web.asked if path == "/a.img"] == ["bytes=1000000-", None]


def test_a_whole_file_that_lacks_only_its_name_gets_it(web: Web, tmp_path: Path) -> None:
    half(web, tmp_path)
    (tmp_path / "a.part").write_bytes(CONTENT)
    notes = (tmp_path / "a.part.json").read_text()
    (tmp_path / "a.part.json").write_text(notes.replace('"flushed": 1000000', f'"flushed": {len(CONTENT)}'))
    assert fetch(f"{web.url}/a.img", tmp_path).sha256 == SUM
    assert web.asked[-1] == ("/a.img", f"bytes={len(CONTENT)}-")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int, web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].once = [status, status]
    assert fetch(f"{web.url}/a.img", tmp_path).sha256 == SUM


def test_what_is_not_there_is_told_at_once(web: Web, tmp_path: Path) -> None:
    problem = refused(f"{web.url}/none.img", tmp_path)
    assert (problem.status, problem.detail) == (422, f"{web.url}/none.img: the server answers 404 Not Found")
    assert web.asked == [("/none.img.sha256", None), ("/none.img", None)]
    assert names(tmp_path) in ([], ["a.part"])


def test_a_server_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with Web() as gone:
        url = gone.url
    problem = refused(f"{url}/a.img", tmp_path)
    assert problem.status == 502
    assert "refused" in problem.detail


def test_a_length_that_is_a_lie_is_a_problem(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].told = len(CONTENT) + 1000
    problem = refused(f"{web.url}/a.img", tmp_path)
    assert problem.status == 502


def test_without_a_length_only_a_checksum_tells_that_it_is_whole(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].length = False
    problem = refused(f"{web.url}/a.img", tmp_path)
    assert "half of it cannot be told from all" in problem.detail
    assert fetch(f"{web.url}/a.img", tmp_path, sha256=SUM).checked


def test_chunks_end_by_themselves(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].chunked = True
    assert fetch(f"{web.url}/a.img", tmp_path).sha256 == SUM
    (tmp_path / "a").unlink()
    web.pages["/a.img"].hang_up_after = 1_000_000
    web.pages["/a.img"].ranges = False
    assert refused(f"{web.url}/a.img", tmp_path).status == 502


def test_a_wrong_checksum_is_a_problem_and_nothing_is_kept(web: Web, tmp_path: Path) -> None:
    problem = refused(f"{web.url}/a.img", tmp_path, sha256=hashlib.sha256(b"").hexdigest())
    assert "should be" in problem.detail
    assert names(tmp_path) == []
    web.pages["/a.img.sha256"] = Page(f"{'0' * 64}  a.img\n".encode())
    assert "should be" in refused(f"{web.url}/a.img", tmp_path).detail


def test_a_checksum_file_without_one_is_a_problem_and_a_page_is_none(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img.sha256"] = Page(b"out of order")
    assert "there is no SHA-256 of a.img in it" in refused(f"{web.url}/a.img", tmp_path).detail
    web.pages["/a.img.sha256"] = Page(b"<html>", headers={"Content-Type": "text/html"})
    assert not fetch(f"{web.url}/a.img", tmp_path).checked


def test_redirects_are_followed_to_the_web_alone(web: Web, tmp_path: Path) -> None:
    web.pages["/from"] = Page(status=302, headers={"Location": "/a.img"})
    assert fetch(f"{web.url}/from", tmp_path).sha256 == SUM
    (tmp_path / "a").unlink()
    for address in ("file:///etc/hostname", "ftp://127.0.0.1/a"):
        web.pages["/from"] = Page(status=302, headers={"Location": address})
        assert "is not followed" in refused(f"{web.url}/from", tmp_path).detail
    web.pages["/from"] = Page(status=302, headers={"Location": "/from"})
    assert "more than 5 times" in refused(f"{web.url}/from", tmp_path).detail


def test_a_packed_answer_is_refused(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].headers["Content-Encoding"] = "gzip"
    assert "packed" in refused(f"{web.url}/a.img", tmp_path).detail


def test_a_name_and_password_are_sent_and_not_shown(web: Web, tmp_path: Path) -> None:
    url = web.url.replace("http://", "http://me:geheim@")
    problem = refused(f"{url}/none.img", tmp_path)
    assert "geheim" not in problem.detail + problem.remedy


def test_a_file_that_does_not_fit_is_told_before_it_comes(web: Web, tmp_path: Path, monkeypatch: Any) -> None:
    with small("tmpfs", tmp_path, 8 << 20) as folder:
        problem = refused(f"{web.url}/a.img", folder)
        assert (problem.status, names(folder)) == (507, ["a.part"])
        assert "bytes free" in problem.detail


def test_a_disk_that_fills_up_meanwhile_is_not_kept_full(web: Web, tmp_path: Path) -> None:
    web.pages["/a.img"].chunked = True  # so that its length is not known
    with small("tmpfs", tmp_path, 2 << 20) as folder:
        with pytest.raises(OSError, match="No space left") as caught:
            fetch(f"{web.url}/a.img", folder)
        assert caught.value.errno == errno.ENOSPC
        assert work.problem_of(caught.value).status == 507
        assert names(folder) == []


def test_a_file_of_that_name_is_never_overwritten(web: Web, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"precious")
    with pytest.raises(Problem, match="exists"):
        fetch(f"{web.url}/a.img", tmp_path)
    assert (tmp_path / "a").read_bytes() == b"precious"
