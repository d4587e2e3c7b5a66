"""`bootlink image`: the disks that PCs boot from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bootlink import api
from bootlink.output import AsJson, moment, print_facts, print_json, print_table, size

app = typer.Typer(name="image", help="Images: disks that PCs boot from.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it, such as win11.")],
    file: Annotated[Path, typer.Argument(help="Raw .img or VHD, on the machine of the registry.", metavar="FILE")],
    as_json: AsJson = False,
) -> None:
    """Tell Bootlink of an image. The file stays where it is, and must not change from now on."""
    image = api.from_environment().post("images", body={"name": name, "path": str(file.absolute())})
    if as_json:
        print_json(image)
        return
    _print(image)


@app.command("list")
def list_images(as_json: AsJson = False) -> None:
    """List the images."""
    images = api.from_environment().listing("images")
    if as_json:
        print_json(images)
        return
    rows = [(i["name"], *_newest(i), _channels(i)) for i in images]
    print_table(
        ("image", "version", "format", "disk", "file", "channels"),
        rows,
        empty="there are no images yet; add one: bootlink image add NAME FILE",
    )


@app.command()
def show(name: Annotated[str, typer.Argument()], as_json: AsJson = False) -> None:
    """Show one image: its versions and channels."""
    image = api.from_environment().get("images", name)
    if as_json:
        print_json(image)
        return
    _print(image)


def _newest(image: dict[str, Any]) -> tuple[Any, ...]:
    version = image["versions"][0] if image.get("versions") else {}
    return (
        version.get("number"),
        version.get("format"),
        size(version.get("virtual_size")),
        size(version.get("file_size")),
    )


def _channels(image: dict[str, Any]) -> str:
    return ", ".join(f"{name} -> {version}" for name, version in image.get("channels", {}).items())


def _print(image: dict[str, Any]) -> None:
    print_facts({"image": image["name"], "channels": _channels(image), "added": moment(image.get("created"))})
    print_table(
        ("version", "format", "disk", "file", "on disk", "path", "fault"),
        [
            (
                v.get("number"),
                v.get("format"),
                size(v.get("virtual_size")),
                size(v.get("file_size")),
                size(v.get("disk_usage")),
                v.get("path"),
                v.get("fault"),
            )
            for v in image.get("versions", [])
        ],
        empty="no versions",
    )
