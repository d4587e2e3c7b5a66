"""The API's client: pages, quoting, and that whatever answers becomes JSON or one clear line."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from bootlink.api import Api
from bootlink.errors import CommandError


def api(answer: Callable[[httpx.Request], httpx.Response]) -> Api:
    return Api("http://registry:8600/", transport=httpx.MockTransport(answer))


def test_a_listing_is_read_page_by_page_to_its_end() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        after = request.url.params.get("after")
        return httpx.Response(200, json={"items": [after or "first"], "next": None if after else "first"})

    assert api(answer).listing("clients", group="g 1") == ["first", "first"]
    assert asked == [
        "http://registry:8600/v1/clients?group=g+1&limit=1000",
        "http://registry:8600/v1/clients?group=g+1&after=first&limit=1000",
    ]


def test_a_bounded_listing_asks_for_no_more_than_it_wants() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["limit"] == "2"
        return httpx.Response(200, json={"items": [3, 2], "next": "2"})

    assert api(answer).listing("boots", cursor="before", most=2) == [3, 2]


def test_names_are_quoted_so_that_they_stay_one_part_of_the_path() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={})

    api(answer).get("images", "../clients?x#y")
    assert seen == [b"/v1/images/..%2Fclients%3Fx%23y"]


def test_a_problem_gives_its_detail_and_its_remedy() -> None:
    problem = {"title": "Not Found", "status": 404, "detail": "there is no image x", "remedy": "add it"}
    with pytest.raises(CommandError) as error:
        api(lambda _: httpx.Response(404, json=problem)).get("images", "x")
    assert (error.value.problem, error.value.remedy) == ("there is no image x", "add it")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(500, json=["a list"]),
        httpx.Response(404, json={"detail": None}),
        httpx.Response(200, text="<html>hello</html>"),
    ],
)
def test_what_is_no_registry_is_told_in_one_line(answer: httpx.Response) -> None:
    with pytest.raises(CommandError) as error:
        api(lambda _: answer).get("images")
    assert "http://registry:8600" in error.value.problem
    assert "\n" not in error.value.problem


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.ReadError("reset")]
)
def test_a_connection_that_fails_is_told_with_the_address(failure: Exception) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise failure

    with pytest.raises(CommandError, match="http://registry:8600"):
        api(answer).get("images")
