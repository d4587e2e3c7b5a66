"""What all of a session stands on: its output, its numbers and its tasks (RFC 7143, section 4.2.2).

CmdSN orders commands; MaxCmdSN grows by one when a command ends, so at most WINDOW of them are open, and it never
shrinks. StatSN numbers the responses; R2T and Data-In without status carry it and do not use it up.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypedDict

from bootlink_blockstore.chap import Chap
from bootlink_blockstore.image import Buffer
from bootlink_blockstore.login import Admission, Parameters
from bootlink_blockstore.scsi.device import LogicalUnit, Nexus, Outcome
from bootlink_blockstore.transfer import Task
from bootlink_wire import iscsi_codes as codes
from bootlink_wire.iscsi_codes import NO_TAG

WINDOW: Final = 64  # commands: iPXE has 1 open, open-iscsi 32 by default, Windows 255 but follows MaxCmdSN
MASK: Final = 0xFFFFFFFF


class Host(Protocol):
    """What a session's user does for it."""

    def start(self, task: Task, running: Coroutine[Any, Any, Outcome]) -> None:
        """Run this, and call `finish(task, outcome)`. Always, also when the session has ended meanwhile."""

    def authenticate(self, admission: Admission) -> Chap | None:
        """What this initiator must prove before it may enter; None if nothing. Refusal if it may not in any case."""

    def unproven(self, admission: Admission, why: str) -> None:
        """This login was refused in the middle of the proof that was asked for."""

    def targets(self, initiator: str) -> list[tuple[str, str]]:
        """The targets that this initiator may open: name and address, each."""

    def wake(self) -> None:
        """There is output that no call of `receive` or `finish` on this session has made."""


class Numbers(TypedDict):
    """What every response carries."""

    statsn: int
    expcmdsn: int
    maxcmdsn: int


class Sequence:
    """Output, numbers, tasks. `on_error` is called with the name of each thing that a peer did wrong."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        self.host = host
        self.out: list[Buffer] = []
        self.closing = ""  # why it ended; its output is to be sent first
        self.admission: Admission | None = None
        self.parameters = Parameters()
        self.units: dict[int, LogicalUnit] = {}
        self.nexuses: dict[int, Nexus] = {}
        self.tasks: dict[int, Task] = {}
        self.now = 0.0
        self._on_error = on_error
        self._exp_cmdsn = 0
        self._max_cmdsn = 0
        self._skipped: set[int] = set()  # CmdSNs that an abort declared as received; at most WINDOW
        self._statsn = 0
        self._ttt = 0

    def _numbers(self, *, use: bool = True) -> Numbers:
        """StatSN, ExpCmdSN and MaxCmdSN of a response that uses a StatSN up, or does not."""
        statsn = self._statsn
        if use:
            self._statsn = statsn + 1 & MASK
        return {"statsn": statsn, "expcmdsn": self._exp_cmdsn, "maxcmdsn": self._max_cmdsn}

    def _next_tag(self) -> int:
        self._ttt = (self._ttt + 1) % NO_TAG
        return self._ttt

    def _ended(self, header: bytes) -> None:
        """A command that is no SCSI task was answered: its place in the window is free."""
        if not header[0] & codes.IMMEDIATE:
            self._max_cmdsn = self._max_cmdsn + 1 & MASK

    def _advance(self) -> None:
        """The command in turn was received."""
        self._exp_cmdsn = self._exp_cmdsn + 1 & MASK
        while self._exp_cmdsn in self._skipped:
            self._skipped.discard(self._exp_cmdsn)
            self._exp_cmdsn = self._exp_cmdsn + 1 & MASK
            self._max_cmdsn = self._max_cmdsn + 1 & MASK

    def _out_of_order(self) -> None:
        """The next number is not simply the next command's: whoever takes a short cut must not, for now."""

    def _admission_due(self) -> Admission:
        assert self.admission is not None
        return self.admission
