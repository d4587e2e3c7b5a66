"""The command line: its commands, and how a failure is told."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from bootlink.commands import (
    boots,
    branches,  # noqa: F401  (its commands are `client`'s)
    cache,
    clients,
    events,
    image_files,  # noqa: F401  (its commands are `image`'s)
    images,
    jobs,
    links,
    own_layers,  # noqa: F401  (its commands are `link`'s)
    status,
    tokens,
    up,
)
from bootlink.errors import CommandError
from bootlink.output import print_error
from bootlink_runtime import BusUnavailable, StartupError, __version__, configure

FAILED: Final = 1
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

app = typer.Typer(
    name="bootlink",
    help="Boots PCs that have no disk from image links: runs the system, and steers it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(status.status)
app.command()(cache.cache)
app.command()(events.events)
for _noun in (images, clients, links, boots, jobs, tokens):
    app.add_typer(_noun.app)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"bootlink {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version, and exit.")
    ] = False,
) -> None:
    configure("error", "console")  # libraries' warnings are no business of whoever runs a command


def main() -> None:
    """Run the command that the arguments name. Exits with 0, 1 (error) or 2 (wrong usage)."""
    try:
        app()
    except (CommandError, StartupError) as error:
        print_error(error.problem, error.remedy)
        sys.exit(FAILED)
    except BusUnavailable as error:
        print_error(str(error), "start it with `bootlink up`, or say where NATS is: BOOTLINK_NATS_URL=nats://HOST:4222")
        sys.exit(FAILED)
    except ValidationError as error:
        print_error(f"a setting is wrong: {error.errors()[0]['msg']}", "correct BOOTLINK_* in the environment")
        sys.exit(FAILED)
    except BrokenPipeError:  # `bootlink events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
