"""Settings that every service has. Each comes from the environment, and is the same in a container and under `up`.

A service subclasses `ServiceSettings` with its own prefix (`BOOTLINK_DHCP_`); what is shared by all services keeps
one name without the service in it, so that one environment serves them all. Settings are read by `main` and the
command alone; everything else is handed them.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bootlink_events.credentials import KEY_SIZE_MIN, ClusterKey
from bootlink_runtime import otlp
from bootlink_runtime.errors import StartupError

if TYPE_CHECKING:
    from bootlink_runtime.access import NatsAccess

NATS_SCHEMES: Final = ("nats", "tls", "ws", "wss")


def shared(name: str, field: str) -> Any:
    """A field read from `name` in the environment, whatever the service's prefix; by its own name in code."""
    return AliasChoices(name, field)


def secret(value: SecretStr, file: Path | None, *, what: str, name: str) -> tuple[str, str]:
    """A secret from BOOTLINK_<name>, or from the file that BOOTLINK_<name>_FILE names: which of both, and the secret.

    The secret is empty where none was given. StartupError if the file cannot be read.
    """
    text = value.get_secret_value()
    if text or file is None:
        return f"BOOTLINK_{name}", text
    try:
        return f"BOOTLINK_{name}_FILE", file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(
            f"{what} {file} cannot be read ({error})",
            f"let the service's user read it, or correct BOOTLINK_{name}_FILE",
        ) from error


