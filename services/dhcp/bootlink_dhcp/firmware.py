"""What was learned about each PC's firmware, from boot to boot: which loaders never came up on it, and which shape of
a proxy's offer it takes.

Theory of operation. A loader is on trial in every boot. A boot that was given a loader, and acknowledged, and whose
iPXE then never asked for its script, has failed; `PATIENCE` such boots in a row, and the next candidate is on trial
for this PC. A boot that reaches its script clears the count. After the last candidate comes the first again, since a
boot that fails for another reason (a cable, the TFTP port) must not end with nothing to offer. Where the candidates
are others than before, or the file of one has changed, the trial begins anew.

The shape of a proxy's offer (`Shape`) is learned in the same way, but faster, because firmware that rejects an offer
asks again within seconds: see `proxy`. A shape that has led to a script once is only given up by failed boots.

State is one small record per PC that differs from a fresh one, at most `MAX_CLIENTS`, the one unused for longest
dropped first, but those that belong here (`belongs`) last of all: what is lost is learned again, at the price of lost
boots. Every change is handed to `record`, and `restore` reads it back. No I/O,
no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from bootlink_dhcp.forgetting import Belongs, forgotten, nobody

Record = Callable[[str, Mapping[str, Any] | None], None]

PATIENCE: Final = 3
"""Failed boots until a loader is set aside, unless a setting says otherwise: one is a reset or a pulled cable."""
MAX_CLIENTS: Final = 16_384  # as many as the tracker remembers


class Shape(StrEnum):
    """How a proxy's offer names the boot file (FIELD section 4: no shape is right for all)."""

    FILE = "file"  # in the offer itself, with option 43.6 = 8: what EDK2 wants
    BINL = "binl"  # not at all: no option 43, and the firmware asks port 4011 for it

    @property
    def other(self) -> Shape:
        return Shape.BINL if self is Shape.FILE else Shape.FILE


@dataclass(frozen=True, slots=True)
class Firmware:
    """One PC's."""

    among: tuple[str, ...] = ()  # the candidates, when one of them last failed
    at: int = 0  # which of these is on trial
    failed: int = 0  # boots in a row that were given it and did not reach their script
    shape: Shape = Shape.FILE
    proved: bool = False  # a boot with this shape reached its script


@dataclass(frozen=True, slots=True)
class LoaderChange:
    """A PC is given another loader than before, because the former one never came up."""

    former: str
    loader: str
    boots: int


FRESH: Final = Firmware()


class FirmwareMemory:
    """All PCs' firmware. Not for use by several threads."""

    def __init__(
        self, record: Record, *, patience: int = PATIENCE, max_clients: int = MAX_CLIENTS, belongs: Belongs = nobody
    ) -> None:
        self._record = record
        self._belongs = belongs
        self._patience = patience
        self._max_clients = max_clients
        self._known: OrderedDict[str, Firmware] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._known)

    def of(self, mac: str) -> Firmware:
        """What is known of this PC."""
        return self._known.get(mac, FRESH)

    def choose(self, mac: str, candidates: Sequence[str]) -> str | None:
        """The loader for this PC: the one on trial, or the first where these are other candidates than before."""
        known = self.of(mac)
        if known.among == tuple(candidates):
            return candidates[known.at] if candidates else None
        return candidates[0] if candidates else None

    def came_up(self, mac: str) -> None:
        """A boot reached its script: what it was given is right for this PC."""
        self._put(mac, replace(self.of(mac), failed=0, proved=True))

    def boot_lost(self, mac: str, candidates: Sequence[str]) -> LoaderChange | None:
        """A boot was given its loader and did not reach its script. Returns the next one's, if it is another."""
        loader = self.choose(mac, candidates)
        if loader is None:
            return None
        known = self.of(mac)
        if known.among != tuple(candidates):
            known = replace(known, among=tuple(candidates), at=0, failed=0)
        if known.failed + 1 < self._patience or len(candidates) < 2:
            self._put(mac, replace(known, failed=known.failed + 1))
            return None
        known = replace(known, at=(known.at + 1) % len(candidates), failed=0, proved=False)
        self._put(mac, known)
        return LoaderChange(loader, candidates[known.at], self._patience)

    def reshape(self, mac: str) -> Shape:
        """This PC has rejected the shape of our offer: the other one from now on."""
        known = self.of(mac)
        shape = known.shape.other
        self._put(mac, replace(known, shape=shape, proved=False))
        return shape

    def changed(self, loaders: Collection[str]) -> None:
        """These loaders' files have changed: they are tried anew."""
        for mac, known in list(self._known.items()):
            if any(name in loaders for name in known.among):
                self._put(mac, replace(known, among=(), at=0, failed=0))

    def restore(self, records: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        """Take up what `record` was given before a restart, oldest first. Returns how many could not be read."""
        unreadable = 0
        for mac, value in records:
            try:
                self._known[mac] = Firmware(
                    among := tuple(str(name) for name in value["among"]),
                    min(int(value["at"]), max(len(among) - 1, 0)),
                    int(value["failed"]),
                    Shape(value["shape"]),
                    bool(value["proved"]),
                )
            except (KeyError, ValueError, TypeError):
                unreadable += 1
        self._shrink()
        return unreadable

    def _put(self, mac: str, known: Firmware) -> None:
        if known == self.of(mac):
            if mac in self._known:
                self._known.move_to_end(mac)
            return
        if known == FRESH:
            del self._known[mac]
            self._record(mac, None)
            return
        self._known[mac] = known
        self._known.move_to_end(mac)
        self._record(
            mac,
            {
                "among": list(known.among),
                "at": known.at,
                "failed": known.failed,
                "shape": known.shape.value,
                "proved": known.proved,
            },
        )
        self._shrink()

    def _shrink(self) -> None:
        while len(self._known) > self._max_clients:
            mac = forgotten(self._known, self._belongs)
            del self._known[mac]
            self._record(mac, None)
