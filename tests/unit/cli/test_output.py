"""What reaches the terminal: nothing that it would obey, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bootlink.output import LAID_OUT_MOST, print_error, print_facts, print_json, print_table, shown

ESC = "\x1b"
NASTY = f"{ESC}]0;title\x07{ESC}[2J\x9b31m\u202egpj\r\nsecond"
PLAIN = r"\x1b]0;title\x07\x1b[2J\x9b31m\u202egpj second"


def _facts() -> None:
    print_facts({"note": NASTY})


def _table() -> None:
    print_table(("client", "note"), [("pc-07", NASTY)], empty="none")


def _long_table() -> None:
    print_table(("client", "note"), [("pc-07", NASTY)] * (LAID_OUT_MOST + 1), empty="none")


@pytest.mark.parametrize("prints", [_facts, _table, _long_table])
def test_a_note_cannot_steer_the_terminal(prints: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    prints()
    out = capsys.readouterr().out
    assert PLAIN in out
    assert not {ESC, "\x07", "\x9b", "\r", "\u202e"} & set(out)


def test_a_problem_keeps_its_lines_and_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(f"{ESC}[2Jgone", "look\x9b", ["line 2: \x00"])
    expected = "error: \\x1b[2Jgone\n  line 2: \\x00\n  what to do: look\\x9b\n"
    assert capsys.readouterr().err == expected


def test_json_says_the_same_and_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"note": NASTY, "name": "Büro"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"note": NASTY, "name": "Büro"}
    assert "Büro" in out
    assert not {ESC, "\x9b", "\u202e"} & set(out)


def test_other_languages_are_shown_as_they_are() -> None:
    assert shown("Büro 東京 — שלום") == "Büro 東京 — שלום"
