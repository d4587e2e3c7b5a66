"""The data folder: everything that `up` and its children write is below it, and one `up` at a time has it.

The lock is an flock(2) on `up.lock`, whose descriptor the children inherit. So it is free only when the last of them
has ended: an `up` that follows a killed one never starts a second PostgreSQL on the same cluster.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bootlink_runtime import StartupError

LEFTOVER_SECONDS: Final = 30.0  # given to the children of a killed `up` to end; PostgreSQL writes a checkpoint
SECRET_BYTES: Final = 32  # of the cluster key and the administrator's token: as long as the hash each goes into
_LOOK_SECONDS: Final = 0.1


@contextmanager
def locked(data: Path) -> Iterator[int]:
    """Make the folder and hold its lock; yields the descriptor to hand on. StartupError if another `up` has it."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StartupError(
            f"the data folder {data} cannot be used ({error.strerror})", "choose another with --data, or run as root"
        ) from error
    try:
        _acquire(descriptor, data)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def keep_secret(path: Path, *, instead: str) -> None:
    """Make a secret, where it is not there yet: for the owner's eyes alone. StartupError if it cannot be.

    It stays as it is from then on: with another cluster key no running boot could prove itself any more. `instead` is
    the variable by which the user may give one of his own.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise StartupError(f"{path} cannot be made ({error.strerror})", f"set {instead}, or correct --data") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(SECRET_BYTES) + "\n")


def _acquire(descriptor: int, data: Path) -> None:
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            if holder != os.getpid() and _alive(holder):
                raise StartupError(
                    f"another `bootlink up` (process {holder}) is using {data}",
                    f"stop it (kill {holder}), or give this one a folder of its own with --data",
                ) from None
            if time.monotonic() > deadline:
                raise StartupError(
                    f"processes of a former `bootlink up` are still using {data}",
                    f"`fuser -v {data / 'up.lock'}` names them; stop them",
                ) from None
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _holder(descriptor: int) -> int | None:
    text = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else None


def _alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
