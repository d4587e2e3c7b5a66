"""Landlock: which files this process, and all that it starts, may still open. Linux 5.13 and later.

How it works. A ruleset names kinds of access; from the moment it is applied each of them is denied, except below the
paths that rules name. It can only be narrowed afterwards. Files that are open already stay so. Without Landlock in the
kernel nothing happens, and `restrict` says so: it is a second line, behind checks that do not depend on it.

Source: linux/landlock.h, landlock(7). The numbers of its system calls are the same on all architectures.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
_CHANGE_DIR: Final = sum(1 << bit for bit in range(4, 13))  # make and remove files, folders, links, devices
_TRUNCATE: Final = 1 << 14  # since its version 3

READ: Final = EXECUTE | READ_FILE | READ_DIR
WRITE: Final = WRITE_FILE | _CHANGE_DIR | _TRUNCATE

_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE  # what a rule for a file, and no folder, may allow
_TRUNCATE_SINCE: Final = 3

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Of the kernel's Landlock; 0 without one."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))))


def restrict(denied: int, allowed: Iterable[tuple[Path, int]]) -> bool:
    """Deny these kinds of access, except below paths for which they are allowed; paths that are not there count not.

    False if the kernel has no Landlock. The process must have given up gaining privileges (PR_SET_NO_NEW_PRIVS), or
    be root. Only while there is one thread: it is this one that is restricted.
    """
    known = version()
    if not known:
        return False
    if known < _TRUNCATE_SINCE:
        denied &= ~_TRUNCATE
    attributes = ctypes.create_string_buffer(struct.pack("=Q", denied), 8)
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(8), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        for path, access in allowed:
            with suppress(FileNotFoundError):
                _allow(ruleset, path, access & denied)
        return int(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            access &= _OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, fd), 12)
        if access and _libc.syscall(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)
        ):
            raise OSError(ctypes.get_errno(), f"Landlock takes no rule for {path}")
    finally:
        os.close(fd)
