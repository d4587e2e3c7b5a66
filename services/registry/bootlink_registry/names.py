"""Names that administrators give: of images, clients, groups and channels.

One rule for all: lower-case letters, digits, dashes and dots, beginning and ending with a letter or digit, at most 63
characters (a DNS label's length). Such a name is safe in an iPXE script, a file name, a URL and a log line, and two
names never differ in case alone. A name that reads as a MAC address is refused, as clients may be called by either.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from bootlink_events import normalise_mac

ENROL_LIMIT: Final = 10_000  # clients that enrol themselves; a flood of made-up MAC addresses ends here
NOTE_LIMIT: Final = 1_000  # characters
NAME_LIMIT: Final = 63  # characters, RFC 1035, section 2.3.4

TITLE_LIMIT: Final = 60  # characters; a row of iPXE's menu has 80 columns, and a frame

WITHOUT_NUL: Final = r"^[^\u0000]*$"  # what PostgreSQL can store; a regular expression of JSON Schema

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_PATTERN = re.compile(r"[a-z0-9.-]*\{n(:0?[0-9]{1,2})?\}[a-z0-9.-]*")  # nothing else that str.format understands
_TITLE = re.compile(r"([A-Za-z0-9(][A-Za-z0-9 .,:()/_+@'=!?-]*)?")


def check_name(text: str) -> str:
    """`text` itself if it is a name. ValueError says what is wrong with it."""
    if not text:
        raise ValueError("the name is empty")
    if len(text) > NAME_LIMIT:
        raise ValueError(f"the name is longer than {NAME_LIMIT} characters")
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name: use lower-case letters, digits, dashes and dots, and begin and end with a letter "
            "or digit"
        )
    if as_mac(text) is not None:
        raise ValueError(f"{text!r} reads as a MAC address; choose another name")
    return text


def check_title(text: str) -> str:
    """`text` itself if a boot menu can show it. ValueError says what is wrong with it."""
    if len(text) > TITLE_LIMIT:
        raise ValueError(f"the title is longer than {TITLE_LIMIT} characters, the width of a PC's console")
    if not _TITLE.fullmatch(text):
        raise ValueError(
            f"{text!r} cannot be shown by iPXE: use letters without accents, digits, blanks and any of "
            ". , : ( ) / _ + @ ' = ! ? -"
        )
    return text


def check_pattern(pattern: str) -> str:
    """`pattern` itself if it names clients that enrol themselves. ValueError says what is wrong with it."""
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(
            f"{pattern!r} is no pattern of names: write it like pc-{{n:03}}, with {{n}} once, where the number stands"
        )
    first, last = pattern.format(n=1), pattern.format(n=ENROL_LIMIT)
    check_name(first)
    check_name(last)
    return pattern


def check_address(address: IPv4Address) -> IPv4Address:
    """`address` itself if a PC can have it. ValueError if not."""
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved:
        raise ValueError(f"{address} is no address that a PC can have")
    return address


def check_note(note: str) -> str:
    """`note` itself if it can be stored. ValueError if not."""
    if "\0" in note:
        raise ValueError("a note cannot hold a NUL character")
    return note


def as_mac(text: str) -> str | None:
    """The MAC address that `text` is, normalised; None if it is none."""
    try:
        return normalise_mac(text)
    except ValueError:
        return None


Name = Annotated[
    str,
    AfterValidator(check_name),
    Field(
        description="a-z, 0-9, dash and dot; at most 63 characters",
        json_schema_extra={"pattern": f"^{_NAME.pattern}$", "minLength": 1, "maxLength": NAME_LIMIT},
    ),
]
"""A name in a request."""

Title = Annotated[
    str, AfterValidator(check_title), Field(description="as a boot menu shows it; empty: the image's name")
]
"""A title in a request."""

ClientAddress = Annotated[IPv4Address, AfterValidator(check_address)]
Note = Annotated[
    str, AfterValidator(check_note), Field(max_length=NOTE_LIMIT, json_schema_extra={"pattern": WITHOUT_NUL})
]
