"""`bootlink image import|export|verify|merge|compact`: long work on image files, followed until it is done."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bootlink import api, references
from bootlink.commands.images import Name, Note, app
from bootlink.errors import CommandError
from bootlink.jobs import follow
from bootlink.output import AsJson, print_facts, print_json, print_table, size

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Show its progress until it is done.")]
Version = Annotated[
    str,
    typer.Argument(help="The version; without one that of the channel production.", metavar="IMAGE[:CHANNEL|:VERSION]"),
]


class LayerFormat(StrEnum):
    """What images are stored in; vhd and vhdx are dynamic ones."""

    vhd = "vhd"
    vhdx = "vhdx"
    raw = "raw"


class FileFormat(StrEnum):
    """What images are exported in."""

    vhd = "vhd"
    vhdx = "vhdx"
    raw = "raw"
    qcow2 = "qcow2"


class SourceFormat(StrEnum):
    """What images are imported from."""

    raw = "raw"
    vhd = "vhd"
    vhdx = "vhdx"
    qcow2 = "qcow2"
    vmdk = "vmdk"
    vdi = "vdi"


@app.command("import")
def import_image(
    name: Name,
    source: Annotated[
        str, typer.Argument(help="A file on the registry's machine, or an http(s) URL.", metavar="SOURCE")
    ],
    sha256: Annotated[
        str | None, typer.Option(help="The checksum that it must have; else what a .sha256 beside it says.")
    ] = None,
    store_as: Annotated[LayerFormat, typer.Option("--format", help="What it is stored in.")] = LayerFormat.vhd,
    source_format: Annotated[SourceFormat | None, typer.Option(help="What it is; else by what is in it.")] = None,
    new_version: Annotated[bool, typer.Option("--new-version", help="A further version of an image there is.")] = False,
    channel: Annotated[str | None, typer.Option(help="Point this channel at the new version at once.")] = None,
    note: Note = "",
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Copy or convert a disk into the image store: raw, VHD, VHDX; with qemu-img qcow2, VMDK and VDI too.

    What was downloaded of a URL before an interruption is kept: the same command goes on from there.
    """
    if channel is not None and not new_version:
        raise typer.BadParameter("--channel goes with --new-version; a new image is in the channel production anyway")
    body = {
        "name": name,
        "source": source if "://" in source else str(Path(source).absolute()),
        "source_format": source_format.value if source_format else None,
        "sha256": sha256.lower() if sha256 else None,
        "format": store_as.value,
        "new_version": new_version,
        "channel": channel,
        "note": note,
    }
    result = _done(("imports",), body, wait=wait, as_json=as_json)
    if result is None:
        return
    if result["source_checked"] is False:
        sys.stderr.write("note: no checksum was given or found beside the source, so none was compared\n")
    print_facts(
        {
            "image": result["image"],
            "version": result["version"],
            "file": result["path"],
            "disk": size(result["virtual_size"]),
            "on disk": size(result["disk_usage"]),
            "SHA-256": result["sha256"],
        }
    )


