"""`bootlink job`: long work of the registry."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bootlink import api
from bootlink.jobs import follow
from bootlink.output import AsJson, minute, moment, print_facts, print_json, print_table, size

app = typer.Typer(name="job", help="Jobs: long work of the registry, and how far it is.", no_args_is_help=True)

LISTED = 20  # jobs, unless more are asked for

Id = Annotated[str, typer.Argument(help="Its id, as `bootlink job list` shows it.", metavar="JOB")]


@app.command("list")
def list_jobs(
    most: Annotated[int, typer.Option("--most", help="How many, newest first.", min=1)] = LISTED,
    kind: Annotated[str | None, typer.Option(help="Only those of this kind, such as image.import.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only those about this image or client.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs of late, newest first."""
    jobs = api.from_environment().listing("jobs", cursor="before", most=most, kind=kind, subject=subject)
    if as_json:
        print_json(jobs)
        return
    print_table(
        ("job", "what", "state", "begun", "by"),
        [(j["id"], f"{j['kind']} {j['subject']}", _how(j), minute(j["started"]), j["author"]) for j in jobs],
        empty="there are no jobs yet",
    )


@app.command()
def show(
    job: Id,
    wait: Annotated[bool, typer.Option("--follow", help="Show its progress until it is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one job."""
    registry = api.from_environment()
    found = registry.get("jobs", job)
    if wait:
        found = follow(registry, found, quiet=as_json)
    _print(found, as_json=as_json)


@app.command()
def cancel(job: Id, as_json: AsJson = False) -> None:
    """End a job before it is done; what was there before stays."""
    _print(api.from_environment().post("jobs", job, "cancel", body={}), as_json=as_json)


def _print(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    problem = job["problem"]
    print_facts(
        {
            "job": job["id"],
            "what": job["kind"],
            "about": job["subject"],
            "state": _state(job),
            "stage": job["stage"] if job["state"] == "running" else None,
            "done": _far(job),
            "attempts": job["attempts"] if job["attempts"] > 1 else None,
            "by": job["author"],
            "asked for": moment(job["created"]),
            "begun": moment(job["started"]),
            "over": moment(job["ended"]),
            "problem": problem["detail"] if problem else None,
            "what to do": problem["remedy"] if problem else None,
            **{name.replace("_", " "): _result(name, value) for name, value in (job["result"] or {}).items()},
        }
    )


def _result(name: str, value: Any) -> Any:
    """A part of a job's result for people: what counts bytes is called a size, or what a disk has in use."""
    return size(value) if name.endswith(("size", "usage")) and isinstance(value, int) else value


def _state(job: dict[str, Any]) -> str:
    return "being cancelled" if job["cancelling"] else str(job["state"])


def _how(job: dict[str, Any]) -> str:
    """Its state; of a job that runs how far it is, too."""
    far = _far(job) if job["state"] == "running" else None
    return f"{_state(job)} {far}" if far else _state(job)


def _far(job: dict[str, Any]) -> str | None:
    return f"{100 * job['done'] // job['total']} %" if job["total"] else None