class ServiceSettings(BaseSettings):
    """What every service is told at start."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore", env_ignore_empty=True)

    nats_url: str = Field(
        default="nats://127.0.0.1:4222",
        validation_alias=shared("BOOTLINK_NATS_URL", "nats_url"),
        description="the NATS server that carries plans and events",
    )
    nats_credentials: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=shared("BOOTLINK_NATS_CREDENTIALS", "nats_credentials"),
        description="what proves this service to NATS: an nkey (SU...) or the text of a .creds file; empty: nothing",
    )
    nats_credentials_file: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_NATS_CREDENTIALS_FILE", "nats_credentials_file"),
        description="a file that holds them, or a folder with a file NAME.nk for each service; "
        "BOOTLINK_NATS_CREDENTIALS comes before it",
    )
    nats_ca_file: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_NATS_CA_FILE", "nats_ca_file"),
        description="CA certificate of the NATS server (PEM); set, the connection is TLS or there is none. "
        "Unset: TLS with the CAs that this machine trusts if the URL begins with tls:, else none",
    )
    nats_cert_file: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_NATS_CERT_FILE", "nats_cert_file"),
        description="certificate of this service (PEM), for a NATS server that asks for one",
    )
    nats_key_file: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_NATS_KEY_FILE", "nats_key_file"),
        description="the key of that certificate (PEM); unset: it lies in the same file",
    )
    data: Path = Field(
        default=Path("/var/lib/bootlink"),
        validation_alias=shared("BOOTLINK_DATA", "data"),
        description="folder for what must last; a service writes only into the folder of its own name below it",
    )
    node: str = Field(
        default_factory=socket.gethostname,
        validation_alias=shared("BOOTLINK_NODE", "node"),
        min_length=1,
        description="this machine's name in events, traces and status",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        validation_alias=shared("BOOTLINK_LOG_LEVEL", "log_level"),
        description="the least that is logged",
    )
    log_format: Literal["console", "json"] = Field(
        default="console",
        validation_alias=shared("BOOTLINK_LOG_FORMAT", "log_format"),
        description="how the log is written: for people, or a JSON object per line",
    )
    otlp_endpoint: str = Field(
        default="",
        validation_alias=shared("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint"),
        description="where spans and metrics are sent; empty: nowhere",
    )
    otlp_protocol: otlp.Protocol = Field(
        default="http/protobuf",
        validation_alias=shared("OTEL_EXPORTER_OTLP_PROTOCOL", "otlp_protocol"),
        description="and by which protocol",
    )
    otlp_traces_endpoint: str = Field(
        default="",
        validation_alias=shared("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otlp_traces_endpoint"),
        description="where spans alone are sent, with its path",
    )
    otlp_traces_protocol: otlp.Protocol | None = Field(
        default=None,
        validation_alias=shared("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "otlp_traces_protocol"),
        description="and by which protocol",
    )
    otlp_metrics_endpoint: str = Field(
        default="",
        validation_alias=shared("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "otlp_metrics_endpoint"),
        description="where metrics alone are sent, with its path",
    )
    otlp_metrics_protocol: otlp.Protocol | None = Field(
        default=None,
        validation_alias=shared("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "otlp_metrics_protocol"),
        description="and by which protocol",
    )
    traces_exporter: otlp.Exporter | None = Field(
        default=None,
        validation_alias=shared("OTEL_TRACES_EXPORTER", "traces_exporter"),
        description="none: no spans are sent; unset: they are where an endpoint is named",
    )
    metrics_exporter: otlp.Exporter | None = Field(
        default=None,
        validation_alias=shared("OTEL_METRICS_EXPORTER", "metrics_exporter"),
        description="none: no metrics are sent; unset: they are where an endpoint is named",
    )
    traces_sampler: otlp.SamplerName = Field(
        default="parentbased_always_on",
        validation_alias=shared("OTEL_TRACES_SAMPLER", "traces_sampler"),
        description="which boots are traced; of a ratio all services keep the same ones",
    )
    traces_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        validation_alias=shared("OTEL_TRACES_SAMPLER_ARG", "traces_share"),
        description="the ratio, where the sampler is one of a ratio",
    )
    otel_disabled: bool = Field(
        default=False,
        validation_alias=shared("OTEL_SDK_DISABLED", "otel_disabled"),
        description="true: neither spans nor metrics are sent",
    )
    health_host: str = Field(default="127.0.0.1", description="address of /healthz, /readyz and /metrics")
    health_port: int = Field(
        default=0, ge=0, le=65535, description="port of /healthz, /readyz and /metrics; 0: any free one"
    )

    def nats_access(self, name: str) -> NatsAccess:
        """How the service of this name shows itself to NATS. StartupError if a file of it cannot be used."""
        from bootlink_runtime.access import access

        return access(
            url=self.nats_url,
            credentials=self.nats_credentials.get_secret_value(),
            credentials_file=self.nats_credentials_file,
            name=name,
            ca=self.nats_ca_file,
            cert=self.nats_cert_file,
            key=self.nats_key_file,
        )

    @field_validator("nats_url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        try:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            readable = parts.scheme in NATS_SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            readable = False
        if not readable:
            raise ValueError(f"{url!r} is no address of a NATS server; write it like nats://127.0.0.1:4222")
        return url

    @property
    def export(self) -> otlp.Export:
        """Where spans and metrics go."""
        if self.otel_disabled:
            return otlp.Export()
        return otlp.Export(
            traces=otlp.signal(
                "traces",
                exporter=self.traces_exporter,
                endpoint=self.otlp_endpoint,
                own_endpoint=self.otlp_traces_endpoint,
                protocol=self.otlp_traces_protocol or self.otlp_protocol,
            ),
            metrics=otlp.signal(
                "metrics",
                exporter=self.metrics_exporter,
                endpoint=self.otlp_endpoint,
                own_endpoint=self.otlp_metrics_endpoint,
                protocol=self.otlp_metrics_protocol or self.otlp_protocol,
            ),
            share=otlp.share(self.traces_sampler, self.traces_share),
        )


class ClusterSettings(ServiceSettings):
    """What the services of the boot path are told besides, and nobody else: the key that CHAP secrets come from."""

    cluster_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=shared("BOOTLINK_CLUSTER_KEY", "cluster_key"),
        description=f"key that tftp and blockstore share, {KEY_SIZE_MIN} characters or more; CHAP secrets come from it",
    )
    cluster_key_file: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_CLUSTER_KEY_FILE", "cluster_key_file"),
        description="a file that holds the key; BOOTLINK_CLUSTER_KEY comes before it",
    )

    def shared_key(self) -> ClusterKey | None:
        """The key; None where none was given. StartupError if it cannot be read, or is too short to be one."""
        variable, text = secret(self.cluster_key, self.cluster_key_file, what="the cluster key", name="CLUSTER_KEY")
        if not text and variable == "BOOTLINK_CLUSTER_KEY":
            return None
        try:
            return ClusterKey(text.encode())
        except ValueError as error:
            raise StartupError(f"{variable} is no key: {error}", "make one: openssl rand -hex 32") from error


class StoreSettings(ServiceSettings):
    """What the services are told besides that share the folder of the layers that Bootlink makes itself."""

    store: Path | None = Field(
        default=None,
        validation_alias=shared("BOOTLINK_IMAGE_STORE", "store"),
        description="folder of the layers that Bootlink makes itself; unset: images, below BOOTLINK_DATA",
    )

    @property
    def image_store(self) -> Path:
        """The folder of the layers that are ours."""
        return (self.store or self.data / "images").absolute()


S = TypeVar("S", bound=ServiceSettings)


def load(settings: type[S]) -> S:
    """Read the settings from the environment. StartupError names each variable that is wrong, and why."""
    try:
        return settings()
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        wrong = [f"{_variable(prefix, str(e['loc'][0]) if e['loc'] else '?')}: {e['msg']}" for e in error.errors()]
        raise StartupError("; ".join(wrong), "correct these settings in the environment") from error


def _variable(prefix: str, location: str) -> str:
    return location if location.isupper() else f"{prefix}{location}".upper()
