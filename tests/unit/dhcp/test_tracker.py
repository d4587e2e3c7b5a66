"""The boot tracker: each sequence of packets that a PC can send, and the boots that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_dhcp.tracker import (
    ACKED,
    DECISIONS,
    DUPLICATE,
    LOADING,
    PASS,
    SAME_FOR,
    UNANSWERED,
    WINDOW,
    Ask,
    Asker,
    BootPass,
    BootTracker,
    Decision,
    Phase,
    decide,
)
from bootlink_events import BootId

T0 = 1_800_000_000.0
PC = "52:54:00:12:34:56"

Who = Literal["pxe", "ipxe"]


class Lab:
    """One PC and the tracker; keeps the records as a disk would."""

    def __init__(self, *, chain: bool = True, max_clients: int = 100) -> None:
        self.disk: dict[str, Mapping[str, Any]] = {}
        self.chain = chain
        self.max_clients = max_clients
        self.tracker = self.restarted()

    def restarted(self) -> BootTracker:
        self.tracker = BootTracker(self._record, max_clients=self.max_clients)
        assert self.tracker.restore(list(self.disk.items())) == 0
        return self.tracker

    def _record(self, key: str, value: Mapping[str, Any] | None) -> None:
        self.disk.pop(key, None)
        if value is not None:
            self.disk[key] = value

    def discover(self, who: Who, xid: int, at: float, client: str = PC) -> BootPass:
        return self.tracker.discovered(Ask(client, xid, who == "ipxe", self.chain), T0 + at)

    def request(self, who: Who, xid: int, at: float, client: str = PC) -> BootPass:
        return self.tracker.acknowledged(Ask(client, xid, who == "ipxe", self.chain), T0 + at)


# Each line: what the PC sends (D discover, R request; p firmware, i iPXE; xid; seconds), then the boot that it
# belongs to (a, b, ... in order of minting) and the pass. Times count from the first packet.
SEQUENCES: dict[str, str] = {
    "a firmware boots: loader, then script, under one id": """
        Dp1 0    a firmware
        Rp1 1    a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe""",
    "an iPXE ROM boots: our loader first, then the script": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe""",
    "a firmware that repeats its DISCOVER stays one boot (OVMF, one xid)": """
        Dp1 0    a firmware
        Dp1 4    a firmware
        Dp1 12   a firmware
        Dp1 28   a firmware
        Rp1 30   a firmware""",
    "a firmware that draws a new xid for each try stays one boot": """
        Dp1 0    a firmware
        Dp2 4    a firmware
        Dp3 12   a firmware
        Rp3 13   a firmware
        Di4 20   a ipxe""",
    "a firmware that asks with one xid and requests with another stays one boot": """
        Dp1 0    a firmware
        Rp2 1    a firmware
        Di3 5    a ipxe
        Ri4 6    a ipxe""",
    "a firmware that was never answered is a new boot once its tries are over": """
        Dp1 0    a firmware
        Dp2 89   a firmware
        Dp3 91   b firmware""",
    "a lost ACK is sent again: the REQUEST repeats and nothing moves": """
        Dp1 0    a firmware
        Rp1 1    a firmware
        Rp1 5    a firmware
        Rp1 13   a firmware
        Di2 20   a ipxe
        Ri2 21   a ipxe
        Ri2 25   a ipxe
        Ri2 53   a ipxe""",
    "a late copy of the DISCOVER after the ACK changes nothing": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di1 1.5  a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe
        Di2 6    a ipxe""",
    "the first pass's late DISCOVER during the second pass does not lead back to the loader": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di2 4    a ipxe
        Di1 4.1  a ipxe
        Ri2 5    a ipxe""",
    "iPXE repeats its second DISCOVER with the same or another xid": """
        Dp1 0    a firmware
        Rp1 1    a firmware
        Di2 4    a ipxe
        Di2 5    a ipxe
        Di3 7    a ipxe
        Ri3 8    a ipxe""",
    "a restart is a new boot": """
        Dp1 0    a firmware
        Rp1 1    a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe
        Dp3 60   b firmware
        Rp3 61   b firmware
        Di4 65   b ipxe
        Ri4 66   b ipxe""",
    "a restart of an iPXE ROM is a new boot, even three seconds after the script": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe
        Di3 8    b firmware
        Ri3 9    b firmware
        Di4 12   b ipxe""",
    "a firmware whose xid is its MAC address (same at every boot) gets a new id at each": """
        Dp7 0    a firmware
        Rp7 1    a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe
        Dp7 20   b firmware
        Rp7 21   b firmware
        Di3 25   b ipxe
        Ri3 26   b ipxe""",
    "a firmware and a loader that share one constant xid are told apart by who asks": """
        Dp7 0    a firmware
        Rp7 1    a firmware
        Di7 1.5  a ipxe
        Ri7 2    a ipxe
        Dp7 20   b firmware""",
    "an iPXE with one constant xid gets its script all the same, and a new id at its next boot": """
        Di7 0    a firmware
        Ri7 1    a firmware
        Di7 4    a ipxe
        Ri7 5    a ipxe
        Di7 20   b firmware
        Ri7 21   b firmware
        Di7 25   b ipxe""",
    "a ROM's iPXE whose loader did not arrive is given the script": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di2 60   a ipxe
        Ri2 61   a ipxe""",
    "a firmware whose loader did not arrive and that asks again is a new boot": """
        Dp1 0    a firmware
        Rp1 1    a firmware
        Dp2 40   b firmware""",
    "a PC switched off between loader and script is a new boot when it returns later": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di2 122  b firmware""",
    "a PC reset while iPXE asks for its script: firmware starts anew": """
        Dp1 0    a firmware
        Rp1 1    a firmware
        Di2 4    a ipxe
        Dp3 10   b firmware""",
    "an iPXE that was offered its script long ago starts anew": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di2 4    a ipxe
        Di3 95   b firmware""",
    "a REQUEST without its DISCOVER begins the boot": """
        Rp1 0    a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe""",
    "a stale REQUEST long after the script begins a new boot rather than the old one": """
        Di1 0    a firmware
        Ri1 1    a firmware
        Di2 4    a ipxe
        Ri2 5    a ipxe
        Ri2 200  b firmware""",
}


