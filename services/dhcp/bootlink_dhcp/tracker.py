"""The boot tracker: which boot does this DHCP packet belong to? Mints the boot ids.

Theory of operation. A client's boot passes DHCP twice: its firmware asks and is given our loader, then the loader
(iPXE) asks and is given the script. Nothing in the packets ties these together, and everything may be repeated or
lost; so the tracker keeps one state per client and decides at each DISCOVER what it is:

    repeat   the same exchange again: same boot id, same answer
    second   our loader asking for its script: same boot id, next pass
    new      a power-on: a boot id is minted, greater than the client's former one

A client moves through four phases; each holds for a limited time (`WINDOW`), after which a DISCOVER is always
`new`:

    LOADER_OFFERED --ACK--> LOADER_ACKED --iPXE's DISCOVER--> SCRIPT_OFFERED --ACK--> SCRIPT_ACKED

`DECISIONS` is the whole of it. Three things make it less simple than it looks:

- *iPXE may come first.* QEMU's PXE ROM, and that of many servers, is iPXE itself. It is given our loader all the
  same (it may be of any age), unless the asker says that there is no loader to chain. So "it is iPXE" does not mean
  second pass; "it is iPXE and its loader was acknowledged a moment ago" does.
- *The transaction id is a hint only.* iPXE and OVMF draw it at random, but gPXE and several vendors' ROMs take the
  low bytes of the MAC address: the same at every power-on. So an xid means "the same exchange" only from the same
  kind of asker, and after an ACK only for `DUPLICATE` seconds: a client that was answered has no reason to ask again.
- *The two mistakes are not equal.* A new id too many costs a trace cut in two and a second trip through the loader.
  The same id for two power-ons, once a disk was attached under it, would let yesterday's writes live on. No disk can be
  attached before the script was acknowledged; from then on everything is `new`, but for a copy made by the network.

Sequences that follow from the table, each a test: a ROM's iPXE whose loader did not arrive asks again, looks
like the second pass, and is given the script, which it can run; a PC with such a ROM that is reset between
loader and script keeps its id, which no disk has seen; a firmware that asks again after the loader's ACK is a
new boot.

State is one small record per client, at most `MAX_CLIENTS`; the one unused for longest is dropped first, but those
that belong here (`belongs`) last of all: made-up clients would else send a PC that loads iPXE back to its loader. Every
change is handed to `record`, which makes it last, and `restore` reads it back; a lost record costs one more
pass through the loader. `floor` remembers the greatest id among the dropped, so that even a forgotten client's
next id is greater although the clock went back. The tracker does no I/O; time is passed in, in seconds since
the epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

from bootlink_dhcp.forgetting import Belongs, forgotten, nobody
from bootlink_events import BootId

Pass = Literal["firmware", "ipxe"]
Record = Callable[[str, Mapping[str, Any] | None], None]

UNANSWERED: Final = 90.0
"""Seconds in which an exchange without ACK is still the same one: PXE backs off 4+8+16+32 s, OVMF up to 28 s."""
LOADING: Final = 120.0
"""Seconds from the loader's ACK to iPXE's DISCOVER: slow UEFI TFTP, iPXE's start, the link's (STP: 30 s)."""
DUPLICATE: Final = 2.0
"""Seconds after an ACK in which a DISCOVER of the same exchange is a late copy. No PC restarts, nor loads, faster."""
MAX_CLIENTS: Final = 16_384
"""Clients remembered at once, about 10 MB. More than a subnet has PCs; what exceeds it is an attack or a test."""

FLOOR_KEY: Final = "floor"


class Phase(StrEnum):
    """What this client was last told."""

    LOADER_OFFERED = "loader_offered"
    LOADER_ACKED = "loader_acked"
    SCRIPT_OFFERED = "script_offered"
    SCRIPT_ACKED = "script_acked"


class Decision(StrEnum):
    """What a DISCOVER is."""

    REPEAT = "repeat"
    SECOND = "second"
    NEW = "new"


WINDOW: Final[Mapping[Phase, float]] = {
    Phase.LOADER_OFFERED: UNANSWERED,
    Phase.LOADER_ACKED: LOADING,
    Phase.SCRIPT_OFFERED: UNANSWERED,
    Phase.SCRIPT_ACKED: DUPLICATE,
}

ACKED: Final[Mapping[Phase, Phase]] = {
    Phase.LOADER_OFFERED: Phase.LOADER_ACKED,
    Phase.LOADER_ACKED: Phase.LOADER_ACKED,
    Phase.SCRIPT_OFFERED: Phase.SCRIPT_ACKED,
    Phase.SCRIPT_ACKED: Phase.SCRIPT_ACKED,
}

PASS: Final[Mapping[Phase, Pass]] = {
    Phase.LOADER_OFFERED: "firmware",
    Phase.LOADER_ACKED: "firmware",
    Phase.SCRIPT_OFFERED: "ipxe",
    Phase.SCRIPT_ACKED: "ipxe",
}

SAME_FOR: Final[Mapping[Phase, float]] = {
    Phase.LOADER_OFFERED: UNANSWERED,
    Phase.LOADER_ACKED: DUPLICATE,
    Phase.SCRIPT_OFFERED: UNANSWERED,
    Phase.SCRIPT_ACKED: DUPLICATE,
}

# Who sends this DISCOVER: the `same` exchange as before, or another one of the firmware or of iPXE.
Asker = Literal["same", "firmware", "ipxe"]
DECISIONS: Final[Mapping[tuple[Phase, Asker], Decision]] = {
    (Phase.LOADER_OFFERED, "same"): Decision.REPEAT,
    (Phase.LOADER_OFFERED, "firmware"): Decision.REPEAT,  # some firmware draws a new xid for each try
    (Phase.LOADER_OFFERED, "ipxe"): Decision.REPEAT,
    (Phase.LOADER_ACKED, "same"): Decision.REPEAT,
    (Phase.LOADER_ACKED, "firmware"): Decision.NEW,
    (Phase.LOADER_ACKED, "ipxe"): Decision.SECOND,
    (Phase.SCRIPT_OFFERED, "same"): Decision.REPEAT,
    (Phase.SCRIPT_OFFERED, "firmware"): Decision.NEW,  # reset while iPXE was asking
    (Phase.SCRIPT_OFFERED, "ipxe"): Decision.REPEAT,
    (Phase.SCRIPT_ACKED, "same"): Decision.REPEAT,
    (Phase.SCRIPT_ACKED, "firmware"): Decision.NEW,
    (Phase.SCRIPT_ACKED, "ipxe"): Decision.NEW,
}


class Ask(NamedTuple):
    """Who asks: one client's DISCOVER or REQUEST."""

    client: str  # normalised MAC address
    xid: int
    ipxe: bool
    chain: bool  # an iPXE that comes first is to be given our loader
    offered_is_used: bool = False  # we only offer, and see no acknowledgement: a proxy's client


