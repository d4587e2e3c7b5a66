"""Settings of the tftp service."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from bootlink_runtime import ClusterSettings
from bootlink_wire.tftp_options import BLOCK_DEFAULT, BLOCK_MAX, BLOCK_ON_ETHERNET, WINDOW_GRANTED, WINDOW_MAX

DEBIAN_LOADERS: Final = Path("/usr/lib/ipxe")
# Two for each PC of a room of 500 that is switched on: where the machine is busy, the request for the script is read
# before the last ACK of the loader. Each holds a socket, and the window that is under way. Whoever comes beyond these
# is not refused, but asks again as firmware does, after 1 to 4 s.
TRANSFERS_MAX: Final = 1_000
# One PC has one transfer at a time, and for a moment two; VMs behind one address, as QEMU's user network puts
# them, have some more.
TRANSFERS_PER_CLIENT_MAX: Final = 16

CONNECTIONS_MAX: Final = 400  # each with a socket, and a descriptor for a large file


class TftpSettings(ClusterSettings):
    """Environment: BOOTLINK_TFTP_*."""

    model_config = SettingsConfigDict(env_prefix="BOOTLINK_TFTP_")

    host: IPv4Address = Field(default=IPv4Address("0.0.0.0"), description="address to listen on")
    port: int = Field(default=69, ge=0, le=65535, description="UDP port; 0: any free one")
    advertise: IPv4Address | None = Field(
        default=None,
        description="address of this server in script URLs; unset: the address that the PC has asked",
    )
    loaders: str = Field(
        default="",
        description="folders of boot loaders, separated by colons, the first that has a file serves it; "
        "unset: DATA/tftp/loaders, then Debian's /usr/lib/ipxe",
    )
    blksize_max: int = Field(
        default=BLOCK_ON_ETHERNET, ge=BLOCK_DEFAULT, le=BLOCK_MAX, description="largest block granted, octets"
    )
    windowsize_max: int = Field(
        default=WINDOW_GRANTED, ge=1, le=WINDOW_MAX, description="most blocks granted to be in flight"
    )
    single_port: bool = Field(
        default=False, description="send everything from the request port, for old ROMs and strict firewalls"
    )
    transfers_max: int = Field(default=TRANSFERS_MAX, ge=1, description="transfers at once")
    transfers_per_client_max: int = Field(
        default=TRANSFERS_PER_CLIENT_MAX, ge=1, description="transfers at once with one IP address"
    )
    http_port: int = Field(
        default=0, ge=0, le=65535, description="TCP port of the same files over HTTP, for UEFI HTTP boot; 0: none"
    )
    http_connections_max: int = Field(default=CONNECTIONS_MAX, ge=1, description="connections over HTTP at once")
    script_urls: Literal["tftp", "http"] = Field(
        default="tftp",
        description="the protocol that iPXE is sent to for its script, kernels and initrds; http needs the HTTP port",
    )
    on_link: str = Field(
        default="auto",
        description="networks, separated by commas, in which a PC reaches a target on its own link (its gateway is "
        "then set to the target); auto: the networks of this machine; none: nowhere",
    )

    @field_validator("on_link")
    @classmethod
    def _networks(cls, text: str) -> str:
        if text not in ("auto", "none"):
            for network in text.split(","):
                IPv4Network(network.strip())
        return text

    @model_validator(mode="after")
    def _has_http(self) -> TftpSettings:
        if self.script_urls == "http" and not self.http_port:
            raise ValueError("script_urls is http, and there is no HTTP port: set BOOTLINK_TFTP_HTTP_PORT")
        return self

    @property
    def on_link_networks(self) -> tuple[IPv4Network, ...] | None:
        """None for auto."""
        if self.on_link == "auto":
            return None
        return () if self.on_link == "none" else tuple(IPv4Network(n.strip()) for n in self.on_link.split(","))

    @property
    def loader_folders(self) -> tuple[Path, ...]:
        """The folders that the user named; empty: the default ones."""
        return tuple(Path(folder) for folder in self.loaders.split(":") if folder)
