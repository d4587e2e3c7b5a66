"""The console's waiting, against a terminal that the test plays."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from guest.console import COMMAND_LIMIT, Console, ConsoleError


class Terminal:
    """The PC's end of the serial line: what is typed comes in through `typed`, `print` sends out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def typed(self) -> str:
        return (await self._reader.readline()).decode()

    async def print(self, text: str) -> None:
        self._writer.write(text.replace("\n", "\r\n").encode())
        await self._writer.drain()

    def off(self) -> None:
        self._writer.close()


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[tuple[Console, Terminal]]:
    """A console and the terminal at its other end."""
    arrived: asyncio.Future[Terminal] = asyncio.get_running_loop().create_future()
    path = tmp_path / "line"
    async with await asyncio.start_unix_server(
        lambda reader, writer: arrived.set_result(Terminal(reader, writer)), path
    ):
        console = Console(*await asyncio.open_unix_connection(path), tmp_path / "transcript")
        terminal = await arrived
        yield console, terminal
        terminal.off()
        await console.close()


async def test_a_stage_that_does_not_come_is_named_and_the_screen_is_shown(line: tuple[Console, Terminal]) -> None:
    console, terminal = line
    await terminal.print("iPXE initialising devices...ok\nConfiguring (net0).......")
    with pytest.raises(ConsoleError) as failed:
        await console.expect("login: ", stage="login prompt", timeout=0.2)
    assert failed.value.stage == "login prompt"
    assert "not reached within 0.2 s" in str(failed.value)
    assert "| Configuring (net0)......." in str(failed.value)


async def test_a_known_failure_ends_the_wait_at_once(line: tuple[Console, Terminal]) -> None:
    console, terminal = line
    await terminal.print("guest: FAILED: iSCSI login: refused\nmore\n")
    with pytest.raises(ConsoleError, match="disk: the guest gave up: guest: FAILED: iSCSI login: refused"):
        await console.expect(
            "root is", stage="disk", timeout=30, failures={r"guest: FAILED: .*\n": "the guest gave up"}
        )


async def test_a_failure_after_the_awaited_text_belongs_to_the_next_stage(line: tuple[Console, Terminal]) -> None:
    console, terminal = line
    await terminal.print("stage one\nBAD\n")
    await console.expect("one", stage="one", timeout=5, failures={"BAD\n": "bad"})
    with pytest.raises(ConsoleError, match="two: bad"):
        await console.expect("two", stage="two", timeout=5, failures={"BAD\n": "bad"})


async def test_a_pc_that_goes_off_is_no_time_out(line: tuple[Console, Terminal]) -> None:
    console, terminal = line
    terminal.off()
    with pytest.raises(ConsoleError, match="the PC went off"):
        await console.expect("login: ", stage="login prompt", timeout=30)


async def test_a_command_returns_its_output_and_status_and_never_its_own_echo(line: tuple[Console, Terminal]) -> None:
    console, terminal = line

    async def shell() -> None:
        first, second = await terminal.typed(), await terminal.typed()
        # A shell that echoes what it reads, prompts for the rest, and only then runs it.
        await terminal.print(f"{first}> {second}")
        await terminal.print("\x011\nline 1\nline 2\n\n\x021 3\npc-001:~# ")

    playing = asyncio.create_task(shell())
    output = await console.run("cat /root/file")
    await playing
    assert (output.text, output.status) == ("line 1\nline 2", 3)


async def test_a_command_longer_than_the_terminals_buffer_is_refused(line: tuple[Console, Terminal]) -> None:
    console, _ = line
    with pytest.raises(ValueError, match="does not fit"):
        await console.run("echo " + "x" * COMMAND_LIMIT)


async def test_the_transcript_holds_every_byte(line: tuple[Console, Terminal], tmp_path: Path) -> None:
    console, terminal = line
    await terminal.print("\x1b[0mpc login: ")
    await console.expect("login: ", stage="login prompt", timeout=5)
    assert (tmp_path / "transcript").read_bytes() == b"\x1b[0mpc login: "
