"""`bootlink image`: the disks that PCs boot from, their versions and channels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bootlink import api, references
from bootlink.output import AsJson, minute, moment, print_facts, print_json, print_table, size

app = typer.Typer(name="image", help="Images: disks that PCs boot from.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The image.", metavar="IMAGE")]
Note = Annotated[str, typer.Option(help="What is new in it.")]
Channel = Annotated[str, typer.Option(help="The channel.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it, such as win11.", metavar="IMAGE")],
    file: Annotated[Path, typer.Argument(help="Raw .img, VHD or VHDX, on the registry's machine.", metavar="FILE")],
    parent: Annotated[
        str | None,
        typer.Option(help="The version that a differencing disk was made on.", metavar="IMAGE:VERSION"),
    ] = None,
    new_version: Annotated[bool, typer.Option("--new-version", help="A further version of an image there is.")] = False,
    channel: Annotated[str | None, typer.Option(help="Point this channel at the new version at once.")] = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Tell Bootlink of an image. The file stays where it is, and must not change from now on.

    A differencing disk with a --parent of the same image is its next version.
    """
    on = references.parse_version(parent) if parent is not None else None
    body: dict[str, Any] = {"path": str(file.absolute()), "note": note}
    if on is not None:
        body["parent"] = {"image": on.image, "version": on.version}
    registry = api.from_environment()
    if new_version or (on is not None and on.image == name):
        version = registry.post("images", name, "versions", body=body | {"channel": channel})
        _print_version(name, version, as_json=as_json)
        return
    if channel is not None:
        raise typer.BadParameter("--channel goes with --new-version; a new image is in the channel production anyway")
    image = registry.post("images", body=body | {"name": name})
    _print(image, as_json=as_json)


@app.command("list")
def list_images(as_json: AsJson = False) -> None:
    """List the images."""
    images = api.from_environment().listing("images")
    if as_json:
        print_json(images)
        return
    rows = [(i["name"], *_newest(i), _channels(i), i["note"]) for i in images]
    print_table(
        ("image", "newest", "format", "disk", "on disk", "channels", "note"),
        rows,
        empty="there are no images yet; add one: bootlink image add NAME FILE",
    )


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="The image, or one version of it.", metavar="IMAGE[:VERSION]")],
    as_json: AsJson = False,
) -> None:
    """Show an image with its versions and channels, or one version."""
    reference = references.parse_image_or_version(what)
    registry = api.from_environment()
    if reference.version is None:
        _print(registry.get("images", reference.image), as_json=as_json)
        return
    version = registry.get("images", reference.image, "versions", str(reference.version))
    _print_version(reference.image, version, as_json=as_json)


@app.command()
def log(
    name: Name,
    most: Annotated[int | None, typer.Option(help="Show at most this many.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of an image: its versions, newest first."""
    versions = api.from_environment().listing("images", name, "versions", cursor="before", most=most)
    if as_json:
        print_json(versions)
        return
    print_table(
        ("version", "channels", "made", "by", "from", "on disk", "layers", "note"),
        [
            (
                v["number"],
                ", ".join(v["channels"]),
                minute(v["created"]),
                v["author"],
                v["parent"],
                size(v["disk_usage"]),
                v["layers"],
                v["note"],
            )
            for v in versions
        ],
        empty="no versions",
    )


@app.command()
def publish(
    version: Annotated[str, typer.Argument(help="The version to publish.", metavar="IMAGE:VERSION")],
    channel: Channel = "production",
    as_json: AsJson = False,
) -> None:
    """Point a channel at a version: who is linked to it boots that at the next boot. What runs, runs on."""
    reference = references.parse_version(version)
    path = ("images", reference.image, "channels", channel)
    _print_channels(api.from_environment().put(*path, body={"version": reference.version}), as_json=as_json)


@app.command()
def rollback(
    name: Name,
    channel: Channel = "production",
    to: Annotated[
        int | None, typer.Option(help="The version to go to; else where the channel pointed before.", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Point a channel at the version that it pointed at before. Done twice, it undoes itself."""
    path = ("images", name, "channels", channel, "rollback")
    _print_channels(api.from_environment().post(*path, body={"version": to}), as_json=as_json)


@app.command()
def unpublish(
    channel: Annotated[str, typer.Argument(help="The channel to take away.", metavar="IMAGE:CHANNEL")],
) -> None:
    """Take a channel away that no link names. Its version stays."""
    reference = references.parse(channel)
    if reference.channel is None:
        raise typer.BadParameter(f"name the channel: {reference.image}:CHANNEL")
    api.from_environment().delete("images", reference.image, "channels", reference.channel)


@app.command("note")
def set_note(
    what: Annotated[str, typer.Argument(help="The image, or one version of it.", metavar="IMAGE[:VERSION]")],
    text: Annotated[str, typer.Argument(help="The note; empty: none.", metavar="TEXT")],
    as_json: AsJson = False,
) -> None:
    """Write a note on an image or a version."""
    reference = references.parse_image_or_version(what)
    registry = api.from_environment()
    if reference.version is None:
        _print(registry.patch("images", reference.image, body={"note": text}), as_json=as_json)
        return
    path = ("images", reference.image, "versions", str(reference.version))
    _print_version(reference.image, registry.patch(*path, body={"note": text}), as_json=as_json)


@app.command()
def remove(
    what: Annotated[str, typer.Argument(help="The image, or one version of it.", metavar="IMAGE[:VERSION]")],
) -> None:
    """Remove an image or a version that nothing needs. Files that were added in place stay where they are."""
    reference = references.parse_image_or_version(what)
    version = ("versions", str(reference.version)) if reference.version is not None else ()
    api.from_environment().delete("images", reference.image, *version)


def _newest(image: dict[str, Any]) -> tuple[Any, ...]:
    version = image["versions"][0] if image.get("versions") else {}
    return (
        version.get("number"),
        version.get("format"),
        size(version.get("virtual_size")),
        size(version.get("disk_usage")),
    )


def _channels(image: dict[str, Any]) -> str:
    return ", ".join(f"{name}={version}" for name, version in image.get("channels", {}).items())


def _print_channels(image: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(image)
        return
    print_facts({"image": image["name"], "channels": _channels(image)})


def _print_version(image: str, version: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(version)
        return
    print_facts(
        {
            "image": image,
            "version": version["number"],
            "channels": ", ".join(version["channels"]),
            "note": version["note"],
            "made": moment(version["created"]),
            "by": version["author"],
            "from version": version["parent"],
            "from boot": version["from_boot"],
            "disk": size(version["virtual_size"]),
            "layers": version["layers"],
            "file": version["path"],
            "format": version["format"],
            "on disk": size(version["disk_usage"]),
            "SHA-256": version["sha256"],
            "fault": version["fault"],
        }
    )


def _print(image: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(image)
        return
    print_facts(
        {
            "image": image["name"],
            "note": image["note"],
            "channels": _channels(image),
            "added": moment(image.get("created")),
        }
    )
    print_table(
        ("version", "format", "disk", "on disk", "path", "fault"),
        [
            (
                v.get("number"),
                v.get("format"),
                size(v.get("virtual_size")),
                size(v.get("disk_usage")),
                v.get("path"),
                v.get("fault"),
            )
            for v in image.get("versions", [])
        ],
        empty="no versions",
    )
