"""`bootlink webhook`: events by HTTP, to programs that speak no NATS."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bootlink import api
from bootlink.output import AsJson, console, moment, print_facts, print_json, print_table
from bootlink_events import PREFIX

app = typer.Typer(
    name="webhook",
    help="Webhooks: events by HTTP, signed, to programs that speak no NATS. Each command here needs an administrator.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Its name, such as helpdesk.", metavar="NAME")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="Only these events, as `bootlink events --filter`: 'type=boot.failed severity>=warning'. Of several, any.",
        metavar="TERMS",
    ),
]
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="BOOTLINK_WEBHOOK_SECRET",
        help="A secret of your own: whsec_ and the Base64 of 24 to 64 bytes. Unset: one is made. Better in the "
        "variable: other users of this machine see the options of a command.",
        metavar="SECRET",
        show_envvar=True,
    ),
]


@app.command()
def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="Where events are sent, such as https://helpdesk.example/bootlink.")],
    filters: Filters = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Have events sent to a URL from now on, and show the secret that signs them this once."""
    body: dict[str, Any] = {"name": name, "url": url, "filters": filters or [], "note": note}
    if secret is not None:
        body["secret"] = secret
    _show_made(api.from_environment().post("webhooks", body=body), as_json=as_json)


@app.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List the webhooks, and how each gets on."""
    found = api.from_environment().listing("webhooks")
    if as_json:
        print_json(found)
        return
    print_table(
        ("webhook", "state", "waiting", "dead", "delivered", "url", "filters"),
        [
            (
                hook["name"],
                _state(hook),
                hook["waiting"] or None,
                hook["dead"] or None,
                moment(hook["delivered"]),
                hook["url"],
                hook["filters"],
            )
            for hook in found
        ],
        empty="there are no webhooks; make one: bootlink webhook add NAME URL --filter type=boot.failed",
    )


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one webhook: what it is sent, and what is wrong."""
    hook = api.from_environment().get("webhooks", name)
    if as_json:
        print_json(hook)
        return
    print_facts(_facts(hook))


@app.command()
def change(
    name: Name,
    url: Annotated[str | None, typer.Option(help="Where events are sent.")] = None,
    filters: Filters = None,
    every: Annotated[bool, typer.Option("--every", help="Send every event: no filter any more.")] = False,
    note: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    enabled: Annotated[
        bool | None, typer.Option("--on/--off", help="Send it events, or nothing; what waits for it stays.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change where events go, or which; or switch it on again after it was mended."""
    if every and filters:
        raise typer.BadParameter("--every and --filter exclude one another")
    wanted = {"url": url, "note": note, "enabled": enabled, "filters": [] if every else filters}
    body = {field: value for field, value in wanted.items() if value is not None}
    if not body:
        raise typer.BadParameter("nothing to change: give some of --url, --filter, --every, --note, --on and --off")
    hook = api.from_environment().patch("webhooks", name, body=body)
    if as_json:
        print_json(hook)
        return
    print_facts(_facts(hook))


@app.command()
def remove(name: Name) -> None:
    """Send it nothing any more, and forget what waits for it."""
    api.from_environment().delete("webhooks", name)


@app.command()
def secret(name: Name, secret: Secret = None, as_json: AsJson = False) -> None:
    """Replace the secret, and show the new one this once. For a day the former one signs, too."""
    made = api.from_environment().post("webhooks", name, "secret", body={"secret": secret} if secret else {})
    _show_made(made, as_json=as_json)


@app.command()
def dead(name: Name, as_json: AsJson = False) -> None:
    """List the events that it refused, or did not take in time."""
    found = api.from_environment().listing("webhooks", name, "dead")
    if as_json:
        print_json(found)
        return
    print_table(
        ("event", "what", "whose", "attempts", "given up", "why"),
        [
            (
                one["event_id"],
                one["event"]["type"].removeprefix(f"{PREFIX}."),
                one["event"]["data"].get("client") or one["event"]["subject"],
                one["attempts"],
                moment(one["given_up"]),
                one["problem"],
            )
            for one in found
        ],
        empty=f"no event was given up for {name}",
    )


@app.command()
def resend(
    name: Name,
    event: Annotated[str | None, typer.Argument(help="One event's id, as `dead` lists them; unset: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send again what was given up; each event has all its attempts anew."""
    done = api.from_environment().post("webhooks", name, "resend", body={"event_id": event} if event else {})
    if as_json:
        print_json(done)
        return
    count = done["events"]
    console().print(
        f"{count} event{'' if count == 1 else 's'} sent again" if count else f"nothing was given up for {name}"
    )


def _show_made(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print_facts(_facts(made) | {"secret": made["secret"]})
    console().print("\nThe secret is shown this once. The receiver checks each request with it: docs/integrations.md.")


def _state(hook: dict[str, Any]) -> str:
    if not hook["enabled"]:
        return "off"
    return "failing" if hook["failing_since"] else "on"


def _facts(hook: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": hook["name"],
        "url": hook["url"],
        "filters": " | ".join(hook["filters"]) or "none: every event",
        "state": _state(hook),
        "problem": hook["problem"],
        "failing since": moment(hook["failing_since"]),
        "delivered": moment(hook["delivered"]),
        "waiting": hook["waiting"],
        "dead": hook["dead"],
        "note": hook["note"],
        "made": f"{moment(hook['created'])}" + (f" by {hook['author']}" if hook["author"] else ""),
    }