def play(lab: Lab, script: str, *, restart_between: bool = False) -> list[BootPass]:
    boots: dict[str, BootId] = {}
    passes = []
    for line in script.strip().splitlines():
        packet, at, name, pass_ = line.split()
        who: Who = "pxe" if packet[1] == "p" else "ipxe"
        send = lab.discover if packet[0] == "D" else lab.request
        found = send(who, int(packet[2:]), float(at))
        where = f"at {line.strip()!r}"
        assert found.pass_ == pass_, where
        assert found.minted == (name not in boots), where
        assert boots.setdefault(name, found.boot_id) == found.boot_id, where
        passes.append(found)
        if restart_between:
            lab.restarted()
    assert list(boots.values()) == sorted(boots.values())
    return passes


@pytest.mark.parametrize("title", SEQUENCES)
def test_sequence(title: str) -> None:
    play(Lab(), SEQUENCES[title])


@pytest.mark.parametrize("title", SEQUENCES)
def test_sequence_survives_a_restart_of_the_service_after_every_packet(title: str) -> None:
    play(Lab(), SEQUENCES[title], restart_between=True)


def test_an_ipxe_that_is_not_chained_gets_its_script_at_once() -> None:
    play(
        Lab(chain=False),
        """
        Di1 0    a ipxe
        Ri1 1    a ipxe
        Di2 30   b ipxe
        Ri2 31   b ipxe
        Dp3 60   c firmware
        Rp3 61   c firmware
        Di4 65   c ipxe""",
    )


def test_an_unchained_ipxe_with_a_constant_xid_gets_a_new_id_at_each_boot() -> None:
    play(Lab(chain=False), "Di7 0 a ipxe\nRi7 1 a ipxe\nDi7 8 b ipxe\nRi7 9 b ipxe")


def test_the_first_ack_of_a_pass_is_told_from_its_repetitions() -> None:
    lab = Lab()
    lab.discover("pxe", 1, 0)
    acks = [lab.request("pxe", 1, 1), lab.request("pxe", 1, 5)]
    lab.discover("ipxe", 2, 8)
    acks += [lab.request("ipxe", 2, 9), lab.request("ipxe", 2, 10)]
    assert [ack.first_ack for ack in acks] == [True, False, True, False]


def test_a_pass_began_with_its_first_discover() -> None:
    lab = Lab()
    lab.discover("pxe", 1, 0)
    lab.discover("pxe", 1, 4)
    assert lab.request("pxe", 1, 5).began == T0
    lab.discover("ipxe", 2, 9)
    assert lab.request("ipxe", 2, 10).began == T0 + 9


@pytest.mark.parametrize("back", [1.0, 86_400.0, 10 * 365 * 86_400.0])
def test_an_id_is_greater_than_the_former_one_although_the_clock_went_back(back: float) -> None:
    lab = Lab()
    lab.discover("pxe", 1, 0)
    former = lab.request("pxe", 1, 1).boot_id
    lab.restarted()
    later = lab.discover("pxe", 2, -back)
    assert later.minted
    assert later.boot_id > former


