"""What the README and docs/integrations.md tell people to type is what the command understands. Nothing is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main

from bootlink.app import application

WrongUsage: Final = typer.BadParameter.__mro__[1]  # as typer's own click calls all that it does not understand
ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "docs" / "integrations.md")


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
    words = shlex.split(line, comments=True)[1:]
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


def test_a_command_that_does_not_exist_is_found() -> None:
    for line in ("bootlink image make x", "bootlink image log", "bootlink image log x --no-such"):
        with pytest.raises(WrongUsage):
            parse(line)
