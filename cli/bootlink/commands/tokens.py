"""`bootlink token`: who may use the API, and as what."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from bootlink import api
from bootlink.output import AsJson, console, moment, print_facts, print_json, print_table

app = typer.Typer(
    name="token",
    help="Tokens: who may use the API, and as what. Each command here needs an administrator's.",
    no_args_is_help=True,
)

_DAYS: Final = re.compile(r"(\d{1,5})d")

Name = Annotated[str, typer.Argument(help="Its name: whose it is, such as anna or backup.", metavar="NAME")]


class Role(StrEnum):
    """What a token may do."""

    viewer = "viewer"
    operator = "operator"
    admin = "admin"


@app.command()
def add(
    name: Name,
    role: Annotated[
        Role,
        typer.Option(
            help="viewer: reads; operator: also clients, links, boots and publishing; admin: also images and tokens."
        ),
    ] = Role.viewer,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[
        str | None, typer.Option(help="Until when it holds: 90d, or 2027-01-31. Unset: for ever.", metavar="TIME")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, and show it this once."""
    body = {"name": name, "role": role.value, "note": note}
    if expires is not None:
        body["expires"] = parse_expiry(expires, now=datetime.now(UTC)).isoformat()
    made = api.from_environment().post("tokens", body=body)
    if as_json:
        print_json(made)
        return
    print_facts(_facts(made) | {"token": made["token"]})
    console().print("\nIt is shown this once. Use it: export BOOTLINK_TOKEN=..., or a file and BOOTLINK_TOKEN_FILE.")


@app.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """List the tokens; never the secret itself, which nobody has but its owner."""
    tokens = api.from_environment().listing("tokens")
    if as_json:
        print_json(tokens)
        return
    print_table(
        ("token", "role", "made", "expires", "last used", "note"),
        [
            (t["name"], t["role"], moment(t["created"]), moment(t["expires"]), moment(t["used"]), t["note"])
            for t in tokens
        ],
        empty="there are no tokens but the administrator's own; make one: bootlink token add NAME --role operator",
    )


@app.command()
def remove(name: Name) -> None:
    """Take a token away: whoever has it is refused from now on."""
    api.from_environment().delete("tokens", name)


def parse_expiry(text: str, *, now: datetime) -> datetime:
    """The time that `--expires` means: so many days from now, or a date or time of this machine's zone."""
    try:
        if match := _DAYS.fullmatch(text):
            return now + timedelta(days=int(match[1]))
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no time; such as 90d, or 2027-01-31") from error


def _facts(token: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": token["name"],
        "role": token["role"],
        "note": token["note"],
        "expires": moment(token["expires"]) or "never",
    }
