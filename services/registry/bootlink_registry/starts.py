"""How a link starts a PC, where that is more than booting its disk: what may be asked for, and as columns.

`links` and `choices` have the same six columns for it. A row that boots its disk as usual has their defaults, and is
None here. What names a file or stands in the kernel's command line ends up in an iPXE script, which has no quoting; so
what could mean something there is refused where it is set, and never changed on the way.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from bootlink_events import Start, from_disk

INITRDS_LIMIT: Final = 8  # microcode, the initrd itself and a few drivers
FILE_LIMIT: Final = 200  # characters of a file's name or URL
ARGUMENTS_LIMIT: Final = 1_000  # characters; an x86 kernel takes 2,047, and a line of iPXE's script has to hold it

FIELDS: Final = ("mac", "client", "boot_id", "server")  # that arguments may name, as {mac}
_FILE: Final = re.compile(r"(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/)?[A-Za-z0-9][A-Za-z0-9._/+-]*")
_EFI_FILE: Final = re.compile(r"[\\/]?[A-Za-z0-9][A-Za-z0-9._/\\-]*[A-Za-z0-9]")
# Not among these: $ & | ; # ` ' " and the backslash, which mean something to iPXE or to nobody else.
_ARGUMENTS: Final = re.compile(r"([A-Za-z0-9 .,:()/_+@=!?*<>~%^\[\]-]|\{(mac|client|boot_id|server)\})*")

PLAIN: Final = Start()
_NO_IMAGE: Final = ("the link names no image", "name one, or how to start without: local, shell, kernel")


def check_file(name: str) -> str:
    """`name` itself if a boot file can be called so. ValueError if not."""
    if len(name) > FILE_LIMIT or not _FILE.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{name!r} is no boot file: name one of the loader folders, such as linux/vmlinuz, or an http URL, in "
            f"letters, digits and . _ / + -, with at most {FILE_LIMIT} characters"
        )
    return name


def check_efi_file(name: str) -> str:
    """`name` itself if it is the path of an EFI program. ValueError if not."""
    if len(name) > FILE_LIMIT or not _EFI_FILE.fullmatch(name):
        raise ValueError(
            f"{name!r} is no path of an EFI program: write it like EFI/Microsoft/Boot/bootmgfw.efi, without blanks"
        )
    return name


def check_arguments(text: str) -> str:
    """`text` itself if an iPXE script can hold it as a kernel's command line. ValueError if not."""
    if len(text) > ARGUMENTS_LIMIT:
        raise ValueError(f"the kernel's arguments are longer than {ARGUMENTS_LIMIT} characters")
    if not _ARGUMENTS.fullmatch(text):
        fields = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise ValueError(
            "the kernel's arguments hold what means something to iPXE ($ & | ; # quotes, a backslash) or a field that "
            f"there is not; the fields are {fields}"
        )
    return text


def start_of(row: Any) -> Start | None:
    """How a row of `links` or `choices` starts; None: from its disk, as usual."""
    start = Start(
        mode=row["boot"],
        file=row["boot_file"],
        keep_san=row["keep_san"],
        kernel=row["kernel"],
        initrds=tuple(row["initrds"]),
        arguments=row["arguments"],
    )
    return None if start == PLAIN else start


def values_of(start: Start | None) -> tuple[Any, ...]:
    """The values of the columns boot, boot_file, keep_san, kernel, initrds and arguments."""
    held = start or PLAIN
    return (held.mode, held.file, held.keep_san, held.kernel, list(held.initrds), held.arguments)


def written(start: Start | None) -> str:
    """As one cell of a table: empty for the usual way, one word where that says all, or else JSON."""
    if start is None:
        return ""
    told = start.model_dump(mode="json", exclude_defaults=True)
    return str(told["mode"]) if set(told) == {"mode"} else json.dumps(told)


def read(text: str) -> Start | None:
    """What `written` wrote. ValueError where it is nothing that a link can say."""
    if text in ("", "disk"):
        return None
    if text in ("local", "shell"):
        return Start(mode=text)
    try:
        told = json.loads(text)
        if not isinstance(told, dict) or set(told) - set(Start.model_fields):
            raise ValueError(text)
        start = Start.model_validate(told)
    except (ValueError, RecursionError) as error:
        fields = ", ".join(Start.model_fields)
        raise ValueError(
            f"{text!r} is neither local nor shell nor a JSON object of {fields}; `bootlink client export` writes some"
        ) from error
    for name in (start.kernel, *start.initrds):
        if name:
            check_file(name)
    if start.file:
        check_efi_file(start.file)
    check_arguments(start.arguments)
    return None if start == PLAIN else start


def problem_with(start: Start | None, *, image: str, lun: int, policy: str, chap: str) -> tuple[str, str] | None:
    """What is wrong with a link that starts so, and what to do; None if nothing is.

    Who asked may have written fields of a request or options of the command: where those differ (mode and --boot, file
    and --filename), neither is named.
    """
    if start is None:
        return None if image else _NO_IMAGE
    if start.mode == "none":
        return _wrong_none(start, image=image, lun=lun)
    if lun and start != PLAIN:
        return "only what is booted (LUN 0) can say how it starts", "leave that out for a further disk"
    if from_disk(start):
        return _wrong_disk(start, image=image, policy=policy)
    if image:
        return f"a PC that starts with {start.mode} has no disk to boot, so no image", "leave the image out"
    if start.file or start.keep_san:
        return (
            "an EFI program of the disk, or that the disk stays attached, says how a disk is booted; there is none",
            "leave it out, or boot from the disk",
        )
    if chap != "off":
        return "without a disk there is no login to prove", "leave chap out"
    if start.mode == "kernel":
        return None if start.kernel else ("what boots a kernel needs the kernel's file", "name it")
    if start.kernel or start.initrds or start.arguments:
        return f"what boots {start.mode} takes no kernel, initrd or arguments", "leave them out, or boot kernel instead"
    return None


def _wrong_none(start: Start, *, image: str, lun: int) -> tuple[str, str] | None:
    if not lun:
        return "having no disk is for a further disk; a PC has something to boot", "name a LUN from 1 on"
    if image or start != Start(mode="none"):
        return "where there is to be no disk, nothing else can be said of it", "leave the image and all else out"
    return None


def _wrong_disk(start: Start, *, image: str, policy: str) -> tuple[str, str] | None:
    if not image:
        return _NO_IMAGE
    if start.kernel or start.initrds or start.arguments:
        return (
            "kernel, initrd and arguments are for booting a kernel, and this boots a disk",
            "leave them out; or boot kernel instead of disk, and name no image",
        )
    if start.keep_san and policy == "discard":
        return (
            "that the disk stays attached is for installing onto it, and with the policy discard all that is gone at "
            "the next boot",
            "set the policy keep",
        )
    return None
