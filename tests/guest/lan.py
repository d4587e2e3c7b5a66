"""The boot LAN: a bridge in a network namespace of its own, so that nothing of it meets the host's network.

    with Lan() as lan:
        lan.command("dnsmasq", ...)     # the argument list that runs a program inside
        lan.tap()                       # a cable for one PC

The bridge stands for the server's network card. Needs root; everything goes away with the `with` block, provided that
the programs inside have ended.
"""

import contextlib
import itertools
import os
from ipaddress import IPv4Interface
from types import TracebackType

from guest.toolbox import BuildError, run

_numbers = itertools.count(1)


class Lan:
    """A namespace with `lo` up and one bridge that has the server's address; interfaces are named alike in each."""

    BRIDGE = "br0"

    def __init__(self, address: str = "10.77.0.1/24") -> None:
        self.address = IPv4Interface(address)
        self.namespace = f"bl-{os.getpid()}-{next(_numbers)}"  # the pid keeps concurrent test runs apart
        self._taps = itertools.count()

    def __enter__(self) -> "Lan":
        if os.geteuid() != 0:
            raise BuildError("a network namespace needs root: run this as root")
        run("ip", "netns", "add", self.namespace)
        try:
            self._ip("link", "set", "lo", "up")
            # Without STP a port forwards at once; PCs do not wait 30 s for their first DISCOVER to pass.
            self._ip("link", "add", self.BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0")
            self._ip("address", "add", str(self.address), "dev", self.BRIDGE)
            self._ip("link", "set", self.BRIDGE, "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the namespace and, with it, every interface inside."""
        with contextlib.suppress(BuildError):
            run("ip", "netns", "delete", self.namespace)

    def also(self, address: str) -> None:
        """Give the bridge one more address, such as 10.77.0.2/24."""
        self._ip("address", "add", address, "dev", self.BRIDGE)

    def tap(self) -> str:
        """A new tap interface on the bridge, for one PC; returns its name."""
        name = f"tap{next(self._taps)}"
        self._ip("tuntap", "add", name, "mode", "tap")
        self._ip("link", "set", name, "master", self.BRIDGE, "up")
        return name

    def command(self, *argv: str) -> list[str]:
        """The argument list that runs `argv` on this LAN. The process started *is* `argv`: `ip` execs it."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def _ip(self, *arguments: str) -> None:
        run("ip", "-netns", self.namespace, *arguments)
