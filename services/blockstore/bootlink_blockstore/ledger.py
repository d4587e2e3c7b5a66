"""What is known of a client beyond its manifests: how far its boots are over, and which one comes back.

`writebacks/<mac token>/client.ledger`, JSON, replaced atomically and synced. A client without one has nothing in it.

    over        every boot up to this one is over, though no manifest says so any more: its write-back was thrown away.
                A PC that still runs it must not get a fresh disk in the middle of its work
    returning   the files of a discarded boot that the client's next boot gets. Taken out again once that has begun

A boot that gets them writes its own id into their manifests, one file after the other, and only then they are taken out
here. So they have come back when none of their manifests names the former boot any more (`came_back`).

Blocks: call it in a thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from bootlink_blockstore.durable import replace
from bootlink_events import BootId

NAME: Final = "client.ledger"
SIZE_LIMIT: Final = 1 << 16  # bytes; 256 disks' files have 20 KiB


class Returning(BaseModel):
    """A discarded boot that comes back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    boot_id: BootId
    files: tuple[str, ...]


class Ledger(BaseModel):
    """One client's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    over: BootId | None = None
    returning: Returning | None = None

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """The ledger of a client's folder. ValueError or OSError if it cannot be read."""
        path = folder / NAME
        try:
            with path.open("rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except FileNotFoundError:
            return cls()
        if len(data) > SIZE_LIMIT:
            raise ValueError("it is too large")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ValueError(str(error)) from error

    def write(self, folder: Path) -> None:
        """Whoever reads finds the former one or this one, also after a power cut."""
        replace(folder / NAME, self.model_dump_json(indent=1).encode())
