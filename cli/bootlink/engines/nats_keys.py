"""The keys that NATS knows its users by, and the part of a server's configuration that follows from them.

A folder holds one file for each of ours, `<name>.nk`, and below `integrations` one for each integration. A file is an
nkey's seed, for whoever is that user alone. A server is told the public halves, so its configuration is no secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bootlink_events.access import ANSWER_SECONDS, INTEGRATION_REQUESTS, ROLES, Permissions, integration, permissions
from bootlink_events.subjects import ALL_EVENTS
from bootlink_runtime import StartupError
from bootlink_runtime.access import INBOX, new_key, public_key_of

ACCOUNT: Final = "BOOTLINK"
INTEGRATIONS: Final = "INTEGRATIONS"
FIRST_INTEGRATION: Final = "reader"  # made with the others, so that there is one to begin with
SUFFIX: Final = ".nk"
CONSUMERS_LIMIT: Final = 1_000
"""Consumers of one stream, which who only reads events may make, too: some megabytes of the server's memory. Of ours
each service on each node has one for a bucket; those of events are there already when a reader comes."""
_FOLDER: Final = "integrations"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class NatsKeys:
    """The keys in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make what is missing; what is there stays. StartupError if the folder cannot be written."""
        for role in ROLES:
            self._make(self.file(role))
        if not any(self._integrations()):
            self._make(self.integration_file(FIRST_INTEGRATION))

    def add_integration(self, name: str) -> Path:
        """A key for one more integration, if it has none yet. StartupError for a name that cannot be one."""
        if not _NAME.fullmatch(name):
            raise StartupError(f"{name!r} is no name of an integration", "use a-z, 0-9 and dashes, up to 40")
        return self._make(self.integration_file(name))

    def file(self, role: str) -> Path:
        return self.folder / f"{role}{SUFFIX}"

    def integration_file(self, name: str) -> Path:
        return self.folder / _FOLDER / f"{name}{SUFFIX}"

    def accounts(self) -> dict[str, Any]:
        """The section `accounts` of a server's configuration. StartupError if a key is missing or cannot be read."""
        return accounts(
            {role: public_key(self.file(role)) for role in ROLES},
            [public_key(self.integration_file(name)) for name in self._integrations()],
        )

    def _integrations(self) -> list[str]:
        return sorted(file.stem for file in (self.folder / _FOLDER).glob(f"*{SUFFIX}"))

    def _make(self, file: Path) -> Path:
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return file
        except OSError as error:
            raise StartupError(f"{file} cannot be made ({error.strerror})", "choose another folder") from error
        with os.fdopen(descriptor, "w") as out:
            out.write(new_key() + "\n")
        return file


def accounts(ours: Mapping[str, str], integrations: list[str]) -> dict[str, Any]:
    """The section `accounts` for these public keys: of each of ROLES, and of integrations."""
    inboxes = [f"{INBOX}.{key}.>" for key in integrations]
    # The events themselves, and what consumers that integrations make deliver to their inboxes.
    heard = [ALL_EVENTS, *inboxes]
    return {
        ACCOUNT: {
            "jetstream": {"max_consumers": CONSUMERS_LIMIT},
            "users": [_user(key, permissions(role, f"{INBOX}.{key}")) for role, key in ours.items()],
            "exports": [
                *({"stream": subject, "accounts": [INTEGRATIONS]} for subject in heard),
                *(
                    {"service": subject, "accounts": [INTEGRATIONS], "response_type": "stream"}
                    for subject in INTEGRATION_REQUESTS
                ),
            ],
        },
        INTEGRATIONS: {
            "users": [_user(key, integration(f"{INBOX}.{key}")) for key in integrations],
            "imports": [
                *({"stream": {"account": ACCOUNT, "subject": subject}} for subject in heard),
                *({"service": {"account": ACCOUNT, "subject": subject}} for subject in INTEGRATION_REQUESTS),
            ],
        },
    }


def _user(key: str, may: Permissions) -> dict[str, Any]:
    publish: dict[str, Any] = {"allow": list(may.publish)}
    if may.never_publish:
        publish["deny"] = list(may.never_publish)
    told: dict[str, Any] = {"publish": publish, "subscribe": {"allow": list(may.subscribe)}}
    if may.answers:
        told["allow_responses"] = {"max": 1, "expires": f"{ANSWER_SECONDS}s"}
    return {"nkey": key, "permissions": told}


def public_key(file: Path) -> str:
    """What a server is told of the key in this file. StartupError if it cannot be read, or is none."""
    try:
        return public_key_of(file.read_text().strip())
    except (OSError, ValueError) as error:
        raise StartupError(f"the key {file} cannot be read ({error})", "run as its owner, or make it anew") from error
