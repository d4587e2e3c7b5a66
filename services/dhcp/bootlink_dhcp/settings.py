"""Settings of the dhcp service, and the subnet that they and the network card make together."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from bootlink_dhcp.bootfiles import LOADER_NAME
from bootlink_dhcp.firmware import PATIENCE
from bootlink_dhcp.subnet import (
    LEASE_MAX,
    LEASE_MIN,
    MAX_LISTED,
    SUBNET_FORM,
    Subnet,
    SubnetError,
    check_apart,
    parse_pool,
    parse_subnet,
    upper_half,
)
from bootlink_events import ARCHITECTURES, LoaderRule
from bootlink_runtime import ServiceSettings, StartupError

DEBIAN_LOADERS: Final = Path("/usr/lib/ipxe")
MAX_RULES: Final = 64  # each is looked at for each boot
MAX_KNOWN: Final = 32  # other servers on one network


def _also(name: str, field: str) -> Any:
    """A field that the tftp service has too: its own variable first, then the tftp service's, so that both agree."""
    return AliasChoices(f"BOOTLINK_DHCP_{name}", f"BOOTLINK_TFTP_{name.removeprefix('TFTP_')}", field)


class DhcpSettings(ServiceSettings):
    """Environment: BOOTLINK_DHCP_*."""

    model_config = SettingsConfigDict(env_prefix="BOOTLINK_DHCP_")

    interface: str = Field(default="", description="the network card that serves the PCs, such as eth1")
    server_address: IPv4Address | None = Field(
        default=None, description="our address on that card; unset: its first IPv4 address"
    )
    port: int = Field(default=67, ge=0, le=65535, description="UDP port; 0: any free one (for tests)")
    pool: str = Field(
        default="",
        description="addresses to give out, first-last, or several such with commas between; unset: the upper half of "
        "the card's subnet",
    )
    subnets: str = Field(
        default="",
        description="subnets behind relay agents, with semicolons between, each "
        + SUBNET_FORM
        + "; they may have dns, ntp, domain, search and lease of their own",
    )
    router: IPv4Address | None = Field(default=None, description="default gateway for the PCs; unset: none")
    dns: Annotated[tuple[IPv4Address, ...], NoDecode] = Field(
        default=(), max_length=MAX_LISTED, description="name servers for the PCs, separated by commas"
    )
    ntp: Annotated[tuple[IPv4Address, ...], NoDecode] = Field(
        default=(), max_length=MAX_LISTED, description="time servers for the PCs, separated by commas"
    )
    domain: str = Field(default="", max_length=253, description="the PCs' domain; unset: none")
    search: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), max_length=MAX_LISTED, description="domains in which names are looked up, separated by commas"
    )
    lease_seconds: int = Field(default=3600, ge=LEASE_MIN, le=LEASE_MAX, description="how long a lease lasts")
    bootp: Literal["off", "reserved", "dynamic"] = Field(
        default="reserved",
        description="which BOOTP clients (without DHCP) are answered: none, those with a reserved address, or all; "
        "such a client keeps its address for 30 days",
    )
    probe_addresses: bool = Field(
        default=True,
        description="ask by ARP (behind relay agents by ICMP) whether an address is in use before it is "
        "offered to a new client",
    )
    gone_servers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="other dhcp servers on the same pools that are gone for good, as the health check names them, "
        "separated by commas: their addresses are taken over at once, else after a day",
    )
    tftp_address: IPv4Address | None = Field(
        default=None, description="where loaders and scripts come from; unset: our own address"
    )
    tftp_port: int = Field(
        default=69, ge=1, le=65535, validation_alias=_also("TFTP_PORT", "tftp_port"), description="its UDP port"
    )
    loaders: str = Field(
        default="",
        validation_alias=_also("LOADERS", "loaders"),
        description="folders of boot loaders, separated by colons; unset: DATA/tftp/loaders, then Debian's",
    )
    mode: Literal["server", "proxy", "auto"] = Field(
        default="server",
        description="server: give out addresses; proxy: another DHCP server does, we only tell PCs what to boot; "
        "auto: look for one at the start, and be what is missing",
    )
    known_servers: Annotated[tuple[IPv4Address, ...], NoDecode] = Field(
        default=(), max_length=MAX_KNOWN, description="other DHCP servers that belong here, separated by commas"
    )
    probe_seconds: int = Field(
        default=60, ge=0, le=3600, description="how often to look for other DHCP servers; 0: only hear what passes by"
    )
    http_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        validation_alias=_also("TFTP_HTTP_PORT", "http_port"),
        description="TCP port of the same files over HTTP, which UEFI HTTP boot asks for; 0: none",
    )
    script_urls: Literal["tftp", "http"] = Field(
        default="tftp",
        validation_alias=_also("TFTP_SCRIPT_URLS", "script_urls"),
        description="the protocol that iPXE is sent to for its script; http needs the HTTP port",
    )
    loader_rules: tuple[LoaderRule, ...] = Field(
        default=(),
        max_length=MAX_RULES,
        description="which firmware is given which loaders, before the usual ones: JSON, such as "
        '[{"arch": "uefi-x64", "model": "00:1b:21", "loaders": ["ipxe.efi"]}]; vendor_class (how option 60 begins), '
        "model (how the MAC address begins) and arch may be left out",
    )
    loader_patience: int = Field(
        default=PATIENCE,
        ge=1,
        le=100,
        description="boots in a row that never ask for their script, until a PC is given the next loader",
    )
    chain_rom_ipxe: bool = Field(
        default=True, description="give our loader also to a network card whose own ROM is iPXE"
    )
    router_advertisements: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="answer IPv6 router solicitations with 'no router here', which spares iPXE a wait of 13 s; "
        "auto: while no other router was heard",
    )

    @field_validator("dns", "ntp", "search", "known_servers", "gone_servers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_http(self) -> DhcpSettings:
        if self.script_urls == "http" and not self.http_port:
            raise ValueError("script_urls is http, and there is no HTTP port: set BOOTLINK_TFTP_HTTP_PORT")
        return self

    @field_validator("loader_rules")
    @classmethod
    def _known(cls, rules: tuple[LoaderRule, ...]) -> tuple[LoaderRule, ...]:
        for rule in rules:
            if rule.arch and rule.arch not in ARCHITECTURES:
                known = ", ".join(sorted(ARCHITECTURES))
                raise ValueError(f"there is no architecture {rule.arch}; name one of {known}")
            for name in rule.loaders:
                if not LOADER_NAME.fullmatch(name):
                    raise ValueError(f"{name!r} is no name of a file in the loaders' folder, or in a folder there")
        return rules

    @property
    def loader_folders(self) -> tuple[Path, ...]:
        """Where to look for loaders, the first that has a file counts."""
        if self.loaders:
            return tuple(Path(folder) for folder in self.loaders.split(":") if folder)
        return (self.data / "tftp" / "loaders", DEBIAN_LOADERS)

    def subnet(self, own: IPv4Interface) -> Subnet:
        """The subnet of our address on the card. StartupError when the settings do not fit it."""
        taken = {own.ip, *((self.router,) if self.router else ())}
        try:
            return Subnet(
                network=own.network,
                server=own.ip,
                pool=parse_pool(self.pool) if self.pool else upper_half(own.network, taken),
                lease_seconds=self.lease_seconds,
                router=self.router,
                dns=self.dns,
                ntp=self.ntp,
                domain=self.domain,
                search=self.search,
            )
        except SubnetError as error:
            raise StartupError(error.problem, error.remedy) from error

    def relayed(self, own: Subnet) -> tuple[Subnet, ...]:
        """The subnets behind relay agents. StartupError when they contradict themselves, one another or our own."""
        try:
            found = tuple(parse_subnet(text, own) for text in self.subnets.split(";") if text.strip())
            check_apart((own, *found))
        except SubnetError as error:
            raise StartupError(error.problem, f"{error.remedy} (BOOTLINK_DHCP_SUBNETS)") from error
        return found