@app.command("export")
def export_image(
    version: Version,
    file: Annotated[Path, typer.Argument(help="The file to make, on the registry's machine.", metavar="FILE")],
    file_format: Annotated[FileFormat, typer.Option("--format", help="What to write.")] = FileFormat.vhd,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Write a version as one whole file. A file that is there already is never replaced."""
    reference = references.parse(version)
    body = {"path": str(file.absolute()), "format": file_format.value, **reference.wish()}
    result = _done(("images", reference.image, "export"), body, wait=wait, as_json=as_json)
    if result is not None:
        print_facts(
            {
                "image": result["image"],
                "version": result["version"],
                "file": result["path"],
                "size": size(result["file_size"]),
                "SHA-256": result["sha256"],
            }
        )


@app.command()
def verify(
    what: Annotated[str, typer.Argument(help="The image, or one version of it.", metavar="IMAGE[:VERSION]")],
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Read every layer of an image and compare its checksum; status 1 if something is wrong."""
    reference = references.parse_image_or_version(what)
    path = ("images", reference.image, "verify")
    result = _done(path, {"version": reference.version}, wait=wait, as_json=as_json, anyway=True)
    if result is None:
        return
    if not as_json:
        print_table(
            ("file", "SHA-256", "finding"),
            [
                (
                    layer["path"],
                    (layer["sha256"] or "")[:12],
                    layer["finding"] or ("sound" if layer["known"] else "sound so far: its checksum was taken now"),
                )
                for layer in result["layers"]
            ],
            empty="no layers",
        )
    if not result["sound"]:
        wrong = [layer["path"] for layer in result["layers"] if layer["finding"]]
        chains = [f"version {chain['version']}: {chain['finding']}" for chain in result["chains"]]
        raise CommandError(
            f"image {reference.image} is not sound: {'; '.join(wrong + chains)}",
            "restore these files from a copy, with their times (cp -p); then verify again",
        )


@app.command()
def merge(
    version: Version,
    onto: Annotated[
        int | None, typer.Option(help="Leave this version and those below it as they are; else all become one.", min=1)
    ] = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Have a version read from fewer layers. It shows the same as before, and no PC is stopped for it."""
    reference = references.parse(version)
    body = {**reference.wish(), "onto": onto}
    result = _done(("images", reference.image, "merge"), body, wait=wait, as_json=as_json)
    if result is not None:
        print_facts(
            {
                "image": result["image"],
                "version": result["version"],
                "layers before": result["layers_before"],
                "layers now": result["layers_after"],
                "file": result["path"],
                "on disk": size(result["disk_usage"]),
                **_left(result),
            }
        )


@app.command()
def compact(
    version: Version,
    store_as: Annotated[LayerFormat | None, typer.Option("--format", help="What it is stored in.")] = None,
    publish: Annotated[str | None, typer.Option(help="Point this channel at the new version at once.")] = None,
    note: Note = "",
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Write a version anew without zeros, and without what NTFS or ext4 on it call free.

    Without free space it shows other bytes than before, if none that a file owns: that is a new version.
    """
    reference = references.parse(version)
    body = {
        **reference.wish(),
        "format": store_as.value if store_as else None,
        "publish": publish,
        "note": note,
    }
    result = _done(("images", reference.image, "compact"), body, wait=wait, as_json=as_json)
    if result is not None:
        for told in result["notes"]:
            sys.stderr.write(f"note: {told}\n")
        print_facts(
            {
                "image": result["image"],
                "version": result["version"],
                "before": size(result["before"]),
                "after": size(result["after"]),
                "zeros": size(result["zero_bytes"]),
                "free space": size(result["free_bytes"]),
                "outcome": result["outcome"],
                "new version": result.get("new_version"),
                "file": result.get("path"),
                **_left(result),
            }
        )


def _left(result: dict[str, Any]) -> dict[str, Any]:
    """What becomes of the files of before."""
    return {
        "not needed any more": ", ".join(result.get("released", [])),
        "removed once no PC reads them": ", ".join(result.get("retired", [])),
        "still needed by other versions": ", ".join(result.get("still_needed", [])),
    }


def _done(
    path: tuple[str, ...], body: dict[str, Any], *, wait: bool, as_json: bool, anyway: bool = False
) -> dict[str, Any] | None:
    """Put the job in and follow it; its result to be told, or None where the job itself was printed.

    With `anyway` the result comes also after printing the job as JSON.
    """
    registry = api.from_environment()
    job = registry.post(*path, body=body)
    if wait:
        job = follow(registry, job, quiet=as_json)
    result: dict[str, Any] | None = job["result"]
    if as_json:
        print_json(job)
        return result if anyway else None
    if result is None:
        print_facts({"job": job["id"], "look": f"bootlink job show {job['id']}"})
    return result
