"""What a serial line printed, as text to search: a pure machine, bytes in, matches out.

The firmware draws with terminal escapes (SeaBIOS copies its whole text screen to the serial line), so those are taken
out; a jump of the cursor counts as a line break. Reading has a position: `find` looks behind what was found before,
so that one boot's `login:` is never taken for the next one's.
"""

import codecs
import re

# Kept for searching and for error messages; a whole boot prints less than 30 KiB. More is dropped from the front.
HISTORY_LIMIT = 1 << 20

_ESCAPE = re.compile(r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|[()#][0-9A-Za-z]|[^\[()#])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[()#])?$")
_CURSOR_JUMPS = "HfJ"


class Screen:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""  # an escape sequence whose end has not come yet
        self._text = ""
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Add what arrived, cut anywhere."""
        text = self._pending + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        self._pending = unfinished[0] if unfinished else ""
        text = text[: len(text) - len(self._pending)]
        text = _ESCAPE.sub(lambda found: "\n" if found[2] and found[2] in _CURSOR_JUMPS else "", text)
        self._text += text.replace("\r", "")
        excess = len(self._text) - HISTORY_LIMIT
        if excess > 0:
            self._text = self._text[excess:]
            self._position = max(0, self._position - excess)

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The first match behind the last one found; reading goes on behind it. None, and no move, if there is none."""
        found = pattern.search(self._text, self._position)
        if found:
            self._position = found.end()
        return found

    def peek(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """As `find`, without moving on."""
        return pattern.search(self._text, self._position)

    def tail(self, lines: int = 15) -> str:
        """The last lines that hold something, for error messages."""
        return "\n".join([line.rstrip() for line in self._text.splitlines() if line.strip()][-lines:])
