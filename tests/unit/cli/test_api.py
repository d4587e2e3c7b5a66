"""The API's client: pages, quoting, and that whatever answers becomes JSON or one clear line."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from bootlink import api as client
from bootlink.api import Api
from bootlink.errors import CommandError
from lab.answering import Answering, Asked, answering


@contextlib.contextmanager
def api(answer: Answering, path: str = "") -> Iterator[Api]:
    with answering(answer) as url:
        made = Api(f"{url}{path}/")
        try:
            yield made
        finally:
            made.close()


def test_a_listing_is_read_page_by_page_to_its_end() -> None:
    asked = []

    def answer(request: Asked) -> tuple[int, str]:
        asked.append(request.target)
        after = parse_qs(urlsplit(request.target).query).get("after")
        return 200, json.dumps({"items": after or ["first"], "next": None if after else "first"})

    with api(answer) as registry:
        assert registry.listing("clients", group="g 1") == ["first", "first"]
    assert asked == ["/v1/clients?group=g+1&limit=1000", "/v1/clients?group=g+1&after=first&limit=1000"]


def test_a_bounded_listing_asks_for_no_more_than_it_wants() -> None:
    def answer(request: Asked) -> tuple[int, str]:
        assert "limit=2" in request.target
        return 200, json.dumps({"items": [3, 2], "next": "2"})

    with api(answer) as registry:
        assert registry.listing("boots", cursor="before", most=2) == [3, 2]


def test_names_are_quoted_so_that_they_stay_one_part_of_the_path() -> None:
    seen = []

    def answer(request: Asked) -> tuple[int, str]:
        seen.append(request.target)
        return 200, "{}"

    with api(answer, "/below") as registry:
        registry.get("images", "../clients?x#y")
    assert seen == ["/below/v1/images/..%2Fclients%3Fx%23y"]


def test_each_verb_carries_its_body_over_one_connection_that_is_made_anew_when_it_was_closed() -> None:
    seen = []

    def answer(request: Asked) -> tuple[int, str] | None:
        seen.append((request.method, json.loads(request.body or "null")))
        return 200 if request.method != "DELETE" else 204, ""

    with api(answer) as registry:
        for _ in range(2):
            assert registry.put("links", body={"note": "ä"}) is None
            assert registry.patch("links", body={}) is None
            assert registry.post("links", body={"a": [1]}) is None
            assert registry.delete("links", lun=None) is None
            assert registry._connection.sock is not None
            registry._connection.sock.shutdown(socket.SHUT_RDWR)  # as if the registry had closed it
    assert seen == [("PUT", {"note": "ä"}), ("PATCH", {}), ("POST", {"a": [1]}), ("DELETE", None)] * 2


def test_a_problem_gives_its_detail_and_its_remedy() -> None:
    problem = {"title": "Not Found", "status": 404, "detail": "there is no image x", "remedy": "add it"}
    with api(lambda _: (404, json.dumps(problem))) as registry, pytest.raises(CommandError) as error:
        registry.get("images", "x")
    assert (error.value.problem, error.value.remedy, error.value.status) == ("there is no image x", "add it", 404)


@pytest.mark.parametrize(
    "answer",
    [
        (502, "<html>bad gateway</html>"),
        (500, '["a list"]'),
        (404, '{"detail": null}'),
        (404, ""),
        (302, ""),
        (200, "<html>hello</html>"),
    ],
)
def test_what_is_no_registry_is_told_in_one_line(answer: tuple[int, str]) -> None:
    with api(lambda _: answer) as registry, pytest.raises(CommandError) as error:
        registry.get("images")
    assert f"{registry.url}/v1/images" in error.value.problem
    assert "\n" not in error.value.problem


def test_a_connection_that_fails_is_told_with_the_address() -> None:
    with api(lambda _: None) as registry, pytest.raises(CommandError, match=registry.url):
        registry.get("images")
    with pytest.raises(CommandError, match=registry.url):  # refused, as nobody listens there any more
        registry.get("images")


def test_a_registry_that_is_too_slow_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "API_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        registry = Api(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(CommandError, match="in time"):
            registry.get("images")


@pytest.mark.parametrize(
    "url", ["", "registry:8600", "ftp://registry", "http://", "http://registry:port", "http://[::1"]
)
def test_what_is_no_address_of_an_api_is_told_so(url: str) -> None:
    with pytest.raises(CommandError, match="no address"):
        Api(url)


def test_what_speaks_no_http_is_told_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            other, _ = listener.accept()
            with other:
                other.recv(4096)
                other.sendall(b"SSH-2.0-OpenSSH\r\n")

        server = threading.Thread(target=greet)
        server.start()
        registry = Api(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(CommandError, match="does not answer"):
            registry.get("images")
        server.join()
