"""Which token the command shows, and to whom; and what it makes of a token's end."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from bootlink import api
from bootlink.commands.tokens import parse_expiry
from bootlink.errors import CommandError
from bootlink.settings import ADMIN_TOKEN, CommandSettings, is_here
from lab.answering import Asked, answering

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The data folder of an `up` on this machine, and nothing else set."""
    for name in ("TOKEN", "TOKEN_FILE", "API"):
        monkeypatch.delenv(f"BOOTLINK_{name}", raising=False)
    monkeypatch.setenv("BOOTLINK_DATA", str(tmp_path))
    (tmp_path / ADMIN_TOKEN).write_text("made-by-up\n")
    return monkeypatch


def test_a_token_in_the_environment_comes_before_a_file_and_that_before_the_one_of_up(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert CommandSettings.from_environment().token_to_show() == "made-by-up"
    (tmp_path / "mine").write_text("from-a-file\n")
    environment.setenv("BOOTLINK_TOKEN_FILE", str(tmp_path / "mine"))
    assert CommandSettings.from_environment().token_to_show() == "from-a-file"
    environment.setenv("BOOTLINK_TOKEN", "from-the-environment")
    assert CommandSettings.from_environment().token_to_show() == "from-the-environment"


def test_the_token_of_up_is_shown_to_this_machine_alone(environment: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:8600", "http://localhost:1", "http://[::1]:8600"):
        assert is_here(url)
    for url in ("http://10.0.0.1:8600", "http://localhost.example", "http://127.0.0.1.example", "http://", "nonsense"):
        assert not is_here(url)
        environment.setenv("BOOTLINK_API", url)
        assert CommandSettings.from_environment().token_to_show() == ""


def test_a_token_file_that_is_not_there_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("BOOTLINK_TOKEN_FILE", "/nowhere/token")
    with pytest.raises(CommandError, match="/nowhere/token"):
        CommandSettings.from_environment().token_to_show()


def test_without_a_token_the_apis_own_words_are_told(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ADMIN_TOKEN).unlink()
    assert CommandSettings.from_environment().token_to_show() == ""
    seen = []

    def answer(asked: Asked) -> tuple[int, str]:
        seen.append(asked.authorization)
        return 401, json.dumps({"detail": "the request carries no token", "remedy": "send one"})

    with answering(answer) as url:
        for token in ("", "a-token"):
            with (
                contextlib.closing(api.Api(url, token=token)) as registry,
                pytest.raises(CommandError, match="no token"),
            ):
                registry.get("info")
    assert seen == [None, "Bearer a-token"]


def test_what_cannot_be_a_token_is_sent_to_nobody() -> None:
    for token in ("two words", "ä", "a\r\nX-Header: b"):
        with pytest.raises(CommandError, match="BOOTLINK_TOKEN"):
            api.Api("http://registry:8600", token=token)


def test_the_end_of_a_token_is_some_days_from_now_or_a_time() -> None:
    assert parse_expiry("90d", now=NOW) == datetime(2027, 2, 22, 12, tzinfo=UTC)
    assert parse_expiry("2027-01-31T00:00+00:00", now=NOW) == datetime(2027, 1, 31, tzinfo=UTC)
    for text in ("soon", "", "d", "99999d" * 2, "2027-13-01"):
        with pytest.raises(typer.BadParameter):
            parse_expiry(text, now=NOW)
