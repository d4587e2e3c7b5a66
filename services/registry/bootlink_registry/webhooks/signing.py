"""The signature of a webhook, as Standard Webhooks 1.0 has it: HMAC-SHA256 over id, time and body, in Base64.

    webhook-id         the event's id: the same at each repeat
    webhook-timestamp  seconds since 1970, of this attempt; a receiver refuses one that is minutes old
    webhook-signature  v1,<Base64>, and a second one behind a blank while a former secret holds, too

A secret is `whsec_` and the Base64 of its bytes. It is kept as it is: a hash could not sign.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32  # random ones, of a secret that we make
SECRET_BYTES_MIN: Final = 24  # of one that is given; Standard Webhooks asks for 24 to 64
SECRET_BYTES_MAX: Final = 64
SECRET_PATTERN: Final = r"^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"


def new_secret() -> str:
    """A secret that nobody can guess."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_secret(text: str) -> str:
    """`text` itself if it is a secret. ValueError says what is wrong, and nothing of the secret."""
    if not SECRET_BYTES_MIN <= len(_key(text)) <= SECRET_BYTES_MAX:
        raise ValueError(f"a webhook's secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")
    return text


def signed(event_id: str, at: datetime, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """The three headers, signed with each of these secrets."""
    timestamp = str(int(at.timestamp()))
    message = b".".join((event_id.encode(), timestamp.encode(), body))
    return {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{_signature(_key(secret), message)}" for secret in keys),
    }


def _signature(key: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


def _key(secret: str) -> bytes:
    try:
        if not secret.startswith(PREFIX):
            raise ValueError("no prefix")
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"a webhook's secret is {PREFIX} and the Base64 of its bytes") from None
