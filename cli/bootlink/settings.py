"""Where the command finds the system it speaks to, and the token that it shows there."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from bootlink.errors import CommandError

DEFAULT_DATA: Final = Path("/var/lib/bootlink")
ADMIN_TOKEN: Final = "admin.token"  # in the data folder; `bootlink up` makes it
API_TIMEOUT: Final = 60.0  # seconds; adding an image reads its structure and may wait for a slow disk


class CommandSettings(BaseSettings):
    """Environment: BOOTLINK_API, BOOTLINK_NATS_URL, BOOTLINK_TOKEN, BOOTLINK_TOKEN_FILE and BOOTLINK_DATA."""

    model_config = SettingsConfigDict(env_prefix="BOOTLINK_", extra="ignore", env_ignore_empty=True)

    api: str = Field(default="http://127.0.0.1:8600", description="the registry's HTTP API")
    nats_url: str = Field(default="nats://127.0.0.1:4222", description="the NATS server")
    token: SecretStr = Field(default=SecretStr(""), description="a token for the API")
    token_file: Path | None = Field(default=None, description="a file that holds it; BOOTLINK_TOKEN comes before it")
    data: Path = Field(default=DEFAULT_DATA, description="the data folder of `bootlink up` on this machine")

    def token_to_show(self) -> str:
        """The token for the API; empty if there is none. CommandError if BOOTLINK_TOKEN_FILE cannot be read.

        The token that `bootlink up` made is shown to an API on this machine alone, and to no other that
        BOOTLINK_API may name.
        """
        if self.token.get_secret_value():
            return self.token.get_secret_value()
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


def is_here(url: str) -> bool:
    """Whether this address is this machine's own loopback."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
