"""Two network namespaces of a test's own, joined by a virtual cable; gone when the test ends."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def tool(name: str, package: str) -> str:
    """The path of a program that a test needs. A missing one is a failure that says what to install."""
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing: apt-get install {package}")
    return found


class Cable:
    """Namespaces `server` and `client`; in each, one card of the same name, cabled together."""

    def __init__(self, *, server_address: str = "10.77.0.1/24", client_address: str = "") -> None:
        unique = f"{os.getpid()}-{next(_numbers)}"
        self.server, self.client = f"bl-{unique}-s", f"bl-{unique}-c"
        self.server_card, self.client_card = "lan0", "pc0"
        self._server_address = server_address
        self._client_address = client_address  # none: of PCs that have yet to ask for theirs

    def __enter__(self) -> Cable:
        if os.geteuid() != 0:
            raise RuntimeError("network namespaces need root: run the tests as root")
        try:
            self._ip("netns", "add", self.server)
            self._ip("netns", "add", self.client)
            self._ip(
                "link", "add", self.server_card, "netns", self.server, "type", "veth",
                "peer", "name", self.client_card, "netns", self.client,
            )  # fmt: skip
            if self._server_address:
                self._ip("-n", self.server, "addr", "add", self._server_address, "dev", self.server_card)
            if self._client_address:
                self._ip("-n", self.client, "addr", "add", self._client_address, "dev", self.client_card)
            for namespace, card in ((self.server, self.server_card), (self.client, self.client_card)):
                self._ip("-n", namespace, "link", "set", "lo", "up")
                self._ip("-n", namespace, "link", "set", card, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)

    def _ip(self, *arguments: str) -> None:
        done = subprocess.run([tool("ip", "iproute2"), *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    @staticmethod
    def inside(namespace: str, *command: str) -> list[str]:
        """The command line that runs `command` in the namespace."""
        return [tool("ip", "iproute2"), "netns", "exec", namespace, *command]


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Sockets that this thread opens inside the block belong to the namespace, and stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(Path("/run/netns") / namespace, os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        try:
            yield
        finally:
            if libc.setns(home, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot come back")
    finally:
        os.close(home)
        os.close(there)
