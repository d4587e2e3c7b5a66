"""Names that administrators give: of images, clients, groups and channels.

One rule for all: lower-case letters, digits, dashes and dots, beginning and ending with a letter or digit, at most 63
characters (a DNS label's length). Such a name is safe in an iPXE script, a file name, a URL and a log line, and two
names never differ in case alone. A name that reads as a MAC address is refused, as clients may be called by either.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from bootlink_events import normalise_mac

NAME_LIMIT: Final = 63  # characters, RFC 1035, section 2.3.4

TITLE_LIMIT: Final = 60  # characters; a row of iPXE's menu has 80 columns, and a frame

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
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


def as_mac(text: str) -> str | None:
    """The MAC address that `text` is, normalised; None if it is none."""
    try:
        return normalise_mac(text)
    except ValueError:
        return None


Name = Annotated[str, AfterValidator(check_name), Field(description="a-z, 0-9, dash and dot; at most 63 characters")]
"""A name in a request."""

Title = Annotated[
    str, AfterValidator(check_title), Field(description="as a boot menu shows it; empty: the image's name")
]
"""A title in a request."""
