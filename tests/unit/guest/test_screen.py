"""The screen: text out of a serial line that firmware, boot loader and kernel share."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.screen import HISTORY_LIMIT, Screen

# What SeaBIOS, GRUB and the guest print in turn on one serial line, escapes included (from a transcript).
BOOT = (
    b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\n"
    b"\x1b[0;1miPXE 1.0.0+\x1b[0m -- \x1b[0;36mhttp://ipxe.org\r\n"
    b"\x1b[0;30;47mWelcome to GRUB!\x1b[H\x1b[J\x1b[1;1H\n\rguest: GRUB: loading the kernel\n\r"
    b"J\xc3\xbcrgen\r\npc-001 login: "
)


def shown(data: bytes) -> str:
    screen = Screen()
    screen.feed(data)
    return screen.tail(100)


def test_escape_sequences_are_taken_out_and_cursor_jumps_break_lines() -> None:
    assert shown(BOOT).splitlines() == [
        "SeaBIOS (version 1.16.2)",
        "iPXE 1.0.0+ -- http://ipxe.org",
        "Welcome to GRUB!",
        "guest: GRUB: loading the kernel",
        "Jürgen",
        "pc-001 login:",
    ]


@given(st.sets(st.integers(0, len(BOOT))))
def test_text_is_the_same_wherever_the_bytes_are_cut(cuts: set[int]) -> None:
    screen = Screen()
    edges = [0, *sorted(cuts), len(BOOT)]
    for start, end in itertools.pairwise(edges):
        screen.feed(BOOT[start:end])
    assert screen.tail(100) == shown(BOOT)


@given(st.binary(max_size=300))
def test_no_bytes_from_the_line_are_an_error(data: bytes) -> None:
    shown(data)


def test_reading_goes_on_behind_what_was_found() -> None:
    screen = Screen()
    screen.feed(b"pc login: ")
    prompt = re.compile("login: ")
    assert screen.peek(prompt)
    assert screen.find(prompt)
    assert screen.find(prompt) is None
    screen.feed(b"\r\npc login: ")
    assert screen.find(prompt)


@pytest.mark.parametrize("piece", [b"x" * 1000 + b"\n", b"x" * (HISTORY_LIMIT + 5)])
def test_an_endless_screen_is_dropped_from_the_front(piece: bytes) -> None:
    screen = Screen()
    for _ in range(1 + 2 * HISTORY_LIMIT // len(piece)):
        screen.feed(piece)
    screen.feed(b"\nthe end\n")
    assert screen.find(re.compile("the end"))
    assert len(screen.tail(10**9)) <= HISTORY_LIMIT
