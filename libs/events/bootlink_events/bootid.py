"""The boot id: one number for one power-on of one client.

A boot id is a UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix time in milliseconds, then random bits. It has
four jobs, and each rests on one property:

- *identity*: 74 random bits, so two services that mint at once do not meet;
- *trace id*: its 128 bits are the OpenTelemetry trace id as they stand, so no lookup joins the two;
- *fencing token*: it is ordered in time, so of two boot ids of one client the greater is the newer boot. A clock
  that jumps backwards must not break that: `mint` takes the client's former id and always returns a greater one;
- *name of the write-back*: it is safe in a file name, a URL, an IQN and a NATS subject.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final
from uuid import RFC_4122, UUID

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_RANDOM_BITS: Final = 74  # 12 bits of rand_a and 62 of rand_b
_SPAN_ID_MASK: Final = (1 << 64) - 1


class BootId(UUID):
    """A UUIDv7 that names one boot. Compares in time order."""

    __slots__ = ()

    @classmethod
    def mint(cls, *, now_ms: int | None = None, after: BootId | None = None) -> BootId:
        """A new boot id for the time `now_ms` (Unix milliseconds, default now), always greater than `after`."""
        timestamp_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        if after is not None:
            timestamp_ms = max(timestamp_ms, after.timestamp_ms + 1)
        random = secrets.randbits(_RANDOM_BITS)
        rand_a, rand_b = random >> 62, random & ((1 << 62) - 1)
        return cls(int=timestamp_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)

    @classmethod
    def parse(cls, text: str) -> BootId:
        """Read a boot id as it stands in a URL, an IQN or a file name. ValueError if it is not a UUIDv7."""
        boot_id = cls(text)
        if boot_id.variant != RFC_4122 or boot_id.version != 7:
            raise ValueError(f"{text} is a UUID, but not a version 7 one, so it is no boot id")
        return boot_id

    @property
    def timestamp_ms(self) -> int:
        """When the boot began, in Unix milliseconds by the clock of the service that minted the id."""
        return self.int >> 80

    @property
    def trace_id(self) -> int:
        """The OpenTelemetry trace id of this boot: the same 128 bits."""
        return self.int

    @property
    def root_span_id(self) -> int:
        """The span id of the boot's root span, which every service can name without asking: the low 64 bits.

        Never 0, which OpenTelemetry holds for invalid: the UUID's variant bits are among them.
        """
        return self.int & _SPAN_ID_MASK

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any) -> BootId:
            if isinstance(value, BootId):
                return value
            return cls.parse(str(value))

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": "uuid", "description": "UUIDv7 of the boot; also its trace id"}
