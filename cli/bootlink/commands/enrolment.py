"""`bootlink enrolment`: what becomes of a PC that asks and that nobody has added."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from bootlink import api
from bootlink.output import AsJson, print_facts, print_json

app = typer.Typer(name="enrolment", help="Enrolment: what becomes of unknown PCs.", no_args_is_help=True)


class Policy(StrEnum):
    """What becomes of an unknown PC."""

    accept = "accept"
    refuse = "refuse"


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show the rule."""
    _print(api.from_environment().get("enrolment"), as_json=as_json)


@app.command("set")
def set_rule(
    policy: Annotated[
        Policy | None,
        typer.Option(help="accept: it becomes a client by itself; refuse: it waits for `bootlink client accept`."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call such clients, with {n} for the number.")] = None,
    group: Annotated[str | None, typer.Option(help="The group that they join.")] = None,
    no_group: Annotated[bool, typer.Option("--no-group", help="They join none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change the rule, from the next unknown PC on."""
    if group is not None and no_group:
        raise typer.BadParameter("give a group or --no-group, not both")
    given = {"policy": policy.value if policy else None, "pattern": name, "group": group}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if no_group:
        changes["group"] = None
    if not changes:
        raise typer.BadParameter("nothing to change: give --policy, --name or --group")
    _print(api.from_environment().patch("enrolment", body=changes), as_json=as_json)


def _print(rule: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(rule)
        return
    becomes = {"accept": "becomes a client by itself", "refuse": "waits for `bootlink client accept`"}
    print_facts(
        {"an unknown PC": becomes[rule["policy"]], "named": rule["pattern"], "in the group": rule["group"] or "none"}
    )
