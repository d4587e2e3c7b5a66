"""A PC's serial console: wait for text, log in, run commands. `Screen` holds what was printed; this adds the waiting.

Every wait belongs to a stage and has a time limit: what fails is a `ConsoleError` that names the stage and shows the
last lines of the screen. All bytes also go to a transcript on disk, for the cases where that is not enough.
"""

import asyncio
import contextlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guest.screen import Screen

READ_SIZE = 1 << 16  # bytes; more than a serial line brings at once
COMMAND_LIMIT = 4000  # a longer line overflows the guest's terminal buffer (4096 bytes) and is silently cut


class ConsoleError(Exception):
    """A stage failed or took too long. `stage` and `cause` are for people; the text adds the screen's last lines."""

    def __init__(self, stage: str, cause: str, screen: str, transcript: Path) -> None:
        shown = "\n".join(f"    | {line}" for line in screen.splitlines())
        super().__init__(f"{stage}: {cause}\nthe screen's last lines (all of it is in {transcript}):\n{shown}")
        self.stage = stage
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Output:
    """What a command printed (without the last line break) and its exit status."""

    text: str
    status: int


class Console:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transcript: Path) -> None:
        self._writer = writer
        self._transcript = transcript
        self._screen = Screen()
        self._news = asyncio.Event()
        self._ended = False
        self._numbers = itertools.count(1)
        self._task = asyncio.create_task(self._read(reader), name="console")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        # Opened to append: a PC that is switched on again goes on in the same transcript.
        with self._transcript.open("ab", buffering=0) as transcript:
            while data := await reader.read(READ_SIZE):
                transcript.write(data)
                self._screen.feed(data)
                self._news.set()
        self._ended = True
        self._news.set()

    async def close(self) -> None:
        """Stop reading."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()

    async def expect(
        self, pattern: str, *, stage: str, timeout: float, failures: Mapping[str, str] | None = None
    ) -> re.Match[str]:
        """Wait until `pattern` (a regular expression, multi-line) is printed.

        `failures` maps patterns that end the wait at once to what they mean. Raises ConsoleError for one of those, when
        `timeout` seconds have passed and when the PC went off.
        """
        wanted = re.compile(pattern, re.MULTILINE)
        signs = [(re.compile(sign, re.MULTILINE), meaning) for sign, meaning in (failures or {}).items()]
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._news.clear()
                    found = self._screen.peek(wanted)
                    for sign, meaning in signs:
                        bad = self._screen.peek(sign)
                        if bad and (found is None or bad.start() < found.start()):
                            raise self._error(stage, f"{meaning}: {bad[0].strip()}")
                    if found:
                        self._screen.find(wanted)
                        return found
                    if self._ended:
                        raise self._error(stage, "the PC went off")
                    await self._news.wait()
        except TimeoutError:
            raise self._error(stage, f"not reached within {timeout:g} s") from None

    async def send(self, text: str) -> None:
        """Type `text`."""
        self._writer.write(text.encode())
        await self._writer.drain()

    async def login(self, user: str = "root", *, timeout: float = 30) -> None:
        """Log in at a prompt that was seen (`login:`), without a password."""
        await self.send(f"{user}\n")
        await self.expect(r"# $", stage="log-in", timeout=timeout)

    async def run(self, command: str, *, timeout: float = 60) -> Output:
        """Run a command in the shell that `login` left and return what it printed.

        The output stands between control characters that the guest's printf makes from \\001 and \\002, so the
        terminal's echo of the typed lines is never mistaken for them; and the braces make the shell read (and echo)
        everything before it runs anything. Raises ConsoleError when it takes longer than `timeout` seconds.
        """
        token = next(self._numbers)
        line = f"{{ printf '\\001{token}\\n'; {command}\n}}; printf '\\n\\002{token} %d\\n' $?\n"
        if len(line.encode()) > COMMAND_LIMIT:
            raise ValueError(f"a command of more than {COMMAND_LIMIT} bytes does not fit the guest's terminal buffer")
        await self.send(line)
        found = await self.expect(
            rf"\x01{token}\n(?P<text>[\s\S]*?)\n\x02{token} (?P<status>\d+)\n",
            stage=f"command {command.splitlines()[0]!r}",
            timeout=timeout,
        )
        return Output(found["text"].rstrip("\n"), int(found["status"]))

    def tail(self, lines: int = 15) -> str:
        return self._screen.tail(lines)

    def _error(self, stage: str, cause: str) -> ConsoleError:
        return ConsoleError(stage, cause, self._screen.tail(), self._transcript)
