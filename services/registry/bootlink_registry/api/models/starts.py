"""How a link or an entry of a boot menu starts a PC."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from bootlink_events import Start, StartMode
from bootlink_registry import starts
from bootlink_registry.api.models.base import Wish

BootFile = Annotated[
    str,
    AfterValidator(starts.check_file),
    Field(max_length=starts.FILE_LIMIT),
]
Kernel = Annotated[
    str,
    AfterValidator(lambda name: name and starts.check_file(name)),
    Field(max_length=starts.FILE_LIMIT),
]
EfiFile = Annotated[
    str,
    AfterValidator(lambda name: name and starts.check_efi_file(name)),
    Field(max_length=starts.FILE_LIMIT),
]
Arguments = Annotated[
    str,
    AfterValidator(starts.check_arguments),
    Field(max_length=starts.ARGUMENTS_LIMIT),
]


class NewStart(Wish):
    mode: StartMode = Field(
        default="disk",
        description="disk: the image; local: what the PC's own disk holds; shell: iPXE's command line; kernel: a Linux "
        "kernel; none: for LUN 1 and up, no disk, whatever other links give. Other than disk: no image is named",
    )
    file: EfiFile = Field(
        default="", description="mode disk: the EFI program on it that UEFI firmware starts; empty: its default"
    )
    keep_san: bool = Field(
        default=False,
        description="mode disk: where it does not boot, it stays attached and the firmware boots the next device: for "
        "installing a system onto it",
    )
    kernel: Kernel = Field(
        default="", description="mode kernel: a file of the boot server's loader folders, or an http URL"
    )
    initrds: list[BootFile] = Field(default_factory=list, max_length=starts.INITRDS_LIMIT)
    arguments: Arguments = Field(
        default="",
        description="the kernel's command line; in it {mac}, {client}, {boot_id} and {server} (the boot server's URL) "
        "are filled in",
    )

    def start(self) -> Start | None:
        """As links have it."""
        start = Start(
            mode=self.mode,
            file=self.file,
            keep_san=self.keep_san,
            kernel=self.kernel,
            initrds=tuple(self.initrds),
            arguments=self.arguments,
        )
        return None if start == starts.PLAIN else start
