"""What reaches the terminal: nothing that it would obey, whoever wrote it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from bootlink import output
from bootlink.output import LAID_OUT_MOST, print_error, print_facts, print_json, print_table, shown, size

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


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns is sent."""
    sent = io.StringIO()
    monkeypatch.setattr(output, "console", lambda: Console(file=sent, width=80, highlight=False))
    return sent


def test_a_table_is_broken_at_blanks_and_its_names_stay_whole(terminal: io.StringIO) -> None:
    note = "a note of some words, which says what nobody would ask for"
    row = ("pc-07", "52:54:00:12:34:56", "teachers", "192.0.2.107", "no", note)
    print_table(("client", "mac", "group", "address", "came by itself", "note"), [row], empty="none")
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 80
    assert all(cell in terminal.getvalue() for cell in row[:4])


def test_a_table_that_does_not_fit_has_one_line_for_each_row(terminal: io.StringIO) -> None:
    row = ("01a20d0b-d29c-70a0-974f-de46e3e691ec", "image.import", "done", "2026-11-24 10:13:28", "x" * 60)
    print_table(("job", "what", "state", "begun", "about"), [row, row], empty="none")
    _, first, second = terminal.getvalue().splitlines()
    assert first == second
    assert first.split() == " ".join(row).split()


def test_a_column_that_says_nothing_in_any_row_is_left_out(terminal: io.StringIO) -> None:
    print_table(("client", "address", "note"), [("pc-07", None, ""), ("pc-08", None, "loud")], empty="none")
    lines = [line.split() for line in terminal.getvalue().splitlines()]
    assert lines == [["client", "note"], ["pc-07"], ["pc-08", "loud"]]


def test_a_fact_that_is_too_long_goes_on_below_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.StringIO()
    made = Console(file=sent, width=40, highlight=False, force_terminal=True, no_color=True)
    monkeypatch.setattr(output, "console", lambda: made)
    path = "/srv/images/" + "x" * 60
    print_facts({"problem": "the disk is full, and nothing was written to it", "file": path, "by": "anna"})
    plain = re.sub(rf"{ESC}\[[0-9;]*m", "", sent.getvalue())
    lines = [line.rstrip() for line in plain.splitlines()]
    assert lines[:2] == ["problem  the disk is full, and nothing", "         was written to it"]
    assert lines[2:] == [f"file     {path}", "by       anna"]


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_table_that_does_not_fit_is_not_broken_in_words_whatever_the_terminal_calls_itself(
    monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    sent = io.StringIO()
    monkeypatch.setenv("TERM", term)
    made = Console(file=sent, width=80, highlight=False, force_terminal=True)
    monkeypatch.setattr(output, "console", lambda: made)
    row = ("01a20d0b-d29c-70a0-974f-de46e3e691ec", "x" * 60)
    print_table(("job", "about"), [row], empty="none")
    assert all(cell in sent.getvalue() for cell in row)


def test_sizes_and_times_are_for_people() -> None:
    assert [size(n) for n in (None, 0, 4096, 40 * 2**20, 3 * 2**30)] == [
        *(None, "0.0 MiB", "4.0 KiB", "40.0 MiB", "3.0 GiB")
    ]
    moment_ = output.moment("2026-11-24T12:00:59Z")
    assert moment_ is not None
    assert output.minute("2026-11-24T12:00:59Z") == moment_[:-3]
