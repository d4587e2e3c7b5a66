"""What the pages tell people to type is what the command understands. Nothing is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final, cast

import pytest
import typer.main

from bootlink.app import application

# As typer's own click calls all that it does not understand.
WrongUsage: Final = cast(type[Exception], typer.BadParameter.__mro__[1])
ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "docs" / "integrations.md")
FURTHER_PAGES = [page for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if page not in PAGES]


def commands(page: Path) -> list[str]:
    """The `bootlink` commands of a page, in blocks and in lines, without what is optional in them."""
    text = page.read_text()
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    inline = [
        " ".join(code.split()) for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]
    return sorted(
        {line.removeprefix(".venv/bin/") for line in lines + inline if re.match(r"(\.venv/bin/)?bootlink ", line)}
    )


def parse(line: str) -> None:
    """Parse a command line as the command would. WrongUsage if it understands it not."""
    words = shlex.split(line.partition(" >")[0], comments=True)[1:]
    command: Any = typer.main.get_command(application(words))
    context = command.make_context("bootlink", words)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def test_the_readme_has_commands() -> None:
    assert len(commands(README)) > 20


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_a_command_of_these_pages_is_understood(line: str) -> None:
    parse(line)


def named(line: str) -> bool:
    """Whether a line is the name of a command, perhaps with an option of it, as prose has it."""
    words = line.split()[1:]
    command: Any = typer.main.get_command(application(words))
    for word in words:
        if word.startswith("--"):
            if not any(word in parameter.opts for parameter in command.params):
                return False
        elif (command := getattr(command, "commands", {}).get(word)) is None:
            return False
    return True


@pytest.mark.parametrize("line", sorted({line for page in FURTHER_PAGES for line in commands(page)}))
def test_a_command_of_the_other_pages_is_understood_or_one_that_there_is(line: str) -> None:
    try:
        parse(line)
    except WrongUsage:
        assert named(line), line


def test_a_command_that_does_not_exist_is_found() -> None:
    assert named("bootlink group loader set")
    assert not named("bootlink image make")
    assert not named("bootlink events --no-such")
    for line in ("bootlink image make x", "bootlink image log", "bootlink image log x --no-such"):
        with pytest.raises(WrongUsage):
            parse(line)
