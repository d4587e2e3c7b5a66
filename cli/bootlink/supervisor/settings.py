"""What `bootlink up` reads from the environment. Options of the command come before it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bootlink.engines.nats import ServerTls
from bootlink.settings import DEFAULT_DATA
from bootlink_runtime import StartupError

ALL_SERVICES: Final = ("registry", "blockstore", "tftp", "dhcp")


class UpSettings(BaseSettings):
    """Environment: BOOTLINK_*."""

    model_config = SettingsConfigDict(env_prefix="BOOTLINK_", extra="ignore", env_ignore_empty=True)

    data: Path = Field(default=DEFAULT_DATA, description="everything is written below this folder")
    nats_url: str | None = Field(default=None, description="a NATS server to use; unset: an embedded one is started")
    nats_host: str = Field(default="127.0.0.1", description="address of the embedded NATS server")
    nats_port: int = Field(default=4222, ge=0, le=65535, description="its port; 0: any free one")
    nats_server_cert_file: Path | None = Field(
        default=None,
        description="certificate of the embedded NATS server (PEM); set, it speaks TLS alone. "
        "BOOTLINK_NATS_CA_FILE tells the services and the command the CA of it",
    )
    nats_server_key_file: Path | None = Field(
        default=None, description="the key of that certificate (PEM); unset: it lies in the same file"
    )
    database_url: str | None = Field(default=None, description="a PostgreSQL to use; unset: an embedded one is started")
    dhcp_interface: str | None = Field(default=None, description="the network card that serves the PCs")

    @property
    def nats_server_tls(self) -> ServerTls | None:
        """With what the embedded NATS server speaks TLS; None: in clear."""
        cert = self.nats_server_cert_file
        return ServerTls(cert.absolute(), (self.nats_server_key_file or cert).absolute()) if cert else None


def load() -> UpSettings:
    """Read them. StartupError names what is wrong."""
    try:
        return UpSettings()
    except ValidationError as error:
        wrong = [f"BOOTLINK_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise StartupError("; ".join(wrong), "correct these settings in the environment") from error


def services_named(text: str) -> tuple[str, ...]:
    """The services in a list with commas, in their order of start. ValueError for a name that is none."""
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(wanted - set(ALL_SERVICES))
    if unknown or not wanted:
        raise ValueError(
            f"no service is called {', '.join(unknown) or repr(text)}; there are {', '.join(ALL_SERVICES)}"
        )
    return tuple(name for name in ALL_SERVICES if name in wanted)
