"""Reservations: who may do what under each type, and who is told of a change (SPC-4, section 5.13; SPC-2)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import integers, sampled_from

from bootlink_blockstore.scsi.reservations import (
    REGISTRATIONS_LIMIT,
    TYPES,
    Access,
    Notice,
    ReservationConflict,
    Reservations,
)
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_sense import CheckCondition

A, B, C = "iqn.a,i,0x1", "iqn.b,i,0x2", "iqn.c,i,0x3"


def reserved(kind: int) -> Reservations:
    """A and B registered, A reserved; C is a stranger."""
    held = Reservations()
    held.register(A, 0, 1, ignore=False)
    held.register(B, 0, 2, ignore=False)
    held.reserve(A, 1, kind)
    return held


def may(held: Reservations, port: str) -> str:
    """What a port may do: r to read, w to write."""
    reads, writes = (not held.conflict(port, port, access) for access in (Access.READ, Access.WRITE))
    return ("r" if reads else "-") + ("w" if writes else "-")


@pytest.mark.parametrize(
    ("kind", "holder", "registered", "stranger"),
    [
        (1, "rw", "r-", "r-"),  # Write Exclusive
        (3, "rw", "--", "--"),  # Exclusive Access
        (5, "rw", "rw", "r-"),  # Write Exclusive, Registrants Only
        (6, "rw", "rw", "--"),
        (7, "rw", "rw", "r-"),  # Write Exclusive, All Registrants
        (8, "rw", "rw", "--"),
    ],
)
def test_each_type_lets_in_whom_spc_4_names(kind: int, holder: str, registered: str, stranger: str) -> None:
    held = reserved(kind)
    assert (may(held, A), may(held, B), may(held, C)) == (holder, registered, stranger)


@pytest.mark.parametrize(("kind", "port"), list(product(TYPES, (A, B, C))))
def test_whoever_conflicts_may_still_ask_who_and_how_the_disk_is(kind: int, port: str) -> None:
    assert not reserved(kind).conflict(port, port, Access.ALWAYS)
    assert not reserved(kind).conflict(port, port, Access.OPEN)


def test_without_a_reservation_everybody_may_do_everything() -> None:
    held = Reservations()
    held.register(A, 0, 1, ignore=False)
    assert may(held, A) == may(held, C) == "rw"


def test_a_wrong_key_changes_nothing() -> None:
    held = reserved(1)
    for attempt in (
        lambda: held.register(A, 9, 3, ignore=False),
        lambda: held.reserve(A, 9, 1),
        lambda: held.release(A, 9, 1),
        lambda: held.clear(A, 9),
        lambda: held.preempt(A, 9, 2, 1),
        lambda: held.reserve(C, 1, 1),  # not registered
        lambda: held.preempt(C, 0, 1, 1),
        lambda: held.register(C, 1, 2, ignore=False),  # a key where none is registered
    ):
        with pytest.raises(ReservationConflict):
            attempt()
    assert (held.keys, held.kind, held.port, held.generation) == ({A: 1, B: 2}, 1, A, 2)


def test_register_and_ignore_takes_any_key_and_register_again_changes_it() -> None:
    held = reserved(1)
    held.register(A, 99, 5, ignore=True)
    held.register(A, 5, 6, ignore=False)
    assert held.keys == {A: 6, B: 2}
    assert held.key == 6
    assert held.register(C, 0, 0, ignore=False) == []  # nothing to give up
    assert C not in held.keys


def test_registrations_are_limited() -> None:
    held = Reservations()
    for number in range(REGISTRATIONS_LIMIT):
        held.register(f"iqn.{number}", 0, 1, ignore=False)
    with pytest.raises(CheckCondition) as caught:
        held.register("iqn.more", 0, 1, ignore=True)
    assert caught.value.sense is sense.INSUFFICIENT_REGISTRATION_RESOURCES


@pytest.mark.parametrize("kind", TYPES)
def test_a_holder_that_gives_up_its_registration_gives_up_the_reservation(kind: int) -> None:
    held = reserved(kind)
    notices = held.register(A, 1, 0, ignore=False)
    if TYPES[kind].everyone:
        assert (held.kind, notices) == (kind, [])  # B is a holder too
        held.register(B, 2, 0, ignore=False)
    elif TYPES[kind].registrants:
        assert notices == [Notice(B, sense.RESERVATIONS_RELEASED)]
    else:
        assert notices == []
    assert held.kind == 0


@pytest.mark.parametrize("kind", TYPES)
def test_release_tells_the_other_registrants_where_they_had_a_share(kind: int) -> None:
    held = reserved(kind)
    notices = held.release(A, 1, kind)
    assert notices == ([Notice(B, sense.RESERVATIONS_RELEASED)] if TYPES[kind].registrants else [])
    assert held.kind == 0
    assert held.release(A, 1, kind) == []  # of nothing: no error


def test_release_of_anothers_reservation_does_nothing_and_of_another_type_is_refused() -> None:
    held = reserved(1)
    assert held.release(B, 2, 1) == []
    with pytest.raises(CheckCondition) as caught:
        held.release(A, 1, 3)
    assert caught.value.sense is sense.INVALID_RELEASE
    assert held.kind == 1


def test_reserve_again_is_fine_for_the_holder_and_the_same_type_only() -> None:
    held = reserved(1)
    held.reserve(A, 1, 1)
    for port, key, kind in ((A, 1, 3), (B, 2, 1)):
        with pytest.raises(ReservationConflict):
            held.reserve(port, key, kind)


def test_clear_leaves_nothing_and_tells_the_others() -> None:
    held = reserved(3)
    assert held.clear(B, 2) == [Notice(A, sense.RESERVATIONS_PREEMPTED)]
    assert (held.keys, held.kind) == ({}, 0)


def test_preempting_the_holder_takes_its_reservation() -> None:
    held = reserved(1)
    assert held.preempt(B, 2, 1, 3) == [Notice(A, sense.REGISTRATIONS_PREEMPTED)]
    assert (held.keys, held.kind, held.port) == ({B: 2}, 3, B)


def test_preempting_the_holder_tells_those_who_stay_if_the_type_changes() -> None:
    held = reserved(5)
    held.register(C, 0, 3, ignore=False)
    notices = held.preempt(B, 2, 1, 6)
    assert set(notices) == {Notice(A, sense.REGISTRATIONS_PREEMPTED), Notice(C, sense.RESERVATIONS_RELEASED)}


def test_preempting_somebody_else_removes_only_the_registration() -> None:
    held = reserved(1)
    held.register(C, 0, 3, ignore=False)
    assert held.preempt(A, 1, 3, 1) == [Notice(C, sense.REGISTRATIONS_PREEMPTED)]
    assert (held.keys, held.kind, held.port) == ({A: 1, B: 2}, 1, A)


def test_preempting_an_unknown_key_is_a_conflict_and_the_key_0_an_error() -> None:
    held = reserved(1)
    with pytest.raises(ReservationConflict):
        held.preempt(A, 1, 77, 1)
    with pytest.raises(CheckCondition) as caught:
        held.preempt(A, 1, 0, 1)
    assert caught.value.sense == sense.INVALID_PARAMETER.at(8)


@pytest.mark.parametrize("kind", [7, 8])
def test_with_all_registrants_the_key_0_preempts_all_others(kind: int) -> None:
    held = reserved(kind)
    assert held.preempt(B, 2, 0, 1) == [Notice(A, sense.REGISTRATIONS_PREEMPTED)]
    assert (held.keys, held.kind, held.port) == ({B: 2}, 1, B)


def test_where_every_registrant_is_the_holder_the_reservation_has_no_key() -> None:
    assert reserved(7).key == 0
    assert reserved(1).key == 1


def test_the_generation_counts_registrations_and_not_reservations() -> None:
    held = reserved(1)
    before = held.generation
    held.release(A, 1, 1)
    held.reserve(A, 1, 1)
    assert held.generation == before
    held.preempt(A, 1, 2, 1)
    held.clear(A, 1)
    assert held.generation == before + 2


def test_reserve_6_shuts_out_all_others_from_all_but_saying_who_it_is() -> None:
    held, mine, theirs = Reservations(), object(), object()
    held.reserve_unit(mine, A)
    assert not any(held.conflict(mine, A, access) for access in Access)
    assert {access for access in Access if not held.conflict(theirs, B, access)} == {Access.ALWAYS}
    held.release_unit()
    assert not held.conflict(theirs, B, Access.WRITE)


def test_reserve_6_beside_a_persistent_reservation_is_for_those_it_serves_and_without_effect() -> None:
    held = reserved(5)
    held.reserve_unit(object(), B)
    assert held.unit_holder is None
    with pytest.raises(ReservationConflict):
        held.reserve_unit(object(), C)
    with pytest.raises(ReservationConflict):
        held.check_release_unit(C)
    held.check_release_unit(A)


class Model(RuleBasedStateMachine):
    """Whatever is done: a holder is registered, and no reservation outlives its registrants."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Reservations()

    def _try(self, action: str, *args: object, **more: object) -> None:
        before = (dict(self.held.keys), self.held.kind, self.held.port, self.held.generation)
        try:
            getattr(self.held, action)(*args, **more)
        except (ReservationConflict, CheckCondition):
            assert (self.held.keys, self.held.kind, self.held.port, self.held.generation) == before

    ports, few = sampled_from((A, B, C)), integers(0, 3)

    @rule(port=ports, key=few, new=few, ignore=sampled_from((True, False)))
    def register(self, port: str, key: int, new: int, ignore: bool) -> None:
        self._try("register", port, key, new, ignore=ignore)

    @rule(port=ports, key=few, kind=sampled_from(sorted(TYPES)), action=sampled_from(("reserve", "release")))
    def typed(self, port: str, key: int, kind: int, action: str) -> None:
        self._try(action, port, key, kind)

    @rule(port=ports, key=few)
    def clear(self, port: str, key: int) -> None:
        self._try("clear", port, key)

    @rule(port=ports, key=few, victim=few, kind=integers(0, 9))
    def preempt(self, port: str, key: int, victim: int, kind: int) -> None:
        self._try("preempt", port, key, victim, kind)

    @invariant()
    def somebody_holds_what_is_held(self) -> None:
        held = self.held
        if held.kind:
            assert any(held.holds(port) for port in held.keys)
            assert bool(held.port) != TYPES[held.kind].everyone
            assert not held.port or held.port in held.keys
        else:
            assert held.port == ""


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=30)
