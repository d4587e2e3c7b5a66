"""How commands say what a PC starts with, where that is not the disk of an image: options, and words to show it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import typer


class Boot(StrEnum):
    """What a PC starts with."""

    disk = "disk"
    local = "local"
    shell = "shell"
    kernel = "kernel"


OPTIONS: Final = {
    "mode": "--boot",
    "file": "--filename",
    "keep_san": "--keep-san",
    "kernel": "--kernel",
    "initrds": "--initrd",
    "arguments": "--arguments",
}
"""What a command's user writes for a field of `start`."""
NO_DISK: Final = {"mode": "none"}  # as `start` of a request

BootOption = Annotated[
    Boot,
    typer.Option(
        "--boot",
        help="disk: the image; local: the PC's own disk; shell: iPXE's command line; kernel: a Linux kernel without a "
        "disk, see --kernel.",
    ),
]
Kernel = Annotated[
    str, typer.Option("--kernel", help="The kernel: a file of the boot server's loader folder, or an http URL.")
]
Initrd = Annotated[list[str] | None, typer.Option("--initrd", help="Such a file as initrd; may be given again.")]
Arguments = Annotated[
    str,
    typer.Option("--arguments", help="The kernel's command line; {mac}, {client}, {boot_id}, {server} are filled in."),
]
Filename = Annotated[
    str,
    typer.Option("--filename", help="The EFI program on the disk that UEFI firmware starts instead of its default."),
]
KeepSan = Annotated[
    bool,
    typer.Option(
        "--keep-san",
        help="A disk that does not boot stays attached, and the firmware boots its next device: to install a system.",
    ),
]


def wish(
    boot: Boot, *, kernel: str, initrds: list[str] | None, arguments: str, filename: str, keep_san: bool
) -> dict[str, Any] | None:
    """The `start` of a request; None where nothing of it was asked for."""
    asked = {
        "mode": boot.value,
        "file": filename,
        "keep_san": keep_san,
        "kernel": kernel,
        "initrds": initrds or [],
        "arguments": arguments,
    }
    return asked if boot is not Boot.disk or any(list(asked.values())[1:]) else None


def option(field: str) -> str | None:
    """The option that a field of a request (start.initrds.0) was written with; None where it is none of these."""
    before, start, rest = field.rpartition("start.")
    return OPTIONS.get(rest.split(".")[0]) if start and (not before or before.endswith(".")) else None


def without_disk(start: dict[str, Any] | None) -> bool:
    """Whether what starts so boots no image."""
    return start is not None and start["mode"] != Boot.disk


def told(start: dict[str, Any] | None) -> str | None:
    """In words; None where it is the usual way."""
    if start is None:
        return None
    match start["mode"]:
        case "none":
            return "no disk"
        case "local":
            return "its own disk"
        case "shell":
            return "iPXE's shell"
        case "kernel":
            return f"kernel {start['kernel']}"
    parts = [f"starts {start['file']}"] if start["file"] else []
    return "; ".join([*parts, *(["stays attached when it does not boot"] if start["keep_san"] else [])])


def facts(start: dict[str, Any] | None) -> dict[str, Any]:
    """What there is to show of it, each under its name."""
    if start is None:
        return {}
    return {
        "boots": told(start),
        "initrds": ", ".join(start["initrds"]) or None,
        "arguments": start["arguments"] or None,
    }
