"""Where the command finds the system it speaks to, and the token that it shows there."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bootlink.errors import CommandError

if TYPE_CHECKING:
    from bootlink_runtime.access import NatsAccess

DEFAULT_API: Final = "http://127.0.0.1:8600"
DEFAULT_NATS_URL: Final = "nats://127.0.0.1:4222"
DEFAULT_DATA: Final = Path("/var/lib/bootlink")
ADMIN_TOKEN: Final = "admin.token"  # in the data folder; `bootlink up` makes it
NATS_KEYS: Final = Path(
    "nats", "keys"
)  # in the data folder: a key for each who speaks to NATS; `bootlink up` makes them
COMMAND: Final = "command"  # what the command is called there
API_TIMEOUT: Final = 60.0  # seconds; adding an image reads its structure and may wait for a slow disk


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """Where the system is, and the token. Of plain strings and paths, read by hand: pydantic-settings, which reads the
    services' settings, takes a third of the time that a short command takes."""

    api: str = DEFAULT_API
    nats_url: str = DEFAULT_NATS_URL
    token: str = field(default="", repr=False)
    token_file: Path | None = None  # that holds it; BOOTLINK_TOKEN comes before it
    nats_credentials: str = field(default="", repr=False)
    nats_credentials_file: Path | None = None  # that holds them; BOOTLINK_NATS_CREDENTIALS comes before it
    nats_ca_file: Path | None = None
    nats_cert_file: Path | None = None
    nats_key_file: Path | None = None
    data: Path = DEFAULT_DATA  # the data folder of `bootlink up` on this machine

    @classmethod
    def from_environment(cls) -> CommandSettings:
        """As BOOTLINK_API, _NATS_*, _TOKEN, _TOKEN_FILE and _DATA say; one that is empty counts as not set."""

        def said(name: str, default: str = "") -> str:
            return os.environ.get(f"BOOTLINK_{name}") or default

        def path(name: str) -> Path | None:
            return Path(said(name)) if said(name) else None

        return cls(
            api=said("API", DEFAULT_API),
            nats_url=said("NATS_URL", DEFAULT_NATS_URL),
            token=said("TOKEN"),
            token_file=path("TOKEN_FILE"),
            nats_credentials=said("NATS_CREDENTIALS"),
            nats_credentials_file=path("NATS_CREDENTIALS_FILE"),
            nats_ca_file=path("NATS_CA_FILE"),
            nats_cert_file=path("NATS_CERT_FILE"),
            nats_key_file=path("NATS_KEY_FILE"),
            data=Path(said("DATA", str(DEFAULT_DATA))),
        )

    def token_to_show(self) -> str:
        """The token for the API; empty if there is none. CommandError if BOOTLINK_TOKEN_FILE cannot be read.

        The token that `bootlink up` made is shown to an API on this machine alone, and to no other that
        BOOTLINK_API may name.
        """
        if self.token:
            return self.token
        if self.token_file is not None:
            try:
                return self.token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(
                    f"the token file {self.token_file} cannot be read ({error})", "correct BOOTLINK_TOKEN_FILE"
                ) from error
        if is_here(self.api):
            with contextlib.suppress(OSError, UnicodeDecodeError):  # another user's; the API then says what is needed
                return (self.data / ADMIN_TOKEN).read_text().strip()
        return ""

    def nats_access(self) -> NatsAccess:
        """What is shown to NATS. StartupError if a file of it cannot be used.

        The key that `bootlink up` made is shown to a NATS on this machine alone.
        """
        from bootlink_runtime.access import access

        file = self.nats_credentials_file
        made_here = self.data / NATS_KEYS / f"{COMMAND}.nk"
        if not (self.nats_credentials or file) and is_here(self.nats_url) and os.access(made_here, os.R_OK):
            file = made_here
        return access(
            url=self.nats_url,
            credentials=self.nats_credentials,
            credentials_file=file,
            name=COMMAND,
            ca=self.nats_ca_file,
            cert=self.nats_cert_file,
            key=self.nats_key_file,
        )


def is_here(url: str) -> bool:
    """Whether this address is this machine's own loopback."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
