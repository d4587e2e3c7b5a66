"""Probing addresses ahead of offers: what is asked about, what counts as clear, and who is offered what is taken."""

from __future__ import annotations

from ipaddress import IPv4Address

from bootlink_dhcp.probing import CLEAR, EVERYTHING, PATIENCE, REMEMBERED, TAKEN, Answering, Probing

T0 = 1_800_000_000.0
A, B = IPv4Address("10.77.0.20"), IPv4Address("10.77.0.21")
PC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"


def test_an_address_is_asked_about_once_and_clear_when_nobody_answers() -> None:
    probing = Probing()
    assert list(probing.wanted((A, B), T0)) == [A, B]
    probing.asked(A, T0)
    assert list(probing.wanted((A, B), T0)) == [B]
    probing.settle(T0 + PATIENCE / 2)
    assert not probing.clear(A, T0 + PATIENCE / 2)
    probing.settle(T0 + PATIENCE)
    assert probing.clear(A, T0 + PATIENCE)
    assert not probing.waiting
    assert list(probing.wanted((A,), T0 + PATIENCE + CLEAR - 1)) == []
    assert list(probing.wanted((A,), T0 + PATIENCE + CLEAR)) == [A]


def test_what_somebody_answers_for_is_that_clients_alone_for_a_while() -> None:
    probing = Probing()
    probing.asked(A, T0)
    assert probing.heard(A, OTHER, T0 + 0.01) == Answering(OTHER, A, 1)
    assert probing.heard(A, OTHER, T0 + 0.02) is None
    probing.settle(T0 + PATIENCE)
    assert not probing.clear(A, T0 + PATIENCE)
    assert probing.taken(A, PC, T0 + 1)
    assert not probing.taken(A, OTHER, T0 + 1)  # it has it from us, and our journal is lost
    assert list(probing.wanted((A,), T0 + 1)) == []
    assert list(probing.wanted((A,), T0 + 0.01 + TAKEN)) == [A]


def test_who_takes_an_address_later_is_heard_too_and_nobody_else_is_remembered() -> None:
    probing = Probing()
    probing.asked(A, T0)
    probing.settle(T0 + PATIENCE)
    assert probing.heard(A, "", T0 + 2)
    assert not probing.clear(A, T0 + 2)
    assert probing.taken(A, PC, T0 + 2)
    assert probing.heard(B, OTHER, T0 + 2) is None  # nobody asked
    assert not probing.taken(B, PC, T0 + 2)


def test_a_host_that_answers_for_many_addresses_answers_for_everything_until_it_is_silent() -> None:
    probing = Probing()
    hosts = []
    for number in range(EVERYTHING):
        probing.asked(A + number, T0)
        hosts.append(probing.heard(A + number, OTHER, T0 + 0.01))
    assert [host.everything for host in hosts if host] == [False] * (EVERYTHING - 1) + [True]
    assert probing.answering(T0 + 1) == [(A + number, OTHER) for number in range(EVERYTHING)]
    later = T0 + 0.01 + TAKEN
    for number in range(EVERYTHING):
        probing.asked(A + number, later)
    assert probing.heard(A, OTHER, later) == Answering(OTHER, A, EVERYTHING), "it is no new one"
    probing.settle(later + PATIENCE)
    assert probing.answering(later + PATIENCE) == [(A, OTHER)], "for the others it has not answered any more"
    probing.asked(B, later + CLEAR)
    assert probing.heard(B, OTHER, later + CLEAR) == Answering(OTHER, B, 2)


def test_who_is_not_known_may_be_many() -> None:
    assert not Answering("", A, EVERYTHING).everything


def test_a_clock_that_goes_back_settles_what_was_asked() -> None:
    probing = Probing()
    probing.asked(A, T0)
    probing.settle(T0 - 3600)
    assert not probing.waiting


def test_memory_is_bounded() -> None:
    probing = Probing()
    for number in range(REMEMBERED + 100):
        probing.asked(A + number, T0)
    probing.settle(T0 + PATIENCE)
    assert not probing.clear(A, T0 + PATIENCE)
    assert probing.clear(A + REMEMBERED, T0 + PATIENCE)
