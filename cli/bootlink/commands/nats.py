"""`bootlink nats`: keys for a NATS server, and the configuration of one of your own that knows them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from bootlink.engines.nats import ServerTls, configuration
from bootlink.engines.nats_keys import NatsKeys, public_key
from bootlink.output import AsJson, console, print_facts, print_json
from bootlink.settings import NATS_KEYS, CommandSettings
from bootlink_runtime.access import INBOX

app = typer.Typer(
    name="nats",
    help="Keys by which NATS knows the services, the command and integrations; a server's configuration for them.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--keys", help="The folder of the keys. Unset: that of `bootlink up`, below BOOTLINK_DATA.", metavar="DIR"
    ),
]
_LATER: Final = (
    "The server lets it in once it has this configuration: start `bootlink up` anew, or make the "
    "configuration of your own server anew (bootlink nats config) and have it read that."
)


@app.command("keys")
def make_keys(folder: Folder = None, as_json: AsJson = False) -> None:
    """Make the keys that are missing: one for each service, the command, and a first integration."""
    keys = _keys(folder)
    keys.make()
    made = {file.stem: str(file) for file in sorted(keys.folder.rglob("*.nk"))}
    if as_json:
        print_json(made)
    else:
        print_facts(made)


@app.command()
def integration(
    name: Annotated[str, typer.Argument(help="Its name: what reads events, such as billing.", metavar="NAME")],
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for one more integration, which may read events and nothing else; show how it is used."""
    file = _keys(folder).add_integration(name)
    inbox = f"{INBOX}.{public_key(file)}"
    if as_json:
        print_json({"name": name, "file": str(file), "inbox": inbox})
        return
    print_facts({"name": name, "key": str(file), "inbox": inbox})
    console().print(f"\nThe key proves it to the server; its client must begin its inboxes with `inbox`.\n{_LATER}")


@app.command()
def config(
    folder: Folder = None,
    listen: Annotated[str, typer.Option(help="Where the server listens.", metavar="HOST:PORT")] = "0.0.0.0:4222",
    store: Annotated[Path, typer.Option(help="Where it keeps streams.", metavar="DIR")] = Path("/data"),
    monitor: Annotated[
        str, typer.Option(help="Where it tells over HTTP how it is, for health checks.", metavar="HOST:PORT")
    ] = "",
    cert: Annotated[Path | None, typer.Option(help="Its certificate: it then speaks TLS alone.", metavar="PEM")] = None,
    key: Annotated[Path | None, typer.Option(help="The key of that; unset: in the same file.", metavar="PEM")] = None,
    accounts_only: Annotated[bool, typer.Option("--accounts", help="Only the accounts, to be included.")] = False,
) -> None:
    """Print the configuration of a nats-server that knows these keys. There is no secret in it.

    Paths are as the server sees them. Keys that are missing are made.
    """
    keys = _keys(folder)
    keys.make()
    told = configuration(
        listen=listen,
        store=store,
        accounts=keys.accounts(),
        monitor=monitor,
        tls=ServerTls(cert, key or cert) if cert is not None else None,
    )
    if accounts_only:
        sys.stdout.write(f"accounts: {json.dumps(told['accounts'], indent=2)}\n")
    else:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")


def _keys(folder: Path | None) -> NatsKeys:
    return NatsKeys((folder or CommandSettings.from_environment().data / NATS_KEYS).absolute())
