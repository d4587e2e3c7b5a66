"""The script lines of a start that attaches no disk of ours: the PC's own disk, a shell, a kernel. Pure.

*local*: UEFI is left with an error, because EDK2 takes success for "the user is done" and shows its menu; with an error
it goes on to its next boot option. A BIOS cannot be trusted to go on, so iPXE starts the first hard disk itself, and
leaves to the BIOS only when there is none that starts.

*shell*: iPXE's command line, for whoever stands before the PC. `exit` asks for the script again.

*kernel*: the kernel with its command line and initrds, fetched from this server or an http URL. What an earlier attempt
has fetched is dropped first, or initrds would pile up. An initrd is named in the command line as well, since a kernel
that UEFI starts looks for it by that name; one that a BIOS starts gets all that were fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootlink_events import BootPlan, Start
from bootlink_tftp.ipxe import Arguments, Text, Token, fill

URL_SCHEMES: Final = ("http://", "https://")

LEAVE: Final = "exit 1"
_LOCAL: Final = (
    "echo Bootlink: {client} boots from its own disk",
    "iseq ${platform} efi && exit 1 ||",
    "sanboot --no-describe --drive 0x80 ||",
    LEAVE,
)
_SHELL: Final = (
    "echo Bootlink: the shell of {client}. Type exit to ask for its script again.",
    "shell ||",
    "chain --autofree --replace {url} || goto {label}",
)
_KERNEL: Final = (
    "echo Bootlink: {client} boots the kernel {kernel}",
    "imgfree ||",
    "kernel {url} {arguments} || goto {label}_fetch",
)
_INITRD: Final = ("initrd --name {name} {url} || goto {label}_fetch",)
_BOOT: Final = ("boot || goto {label}_launch",)


def file_url(base: str, boot_id: object, file: str) -> Token:
    """Where a PC fetches this boot file."""
    return Token(file if file.startswith(URL_SCHEMES) else f"{base}/boot/{boot_id}/{file}")


def lines(
    start: Start,
    plan: BootPlan,
    *,
    url: Token,
    url_of: Callable[[str], Token],
    fields: dict[str, str],
    label: str,
) -> list[str]:
    """The lines of this start. `url`: of the client's script; `url_of`: of a boot file; `fields`: what the kernel's
    arguments may name. They end in a jump to LABEL_fetch or LABEL_launch where a kernel fails (see `failures`), or to
    LABEL where the script is not to be had; and they are never left at their end."""
    client, here = Text(plan.client), Token(label)
    if start.mode == "local":
        return fill(_LOCAL, client=client)
    if start.mode == "shell":
        return [f":{here}", *fill(_SHELL, client=client, url=url, label=here)]
    names = [f"initrd{number}" for number, _ in enumerate(start.initrds)]
    words = " ".join([*(f"initrd={name}" for name in names), start.arguments])
    found = fill(
        _KERNEL,
        client=client,
        kernel=Text(start.kernel),
        url=url_of(start.kernel),
        arguments=Arguments(words, fields),
        label=here,
    )
    for name, file in zip(names, start.initrds, strict=True):
        found += fill(_INITRD, name=Token(name), url=url_of(file), label=here)
    return found + fill(_BOOT, label=here)


def failures(start: Start) -> tuple[str, ...]:
    """What a script of this start may fail at; each wants a screen at its label."""
    return ("fetch", "launch") if start.mode == "kernel" else ()
