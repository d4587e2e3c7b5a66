"""CHAP secrets of one boot, derived and never stored (DESIGN, section 3).

`tftp` writes them into the PC's script, `blockstore` asks for them at the login. Both derive them from the cluster key
that they share, so nothing is looked up and nothing is kept, and a secret dies with its boot:

    secret = first 16 characters of base64(HMAC-SHA-256(cluster key, purpose NUL client token NUL boot id))

with Z for + and z for /, as an iPXE script takes letters and digits best. 16 characters, because Microsoft's initiator
takes 12 to 16 bytes; they carry 95 bits. The client's MAC address is in there, so that the secret of one client's boot
opens no other client's disk under the same boot id. The two purposes give secrets that differ, as RFC 7143 (section
12.1.3) wants it of both directions.

Neither a key nor a secret shows in a `repr`, so that no log line and no traceback gives one away.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field
from typing import Final

from bootlink_events.bootid import BootId
from bootlink_events.names import mac_token

SECRET_SIZE: Final = 16  # characters; Microsoft's initiator takes 12 to 16
KEY_SIZE_MIN: Final = 16  # bytes of a cluster key: 128 bits, if they are random
TARGET_USER: Final = "bootlink"  # the name that a block store goes by where a client asks it for a proof


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one boot of one client logs in with, and what proves the block store to it."""

    user: str
    secret: str = field(repr=False)
    target_user: str
    target_secret: str = field(repr=False)


class ClusterKey:
    """The key that the services of one cluster share."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """ValueError if it is too short to be a key."""
        if len(key) < KEY_SIZE_MIN:
            raise ValueError(f"a cluster key has {KEY_SIZE_MIN} bytes or more")
        self._key = key

    def credentials(self, mac: str, boot_id: BootId) -> Credentials:
        """Of one boot of one client."""
        return Credentials(
            user=mac_token(mac),
            secret=self._derive(mac, boot_id, "chap initiator"),
            target_user=TARGET_USER,
            target_secret=self._derive(mac, boot_id, "chap target"),
        )

    def _derive(self, mac: str, boot_id: BootId, purpose: str) -> str:
        message = f"{purpose}\0{mac_token(mac)}\0{boot_id}".encode()
        return base64.b64encode(hmac.digest(self._key, message, "sha256"), b"Zz")[:SECRET_SIZE].decode()
