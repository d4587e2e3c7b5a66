"""How commands name a version: IMAGE, IMAGE:CHANNEL or IMAGE:NUMBER. No channel's name is a number."""

from __future__ import annotations

from dataclasses import dataclass

import typer


@dataclass(frozen=True, slots=True)
class Reference:
    """What a reference names; without channel and version: the image, or its channel `production`."""

    image: str
    channel: str | None = None
    version: int | None = None

    def wish(self) -> dict[str, str | int | None]:
        """The two, as the API's requests have them."""
        return {"channel": self.channel, "version": self.version}


def parse(text: str) -> Reference:
    """The reference. typer.BadParameter if it is none."""
    image, colon, rest = text.partition(":")
    if not image or (colon and not rest):
        raise typer.BadParameter(f"{text!r} names no image; write IMAGE, IMAGE:CHANNEL or IMAGE:VERSION")
    if not colon:
        return Reference(image)
    return Reference(image, version=int(rest)) if rest.isdecimal() else Reference(image, channel=rest)


def parse_with(text: str, version: int | None) -> Reference:
    """A reference where a version may be named apart, too. typer.BadParameter if both name one."""
    reference = parse(text)
    if version is None:
        return reference
    if reference.channel is not None or reference.version is not None:
        raise typer.BadParameter("name a channel or a --version, not both")
    return Reference(reference.image, version=version)


def parse_version(text: str) -> Reference:
    """A reference that names a number. typer.BadParameter otherwise."""
    reference = parse(text)
    if reference.version is None:
        raise typer.BadParameter(f"name the version too: {reference.image}:NUMBER")
    return reference


def parse_image_or_version(text: str) -> Reference:
    """A reference to an image or to one version of it, and not to a channel. typer.BadParameter otherwise."""
    reference = parse(text)
    if reference.channel is not None:
        raise typer.BadParameter(f"{text!r} names a channel; write IMAGE or IMAGE:VERSION")
    return reference
