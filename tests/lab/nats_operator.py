"""What a nats-server with an operator wants: JWTs that the operator and the account have signed, and a `.creds` file.

The claims are NATS' own (github.com/nats-io/jwt, version 2), the least that a server takes.
"""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any, Final

import nkeys

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
_FOR_EVER: Final = -1


def signed_by(operator: nkeys.KeyPair, subject: str, name: str, claims: dict[str, Any]) -> str:
    """A JWT of this issuer about this subject's public key."""
    told = {
        "iss": operator.public_key.decode(),
        "sub": subject,
        "name": name,
        "iat": int(time.time()),
        "nats": claims | {"version": 2},
    }
    said = f"{_base64(json.dumps(_HEADER).encode())}.{_base64(json.dumps(told).encode())}"
    return f"{said}.{_base64(operator.sign(said.encode()))}"


class Operator:
    """An operator with one account, which may use JetStream, and one user of it."""

    def __init__(self) -> None:
        operator = _key(nkeys.PREFIX_BYTE_OPERATOR)
        account = _key(nkeys.PREFIX_BYTE_ACCOUNT)
        system = _key(nkeys.PREFIX_BYTE_ACCOUNT).public_key.decode()
        user = _key(nkeys.PREFIX_BYTE_USER)
        self.system = system
        self.jwt = signed_by(
            operator, operator.public_key.decode(), "lab", {"type": "operator", "system_account": system}
        )
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), _FOR_EVER)
        on_disk = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), _FOR_EVER)
        self.accounts = {
            key: signed_by(operator, key, "account", {"type": "account", "limits": limits | stored})
            for key, stored in ((account.public_key.decode(), on_disk), (system, {}))
        }
        permitted = {"type": "user", "subs": _FOR_EVER, "data": _FOR_EVER, "payload": _FOR_EVER, "pub": {}, "sub": {}}
        user_jwt = signed_by(account, user.public_key.decode(), "service", permitted)
        self.creds = (
            f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )

    def configuration(self) -> dict[str, Any]:
        """The server's part of it."""
        return {
            "operator": self.jwt,
            "resolver": "MEMORY",
            "system_account": self.system,
            "resolver_preload": self.accounts,
        }


def _key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def _base64(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")
