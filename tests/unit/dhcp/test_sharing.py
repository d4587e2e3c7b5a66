"""What each of several servers may do: rule by rule, and a model of two that are cut off at any moment."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from bootlink_dhcp.sharing import (
    GRACE,
    LEAD,
    PRESENT,
    Entry,
    Held,
    Sharing,
    decode_entry,
    node_of,
    server_name,
)

T0 = 1_800_000_000.0
A = IPv4Address("10.77.0.20")
PC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
LEASE = 3600.0


def together() -> Sharing:
    """Server `me`, which a peer knows; both are heard at T0."""
    sharing = Sharing("me_1")
    assert sharing.told("you_2", {"peers": ["me_1"], "lead": LEAD}, T0, fresh=True)
    sharing.confirmed(T0)
    return sharing


def entry(server: str, state: Held, client: str = "", expires: float = 0.0) -> Entry:
    return Entry(server, state, client, expires, 7)


def test_alone_everything_is_ours_and_nothing_is_waited_for() -> None:
    sharing = Sharing("me_1")
    assert (sharing.alone, sharing.joined, sharing.cut) == (True, True, True)
    assert sharing.unused(A)
    assert sharing.another()
    assert sharing.again(A, PC, T0)
    assert not sharing.must_confirm(A)
    assert sharing.may_promise(T0 + 10 * LEAD)
    assert sharing.share(100) == 0


def test_a_new_client_gets_what_we_hold_and_nothing_else() -> None:
    sharing = together()
    assert not sharing.unused(A)
    for held, ours in (("you_2", False), ("me_1", True)):
        sharing.stored(A, entry(held, Held.HELD), 8)
        assert sharing.unused(A) == ours
        assert (A in sharing.spares) == ours
    assert not sharing.another()
    assert (sharing.share(100), sharing.share(1), sharing.share(100_000)) == (50, 1, 4096)


def test_a_new_server_waits_until_the_others_know_of_it() -> None:
    sharing = Sharing("me_1")
    assert sharing.told("you_2", {"peers": []}, T0, fresh=False)
    sharing.confirmed(T0)
    sharing.stored(A, entry("you_2", Held.BOUND, PC, T0 + LEASE), 8)
    assert [peer.knows_us for peer in sharing.peers.values()] == [False]
    assert not sharing.again(A, PC, T0)
    assert not sharing.told("you_2", {"peers": ["me_1"]}, T0 + 1, fresh=True)
    assert sharing.joined
    assert sharing.again(A, PC, T0 + 1)
    assert sharing.must_confirm(A)


def test_cut_off_a_lease_goes_on_until_it_runs_out_and_an_own_one_longer() -> None:
    sharing = together()
    sharing.stored(A, entry("you_2", Held.BOUND, PC, T0 + 60), 8)
    assert not sharing.unconfirmed(A, PC, T0 + LEASE, T0)  # not cut off: it must be confirmed
    sharing.cut = True
    assert not sharing.unconfirmed(A, OTHER, T0 + LEASE, T0)
    assert not sharing.again(A, PC, T0 + 61)
    assert sharing.unconfirmed(A, PC, T0 + 59 + LEASE, T0 + 59)
    assert sharing.again(A, PC, T0 + 61)  # by our own word
    assert not sharing.again(A, PC, T0 + 59 + LEASE)
    sharing.stored(A, entry("me_1", Held.IDLE, PC, T0), 9)
    assert sharing.again(A, PC, T0 + LEASE)
    assert sharing.may_promise(T0 + LEAD)
    assert not sharing.may_promise(T0 + LEAD + 1)


def test_a_client_is_refused_by_the_server_that_knows() -> None:
    sharing = Sharing("me_1")
    assert not sharing.theirs(A)
    sharing = together()
    assert not sharing.theirs(A)  # nobody has it
    for held, theirs in (("you_2", True), ("me_1", False), ("gone_3", False)):
        sharing.stored(A, entry(held, Held.HELD), 8)
        assert sharing.theirs(A) == theirs
    sharing.cut = True
    assert sharing.theirs(A + 1)  # another server may have given it out meanwhile
    sharing.stored(A, entry("me_1", Held.HELD), 9)
    assert not sharing.theirs(A)


@pytest.mark.parametrize("state", [Held.BOUND, Held.IDLE])
def test_a_lease_is_taken_back_only_while_everybody_is_heard(state: Held) -> None:
    sharing = together()
    ends = T0 + 10
    sharing.stored(A, entry("me_1", state, PC, ends), 8)
    assert not sharing.reclaimable(A, ends + GRACE)
    late = ends + GRACE + 1
    assert not sharing.reclaimable(A, late)  # the peer was heard at T0 only
    sharing.told("you_2", {"peers": ["me_1"]}, late - PRESENT + 1, fresh=True)
    assert sharing.reclaimable(A, late)
    sharing.stored(A, entry("you_2", state, PC, ends), 9)
    assert not sharing.reclaimable(A, late)
    sharing.forget("you_2")
    assert sharing.reclaimable(A, late)


def test_what_a_peer_holds_or_leases_to_another_is_never_written_over() -> None:
    sharing = together()
    for held, client, may in (
        (entry("you_2", Held.HELD), PC, False),
        (entry("you_2", Held.BOUND, OTHER, T0), PC, False),
        (entry("you_2", Held.BOUND, PC, T0), PC, True),
        (entry("me_1", Held.HELD), PC, True),
        (entry("you_2", Held.FREE), PC, True),
        (entry("gone_3", Held.HELD), PC, True),
    ):
        sharing.stored(A, held, 8)
        assert sharing.may_write(A, client) == may, held
    assert sharing.claimable(A + 1)


def test_a_server_is_forgotten_after_its_lead_and_its_former_self_at_once() -> None:
    sharing = together()
    assert sharing.overdue(T0 + LEAD) == []
    assert sharing.overdue(T0 + LEAD + GRACE + 1) == ["you_2"]
    sharing.told("me_0", {"peers": []}, T0, fresh=False)  # this node, before it lost its folder
    assert sharing.overdue(T0 + 2 * PRESENT) == []
    assert sharing.overdue(T0 + 2 * PRESENT + 1) == ["me_0"]
    sharing.told("me_0", {"peers": []}, T0 + 30, fresh=True)  # it lives: two machines of one name
    assert sharing.overdue(T0 + 2 * PRESENT + 1) == []


def test_an_answer_that_comes_late_does_not_undo_what_another_server_wrote_after_it() -> None:
    sharing = together()
    sharing.stored(A, entry("you_2", Held.BOUND, PC, T0 + LEASE), 9)  # upon our 8, and told before its answer
    sharing.stored(A, entry("me_1", Held.HELD), 8)
    assert sharing.must_confirm(A)
    assert not sharing.may_write(A, OTHER)
    assert (sharing.entries[A].server, sharing.entries[A].revision, sharing.spares) == ("you_2", 9, set())


def test_entries_and_names_are_read_as_they_are_written() -> None:
    held = entry("me_1", Held.BOUND, PC, T0)
    assert decode_entry(held.encode(), 7) == held
    for data in (b"", b"[]", b"{}", b'{"server": 1, "state": "lost", "client": "", "expires": 0}', b"\xff"):
        with pytest.raises(ValueError, match=r".*"):
            decode_entry(data, 1)
    assert node_of(server_name("pc-1", "12ab")) == "pc-1"