def test_clients_do_not_disturb_one_another() -> None:
    lab = Lab()
    first = lab.discover("pxe", 1, 0, "52:54:00:00:00:01")
    second = lab.discover("pxe", 1, 0, "52:54:00:00:00:02")
    assert first.boot_id != second.boot_id
    assert lab.request("pxe", 1, 1, "52:54:00:00:00:01").boot_id == first.boot_id
    assert lab.discover("pxe", 1, 2, "52:54:00:00:00:02").boot_id == second.boot_id


def test_memory_is_bounded_and_the_oldest_unused_client_is_dropped() -> None:
    lab = Lab(max_clients=3)
    ids = {n: lab.discover("pxe", 1, n, f"52:54:00:00:00:0{n}").boot_id for n in range(3)}
    lab.discover("pxe", 1, 3, "52:54:00:00:00:00")  # used again, so it is not the oldest
    lab.discover("pxe", 1, 4, "52:54:00:00:00:09")
    assert len(lab.tracker) == 3
    assert lab.tracker.current("52:54:00:00:00:00") == ids[0]
    assert lab.tracker.current("52:54:00:00:00:01") is None
    assert len(lab.disk) == 4  # three clients and the floor


def test_made_up_clients_do_not_push_out_the_boot_of_one_that_belongs_here() -> None:
    tracker = BootTracker(lambda key, value: None, max_clients=10, belongs=lambda client: client == PC)
    loader = tracker.acknowledged(Ask(PC, 1, False, True), T0)
    for n in range(100):
        tracker.discovered(Ask(f"02:00:00:00:00:{n:02x}", n, False, True), T0 + 1 + n / 100)
    script = tracker.discovered(Ask(PC, 2, True, True), T0 + 3)
    assert (script.boot_id, script.gets_script) == (loader.boot_id, True)
    assert len(tracker) == 10


def test_where_all_belong_here_memory_is_bounded_all_the_same() -> None:
    tracker = BootTracker(lambda key, value: None, max_clients=3, belongs=lambda client: True)
    for n in range(5):
        tracker.discovered(Ask(f"52:54:00:00:00:{n:02x}", n, False, True), T0 + n)
    assert len(tracker) == 3


def test_a_dropped_clients_next_id_is_greater_although_the_clock_went_back() -> None:
    lab = Lab(max_clients=1)
    former = lab.discover("pxe", 1, 0).boot_id
    lab.discover("pxe", 1, 1, "52:54:00:00:00:09")
    lab.restarted()
    assert lab.tracker.current(PC) is None
    assert lab.discover("pxe", 2, -3600).boot_id > former


@pytest.mark.parametrize(
    "record", [{}, {"boot_id": "x"}, {"boot_id": 7}, {"boot_id": str(BootId.mint()), "phase": "elsewhere"}]
)
def test_an_unreadable_record_is_counted_and_left_out(record: dict[str, Any]) -> None:
    tracker = BootTracker(lambda key, value: None)
    assert tracker.restore([(PC, record)]) == 1
    assert len(tracker) == 0


def test_every_phase_is_in_every_table() -> None:
    assert set(DECISIONS) == set(product(Phase, get_args(Asker)))
    assert set(WINDOW) == set(ACKED) == set(PASS) == set(SAME_FOR) == set(Phase)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("asker", get_args(Asker))
def test_outside_its_window_every_discover_is_a_new_boot(phase: Phase, asker: Asker) -> None:
    assert decide(phase, asker, WINDOW[phase]) is Decision.NEW
    assert decide(phase, asker, -0.001) is Decision.NEW


packets = st.lists(
    st.tuples(st.sampled_from("DR"), st.sampled_from(("pxe", "ipxe")), st.integers(1, 3), st.floats(0, 2 * LOADING)),
    max_size=30,
)


@given(packets, st.booleans())
def test_no_id_is_used_again_after_its_script_was_acknowledged(
    packets: list[tuple[str, Who, int, float]], chain: bool
) -> None:
    """The promise that protects the write-back: whatever a PC sends, in whatever order and after whatever pause."""
    lab = Lab(chain=chain)
    at, newest, script_acked_at = 0.0, None, None
    for kind, who, xid, pause in packets:
        at += pause
        found = lab.discover(who, xid, at) if kind == "D" else lab.request(who, xid, at)
        assert newest is None or found.boot_id >= newest
        if found.boot_id != newest:
            newest, script_acked_at = found.boot_id, None
        elif script_acked_at is not None:
            # Only a copy of the DISCOVER, or the REQUEST whose ACK was lost, may still get the same script.
            assert pause < (DUPLICATE if kind == "D" else UNANSWERED)
            assert found.pass_ == "ipxe"
        if kind == "R" and found.pass_ == "ipxe":
            script_acked_at = at