class BootPass(NamedTuple):
    """The boot that a packet belongs to, and which of its two passes."""

    boot_id: BootId
    phase: Phase
    began: float  # this pass's first DISCOVER
    minted: bool  # this packet begins the boot
    first_ack: bool = False  # this ACK is the pass's first; a repeated REQUEST gets the same answer again
    reached_script: bool = False  # this packet is the first that shows that the loader came up
    former_lost: bool = False  # the boot before this one, which begins here, was given a loader that never came up

    @property
    def pass_(self) -> Pass:
        """Whose exchange this is."""
        return PASS[self.phase]

    @property
    def gets_script(self) -> bool:
        """The second pass: the answer names the script, not the loader."""
        return self.phase in (Phase.SCRIPT_OFFERED, Phase.SCRIPT_ACKED)


class _State(NamedTuple):
    boot_id: BootId
    phase: Phase
    xid: int
    ipxe: bool
    began: float  # the pass's first DISCOVER
    at: float  # when the phase began; of an ACKED phase: the last ACK


class BootTracker:
    """One state per client. Not for use by several threads."""

    def __init__(self, record: Record, *, max_clients: int = MAX_CLIENTS, belongs: Belongs = nobody) -> None:
        self._record = record
        self._belongs = belongs
        self._max_clients = max_clients
        self._states: OrderedDict[str, _State] = OrderedDict()  # least recently used first
        self._floor: BootId | None = None

    def __len__(self) -> int:
        return len(self._states)

    def discovered(self, ask: Ask, now: float) -> BootPass:
        """A DISCOVER arrived: which boot it belongs to, after minting one if it begins here."""
        former = state = self._states.get(ask.client)
        decision = Decision.NEW
        if state is not None:
            age = now - state.at
            asker = _asker(state, ask, age, SAME_FOR[state.phase])
            decision = decide(state.phase, asker, age)
            if ask.offered_is_used and state.phase is Phase.SCRIPT_OFFERED and asker != "same":
                decision = Decision.NEW  # a disk may have been attached under this boot id
        if state is None or decision is Decision.NEW:
            state = self._begin(ask, now, state)
        elif decision is Decision.SECOND:
            state = _State(state.boot_id, Phase.SCRIPT_OFFERED, ask.xid, ask.ipxe, now, now)
        elif state.phase in (Phase.LOADER_OFFERED, Phase.SCRIPT_OFFERED):
            state = state._replace(xid=ask.xid, ipxe=ask.ipxe)
        # A repeat after the ACK changes nothing: going back a phase would mistake iPXE's DISCOVER for the ROM's.
        self._put(ask.client, state)
        minted = decision is Decision.NEW
        return BootPass(
            state.boot_id,
            state.phase,
            state.began,
            minted,
            reached_script=decision is Decision.SECOND,
            former_lost=minted and former is not None and former.phase is Phase.LOADER_ACKED,
        )

    def acknowledged(self, ask: Ask, now: float) -> BootPass:
        """We are about to send the ACK of a REQUEST. Its exchange's answer, after moving on to the next phase.

        A REQUEST of no exchange that we know (this service was restarted, or the firmware draws a new xid for it) is
        first taken for the DISCOVER that we missed.
        """
        state = self._states.get(ask.client)
        missed = None
        if state is None or _asker(state, ask, now - state.at, UNANSWERED) != "same":
            missed = self.discovered(ask, now)
            state = self._states[ask.client]
        return self._acknowledge(ask.client, state, now, missed)

    def named(self, ask: Ask, now: float) -> BootPass:
        """A client asks the proxy's second port for its boot file, under whatever transaction id, after it got its
        address elsewhere: it goes on with the boot that its DISCOVER began, if that was a moment ago."""
        state = self._states.get(ask.client)
        missed = None
        if state is None or not 0 <= now - state.at < UNANSWERED or (ask.ipxe and not state.ipxe):
            missed = self.discovered(ask, now)
            state = self._states[ask.client]
        return self._acknowledge(ask.client, state, now, missed)

    def _acknowledge(self, client: str, state: _State, now: float, missed: BootPass | None) -> BootPass:
        phase = ACKED[state.phase]
        self._put(client, state._replace(phase=phase, at=now))
        told = missed or BootPass(state.boot_id, state.phase, state.began, False)
        return told._replace(phase=phase, first_ack=phase is not state.phase)

    def current(self, client: str) -> BootId | None:
        """The client's latest boot id."""
        state = self._states.get(client)
        return state.boot_id if state else None

    def restore(self, records: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        """Take up what `record` was given before a restart, oldest first. Returns how many could not be read."""
        unreadable = 0
        for key, value in records:
            try:
                if key == FLOOR_KEY:
                    self._floor = BootId.parse(value["boot_id"])
                else:
                    self._states[key] = _State(
                        BootId.parse(value["boot_id"]),
                        Phase(value["phase"]),
                        int(value["xid"]),
                        bool(value["ipxe"]),
                        float(value["began"]),
                        float(value["at"]),
                    )
            except (KeyError, ValueError, TypeError, AttributeError):
                unreadable += 1
        self._shrink()
        return unreadable

    def _begin(self, ask: Ask, now: float, former: _State | None) -> _State:
        boot_id = BootId.mint(now_ms=int(now * 1000), after=former.boot_id if former else self._floor)
        phase = Phase.SCRIPT_OFFERED if ask.ipxe and not ask.chain else Phase.LOADER_OFFERED
        return _State(boot_id, phase, ask.xid, ask.ipxe, now, now)

    def _put(self, client: str, state: _State) -> None:
        if self._states.get(client) != state:
            self._states[client] = state
            self._record(client, _as_record(state))
        self._states.move_to_end(client)
        self._shrink()

    def _shrink(self) -> None:
        while len(self._states) > self._max_clients:
            client = forgotten(self._states, self._belongs)
            state = self._states.pop(client)
            self._record(client, None)
            if self._floor is None or state.boot_id > self._floor:
                self._floor = state.boot_id
                self._record(FLOOR_KEY, {"boot_id": str(self._floor)})


def decide(phase: Phase, asker: Asker, age: float) -> Decision:
    """What a DISCOVER is, `age` seconds into the phase. A negative age (the clock went back) is outside the window."""
    return DECISIONS[phase, asker] if 0 <= age < WINDOW[phase] else Decision.NEW


def _asker(state: _State, ask: Ask, age: float, same_for: float) -> Asker:
    if ask.xid == state.xid and ask.ipxe == state.ipxe and 0 <= age < same_for:
        return "same"
    return "ipxe" if ask.ipxe else "firmware"


def _as_record(state: _State) -> dict[str, Any]:
    return {
        "boot_id": str(state.boot_id),
        "phase": state.phase.value,
        "xid": state.xid,
        "ipxe": state.ipxe,
        "began": state.began,
        "at": state.at,
    }
