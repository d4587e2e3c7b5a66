"""iPXE script text that nothing can be injected into. Pure.

iPXE reads a script line by line, splits a line at white space, expands `${setting}` in each token and runs the first
token as a command; `||`, `&&`, `;` and `#` as tokens of their own end a command, a backslash at the end joins two
lines, and a label is a first token with a colon (ipxe: src/core/exec.c, src/image/script.c). There is no quoting and
no escape character, so a value cannot be made safe by quoting: it is made of safe characters or it is not used.

A template is a tuple of lines with `{fields}`. `fill` puts values in, each checked by its kind:

    Token   one token: addresses, IQNs, URLs, numbers. Anything outside its alphabet raises UnsafeValue
    Efi     the path of an EFI program, whose separator is the backslash; never the last character of a line
    Arguments  a kernel's command line: words in an alphabet of their own
    Text    words for people: client names, causes. Every other character becomes "?", white space one blank

Both alphabets leave out `$ { } | & ; # \\` and control characters, so neither can begin a setting, a comment or a
command. Text stands behind a word of the template, where a leading dash is no option and a colon no label.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

WRAPPED_KEPT: Final = 64  # texts; the screens have half as many that are the same for each PC
COLUMNS: Final = 79  # of an 80-column console: the last one would wrap on some firmware

_TOKEN: Final = re.compile(r"[A-Za-z0-9._:/\-]{1,512}")
_ARGUMENTS: Final = re.compile(r"[A-Za-z0-9 .,:()/_+@=!?*<>~%^\[\]-]{0,4096}")
_NOT_TEXT: Final = re.compile(r"[^A-Za-z0-9 .,:()/_+@'=!?*<>-]")
# Characters that mean something to iPXE, as ones that mean the same to people.
_HARMLESS: Final = str.maketrans({";": ",", "`": "'", '"': "'", "[": "(", "]": ")", "\u2014": "-", "\u2026": "..."})
_UNBREAKABLE: Final = "\x1f"  # stands for a space while a row is wrapped
_FIELD: Final = re.compile(r"(?<!\$)\{([a-z_]+)\}")  # and no setting of iPXE's


class UnsafeValue(ValueError):
    """A value that cannot stand in a script: a bug or a forged plan, never something to repair."""


class Token(str):
    """A value that is one token of a command."""

    __slots__ = ()

    def __new__(cls, value: object) -> Token:
        text = str(value)
        if not _TOKEN.fullmatch(text) or text.startswith("-"):
            raise UnsafeValue(f"{text!r} cannot stand in an iPXE script")
        return super().__new__(cls, text)


class Expanded(Token):
    """A token that iPXE completes with a setting. The setting must be one that the script itself sets to a Token."""

    __slots__ = ()

    def __new__(cls, before: str, setting: str, after: str = "") -> Expanded:
        return str.__new__(cls, f"{Token(before)}${{{Token(setting)}}}{after and Token(after)}")


class Efi(Token):
    """The path of an EFI program."""

    __slots__ = ()

    def __new__(cls, path: object) -> Efi:
        return str.__new__(cls, str(Token(str(path).replace("\\", "/"))).replace("/", "\\"))


class Arguments(str):
    """A kernel's command line, in which {fields} are filled in. It stands behind another token, and before `||`."""

    __slots__ = ()

    def __new__(cls, template: str, fields: Mapping[str, str]) -> Arguments:
        try:
            text = _FIELD.sub(lambda match: Token(fields[match[1]]), template)
        except KeyError as error:
            raise UnsafeValue(f"there is no field {error} for a kernel's arguments") from error
        if not _ARGUMENTS.fullmatch(text):
            raise UnsafeValue(f"{text!r} cannot be a kernel's arguments in an iPXE script")
        return super().__new__(cls, " ".join(text.split()))


class Text(str):
    """Words to be shown."""

    __slots__ = ()

    def __new__(cls, value: object) -> Text:
        plain = " ".join(str(value).translate(_HARMLESS).split())
        return super().__new__(cls, _NOT_TEXT.sub("?", plain))


def fill(template: Iterable[str], **values: Token | Arguments | Text) -> list[str]:
    """The template's lines with every `{field}` replaced. KeyError for a field without a value."""
    return [_FIELD.sub(lambda match: values[match[1]], line) for line in template]


def say(label: str, value: str, *, rows: int) -> list[str]:
    """`echo` lines that show "label: value", wrapped to the console and cut after `rows` of them."""
    # iPXE's echo takes options until its first word, so a row must not begin with a dash: no break before one, and
    # what is too long for a row of its own is cut where it falls.
    words = Text(f"{label}: {value}").replace(" -", f"{_UNBREAKABLE}-")
    wrapped = (words,) if len(words) <= COLUMNS else _wrapped(words, rows)
    return [f"echo {row.replace(_UNBREAKABLE, ' ').lstrip('- ')}" for row in wrapped]


@lru_cache(WRAPPED_KEPT)
def _wrapped(words: str, rows: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(words, COLUMNS, max_lines=rows, placeholder=" ...", break_on_hyphens=False))
