"""The command line: its commands, and how a failure is told."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer

import bootlink_runtime
from bootlink.errors import CommandError
from bootlink.output import print_error
from bootlink_runtime import BusUnavailable, StartupError

FAILED: Final = 1
_WHERE_NATS_IS: Final = "start it with `bootlink up`, or say where NATS is: BOOTLINK_NATS_URL=nats://HOST:4222"
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

# What a command line may begin with, and the modules that hold its commands; the first has the commands' `app`, or is a
# single command. Only what is asked for is loaded, as loading everything takes a second.
NOUNS: Final = {
    "up": ("up",),
    "install": ("install",),
    "uninstall": ("install",),
    "status": ("status",),
    "cache": ("cache",),
    "events": ("events",),
    "image": ("images", "image_files"),
    "client": ("clients", "branches", "rosters", "sightings"),
    "group": ("groups", "group_dhcp"),
    "enrolment": ("enrolment",),
    "link": ("links", "own_layers", "menus"),
    "boot": ("boots",),
    "job": ("jobs",),
    "token": ("tokens",),
    "webhook": ("webhooks",),
    "nats": ("nats",),
}


def application(arguments: Sequence[str]) -> typer.Typer:
    """The command line; of its commands only those that these arguments ask for, if it can be told."""
    app = typer.Typer(
        name="bootlink",
        help="Boots PCs that have no disk from image links: runs the system, and steers it.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    noun, verb = [*arguments[:2], "", ""][:2]
    for asked in [noun] if noun in NOUNS else NOUNS:
        first, *_ = [import_module(f"bootlink.commands.{module}") for module in NOUNS[asked]]
        if hasattr(first, "app"):
            app.add_typer(_only(first.app, verb) if asked == noun else first.app)
        else:
            app.command()(getattr(first, asked))
    _say_in_whole(app)
    return app


def _say_in_whole(app: typer.Typer) -> None:
    """Have each command's first sentence in the list of commands: click's own cuts it at the end of a line."""
    for command in app.registered_commands:
        command.short_help = _first_sentence(inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.short_help = _first_sentence(str(group.typer_instance.info.help))
            _say_in_whole(group.typer_instance)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".") + "."


def _only(app: typer.Typer, verb: str) -> typer.Typer:
    """The same commands, but this one alone if it is among them: typer takes 3 ms to make each of them ready."""
    asked = [command for command in app.registered_commands if verb == (command.name or _name(command.callback))]
    if not asked:
        return app
    only = typer.Typer()
    only.info, only.registered_commands = app.info, asked
    return only


def _name(function: Callable[..., Any] | None) -> str:
    """What typer calls the command of this function."""
    return function.__name__.replace("_", "-") if function else ""


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"bootlink {bootlink_runtime.__version__}\n")
        raise typer.Exit


def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version, and exit.")
    ] = False,
) -> None:
    if "nats" in sys.modules:
        bootlink_runtime.configure("error", "console")  # libraries' warnings are no business of whoever runs a command


def main() -> None:
    """Run the command that the arguments name. Exits with 0, 1 (error) or 2 (wrong usage)."""
    try:
        application(sys.argv[1:])()
    except CommandError as error:
        print_error(error.problem, error.remedy, error.lines)
        sys.exit(FAILED)
    except StartupError as error:
        print_error(error.problem, error.remedy)
        sys.exit(FAILED)
    except BusUnavailable as error:
        print_error(str(error), error.remedy or _WHERE_NATS_IS)
        sys.exit(FAILED)
    except BrokenPipeError:  # `bootlink events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
