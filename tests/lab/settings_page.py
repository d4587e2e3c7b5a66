"""Writes docs/settings.md: every environment variable of the services and of `bootlink`, from where they are declared.

`make docs` runs it; `tests/contract/test_settings_page.py` fails where the page is stale. It lies here because nothing
of the product may import all services.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import AliasChoices, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from bootlink.supervisor.settings import UpSettings
from bootlink_blockstore.settings import Settings as BlockstoreSettings
from bootlink_dhcp.settings import DhcpSettings
from bootlink_registry.settings import RegistrySettings
from bootlink_runtime.settings import ClusterSettings, ServiceSettings, StoreSettings
from bootlink_tftp.settings import TftpSettings

PAGE: Final = Path(__file__).parents[2] / "docs" / "settings.md"
SERVICES: Final[dict[str, type[BaseSettings]]] = {
    "dhcp": DhcpSettings,
    "tftp": TftpSettings,
    "blockstore": BlockstoreSettings,
    "registry": RegistrySettings,
}
OF_EACH: Final = ("health_host", "health_port")  # under each service's own prefix
OF_UP: Final = {"nats_host", "nats_port", "nats_server_cert_file", "nats_server_key_file"}
COMMAND: Final = (
    ("BOOTLINK_API", "`http://127.0.0.1:8600`", "the registry's API"),
    ("BOOTLINK_NATS_URL", "`nats://127.0.0.1:4222`", "the NATS server, for status, cache and events"),
    (
        "BOOTLINK_NATS_CREDENTIALS_FILE, _CA_FILE ...",
        "none",
        "as for every service; at a NATS on this machine, without any, the key in the data folder",
    ),
    ("BOOTLINK_TOKEN", "none", "the token that is shown to the API"),
    ("BOOTLINK_TOKEN_FILE", "none", "a file that holds it; BOOTLINK_TOKEN comes before it"),
    ("BOOTLINK_WEBHOOK_SECRET", "none", "a secret of your own, for `bootlink webhook add` and `secret`"),
    ("BOOTLINK_DATA", "`/var/lib/bootlink`", "where `admin.token` is looked for, to show it to an API on this machine"),
)


def page() -> str:
    """The page's text."""
    lines = [
        "# Settings",
        "",
        "Generated from the services' `settings.py` by `make docs`; do not edit.",
        "",
        "All are environment variables, read at the start of a service; one that is empty counts as not set.",
        "`bootlink up` hands its own on to the services. A value that cannot be is refused at the start, and named.",
        "",
        "## Every service",
        *_table(_rows(_shared(), ServiceSettings, StoreSettings, ClusterSettings)),
        "| `BOOTLINK_<SERVICE>_HEALTH_HOST` | `127.0.0.1` | address of /healthz, /readyz and /metrics |",
        "| `BOOTLINK_<SERVICE>_HEALTH_PORT` | `0` | port of /healthz, /readyz and /metrics; 0: any free one |",
    ]
    for service, settings in SERVICES.items():
        own = set(settings.model_fields) - _shared() - set(OF_EACH)
        lines += ["", f"## {service}", *_table(_rows(own, settings))]
    lines += ["", "## bootlink up", *_table(_rows(OF_UP, UpSettings))]
    lines += ["", "## The other commands of bootlink", *_table(f"| `{n}` | {d} | {m} |" for n, d, m in COMMAND)]
    return "\n".join(lines) + "\n"


def variable(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """The environment variable of a field; the first where there are several."""
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return f"{settings.model_config['env_prefix']}{name}".upper()


def _shared() -> set[str]:
    """The fields of more than one service that have one variable for all."""
    bases = (ServiceSettings, StoreSettings, ClusterSettings)
    return {name for base in bases for name in base.model_fields} - set(OF_EACH)


def _rows(wanted: set[str], *settings: type[BaseSettings]) -> list[str]:
    rows = {}
    for one in settings:
        for name, field in one.model_fields.items():
            if name in wanted:
                also = _also(one, field)
                what = f"{field.description or ''}{_choices(field)}{also}"
                rows[name] = f"| `{variable(one, name, field)}` | {_default(field)} | {what} |"
    return list(rows.values())


def _also(settings: type[BaseSettings], field: FieldInfo) -> str:
    """The variable of another service that counts where this one is not set."""
    if settings is not DhcpSettings or not isinstance(field.validation_alias, AliasChoices):
        return ""
    others = [str(choice) for choice in field.validation_alias.choices[1:] if str(choice).startswith("BOOTLINK_")]
    return "".join(f"; where it is not set, `{other}` counts" for other in others)


def _choices(field: FieldInfo) -> str:
    """The values that there are, where the description does not tell them itself."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    told = field.description or ""
    return f" ({', '.join(map(str, choices))})" if not all(f"{one}:" in told for one in choices) else ""


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "this machine's name"  # node
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, ByteSize):
        return f"`{value.human_readable().replace('.0', '')}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _table(rows: Iterable[str]) -> list[str]:
    return ["| variable | default | what |", "|---|---|---|", *rows]


if __name__ == "__main__":
    PAGE.write_text(page())
