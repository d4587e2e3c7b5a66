"""Where the command finds the system it speaks to."""

from __future__ import annotations

from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

API_TIMEOUT: Final = 60.0  # seconds; adding an image reads its structure and may wait for a slow disk


class CommandSettings(BaseSettings):
    """Environment: BOOTLINK_API and BOOTLINK_NATS_URL."""

    model_config = SettingsConfigDict(env_prefix="BOOTLINK_", extra="ignore", env_ignore_empty=True)

    api: str = Field(default="http://127.0.0.1:8600", description="the registry's HTTP API")
    nats_url: str = Field(default="nats://127.0.0.1:4222", description="the NATS server")
