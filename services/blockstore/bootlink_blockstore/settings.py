"""Settings of the block store."""

from __future__ import annotations

from typing import Final

from pydantic import ByteSize, Field
from pydantic_settings import SettingsConfigDict

from bootlink_runtime import ClusterSettings

PORT: Final = 3260  # RFC 7143, section 15: iSCSI's registered port


class Settings(ClusterSettings):
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
    reclaim_after: float = Field(
        default=600.0, ge=0, description="seconds from the next boot until a discarded write-back gives its space back"
    )
    writeback_limit: ByteSize = Field(
        default=ByteSize(10 << 30), ge=0, description="what one client may write, such as 10GiB; 0: no limit"
    )
    space_reserve: ByteSize = Field(
        default=ByteSize(2 << 30),
        ge=0,
        description="free space below which `writeback.pressure` is told and discarded write-backs go at once",
    )
