"""What the registry is told at start."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import ByteSize, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from bootlink_registry.names import check_pattern
from bootlink_registry.stalls import SILENT_SECONDS
from bootlink_registry.webhooks.schedule import FIRST_SECONDS, HOURS, LONGEST_SECONDS
from bootlink_registry.webhooks.targets import Network
from bootlink_runtime import Retention, StartupError
from bootlink_runtime.settings import StoreSettings, secret, shared


class RegistrySettings(StoreSettings):
    """Settings of the registry, `BOOTLINK_REGISTRY_*` where no other variable is named."""

    model_config = SettingsConfigDict(env_prefix="BOOTLINK_REGISTRY_")

    database_url: str = Field(
        default="postgresql:///bootlink",
        validation_alias=shared("BOOTLINK_DATABASE_URL", "database_url"),
        description="the PostgreSQL database that holds the truth",
    )
    database_password_file: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_DATABASE_PASSWORD_FILE", "database_password_file"),
        description="a file that holds the password of the database's user, where the URL names none",
    )
    retired_days: float = Field(
        default=7,
        ge=0,
        description="that a layer stays in the image store which a merge or a removal has left without use",
    )
    api_host: str = Field(default="127.0.0.1", description="address of the HTTP API")
    api_port: int = Field(default=8600, ge=0, le=65535, description="port of the HTTP API; 0: any free one")
    admin_token: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=shared("BOOTLINK_ADMIN_TOKEN", "admin_token"),
        description="a token of role admin for the API, with which everything begins",
    )
    admin_token_file: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_ADMIN_TOKEN_FILE", "admin_token_file"),
        description="a file that holds this token; BOOTLINK_ADMIN_TOKEN comes before it",
    )
    enrol: Literal["accept", "refuse"] = Field(
        default="accept", description="whether a PC that nobody added becomes a client when it first asks"
    )
    silent_seconds: float = Field(
        default=SILENT_SECONDS,
        gt=0,
        description="without news, until a boot that has not reached its disk counts as failed",
    )
    spindle: Literal["warn", "refuse"] = Field(
        default="warn",
        description="what happens where images and write-backs share a rotating disk: it is said, or clients are not "
        "sent there",
    )
    boot_reserve: ByteSize = Field(
        default=ByteSize(1 << 30),
        ge=0,
        description="free space for write-backs below which a block store is sent no further PC, such as 1GiB; 0: none",
    )
    events_days: float = Field(
        default=30, ge=1 / 24, le=3650, description="that events are kept in NATS, for programs that were away"
    )
    events_size: ByteSize = Field(
        default=ByteSize(2 << 30), ge=1 << 20, description="and of how many bytes the oldest go first, such as 2GiB"
    )
    nats_replicas: Literal[1, 3, 5] | None = Field(
        default=None,
        description="servers of a NATS cluster that each hold events, plans and leases; unset: as NATS has it, or one",
    )
    webhook_hours: float = Field(
        default=HOURS, gt=0, le=24 * 30, description="that an event is tried in vain at a webhook before it is given up"
    )
    webhook_retry: float = Field(
        default=FIRST_SECONDS,
        gt=0,
        le=LONGEST_SECONDS,
        description="seconds before the second attempt at a webhook; twice as many before each further one, up to "
        f"{LONGEST_SECONDS:.0f}",
    )
    webhook_networks: str = Field(
        default="",
        description="networks that webhooks may reach besides, with commas, such as 127.0.0.0/8: this machine, "
        "link-local and multicast addresses are not reached otherwise",
    )
    enrol_name: str = Field(default="pc-{n:03}", description="names of enrolled clients; {n} counts from 1")

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks of `webhook_networks`."""
        return tuple(ip_network(one.strip()) for one in self.webhook_networks.split(",") if one.strip())

    @field_validator("webhook_networks")
    @classmethod
    def _names_networks(cls, text: str) -> str:
        for one in text.split(","):
            if one.strip():
                ip_network(one.strip())  # ValueError says what is wrong with it
        return text

    @property
    def retention(self) -> Retention:
        """What is kept in NATS."""
        return Retention(seconds=self.events_days * 86400, bytes=int(self.events_size), replicas=self.nats_replicas)

    def database(self) -> str:
        """The database's URL, with the password in it. StartupError if the password's file cannot be used."""
        _, password = secret(
            SecretStr(""), self.database_password_file, what="the database's password", name="DATABASE_PASSWORD"
        )
        if self.database_password_file is None:
            return self.database_url
        parts = urlsplit(self.database_url)
        if not password:
            raise StartupError(
                f"{self.database_password_file} is empty", "put the password of the database's user into it"
            )
        if not parts.username or parts.password is not None:
            raise StartupError(
                "BOOTLINK_DATABASE_URL must name a user, and no password beside BOOTLINK_DATABASE_PASSWORD_FILE",
                "write it like postgresql://USER@HOST/DATABASE",
            )
        return urlunsplit(parts._replace(netloc=parts.netloc.replace("@", f":{quote(password, safe='')}@", 1)))

    def shared_admin_token(self) -> str:
        """The administrator's token; empty where none was given. StartupError if its file is empty, or no file."""
        what = "the administrator's token"
        variable, text = secret(self.admin_token, self.admin_token_file, what=what, name="ADMIN_TOKEN")
        if not text and variable == "BOOTLINK_ADMIN_TOKEN_FILE":
            raise StartupError(f"{self.admin_token_file} is empty", "put a token into it: openssl rand -hex 32")
        return text

    @field_validator("enrol_name")
    @classmethod
    def _makes_names(cls, pattern: str) -> str:
        return check_pattern(pattern)
