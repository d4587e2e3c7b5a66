"""Settings of the block store."""

from __future__ import annotations

from typing import Final

from pydantic import ByteSize, Field
from pydantic_settings import SettingsConfigDict

from bootlink_runtime import ClusterSettings
from bootlink_runtime.settings import StoreSettings

PORT: Final = 3260  # RFC 7143, section 15: iSCSI's registered port


class Settings(ClusterSettings, StoreSettings):
    """Read from BOOTLINK_BLOCKSTORE_* in the environment."""

    model_config = SettingsConfigDict(env_prefix="BOOTLINK_BLOCKSTORE_")

    host: str = Field(default="0.0.0.0", description="address that the iSCSI portal listens on")
    port: int = Field(default=PORT, ge=0, le=65535, description="port of the iSCSI portal; 0: any free one")
    advertise: str = Field(
        default="", description="address that clients reach this node at; empty: the one it listens on, or the first"
    )
    cache: ByteSize = Field(default=ByteSize(1 << 30), ge=1 << 20, description="RAM for image blocks, such as 8GiB")
    require_boot_id: bool = Field(
        default=False,
        description="refuse initiator names that carry no boot id of the client whose disk they ask for, such as other "
        "tools have; where links ask for CHAP they are refused in any case",
    )
    undo_count: int = Field(
        default=2, ge=0, description="discarded boots of each client that can be brought back; 0: none"
    )
    undo_age: float = Field(
        default=86_400.0,
        ge=0,
        description="seconds from the next boot during which a discarded one can be brought back",
    )
    undo_space: ByteSize = Field(
        default=ByteSize(50 << 30),
        ge=0,
        description="what all discarded write-backs may take together, such as 50GiB; the oldest go first",
    )
    writeback_limit: ByteSize = Field(
        default=ByteSize(10 << 30), ge=0, description="what one client may write, such as 10GiB; 0: no limit"
    )
    space_reserve: ByteSize = Field(
        default=ByteSize(2 << 30),
        ge=0,
        description="free space below which `writeback.pressure` is told and discarded write-backs go at once",
    )
