"""The lease table: who gets which address, and who never does."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_dhcp.leases import OFFER_HOLD, LeaseTable
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.subnet import Pool, Subnet

T0 = 1_800_000_000.0
LEASE = 3600


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"10.77.0.{last}")


def mac(n: int) -> str:
    return f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}"


class Lab:
    """A subnet whose pool is 10.77.0.101 to 10.77.0.104, and its disk."""

    def __init__(self, size: int = 4) -> None:
        self.subnet = Subnet(IPv4Network("10.77.0.0/24"), ip(1), Pool(ip(101), ip(100 + size)), LEASE)
        self.disk: dict[str, Mapping[str, Any]] = {}
        self.reservations = Reservations(self.subnet)
        self.now = T0
        self.table = self.restarted()

    def restarted(self) -> LeaseTable:
        self.table = LeaseTable(self.subnet, self.reservations.owner, self._record)
        self.table.restore(list(self.disk.items()), self.now)
        return self.table

    def _record(self, address: IPv4Address, value: Mapping[str, Any] | None) -> None:
        key = str(address)
        self.disk.pop(key, None)
        if value is not None:
            self.disk[key] = value

    def offer(self, n: int, wanted: IPv4Address | None = None) -> IPv4Address | None:
        address = self.table.choose(mac(n), self.reservations.of(mac(n)), wanted, self.now)
        if address is not None:
            self.table.offer(mac(n), address, self.now)
        return address

    def lease(self, n: int) -> IPv4Address:
        address = self.offer(n)
        assert address is not None
        self.table.bind(mac(n), address, self.now)
        return address


def test_addresses_are_given_out_in_order_and_each_to_one_client() -> None:
    lab = Lab()
    assert [lab.lease(n) for n in range(4)] == [ip(101), ip(102), ip(103), ip(104)]
    assert lab.offer(9) is None


def test_a_client_that_asks_again_is_offered_the_same_address() -> None:
    lab = Lab()
    assert lab.offer(1) == lab.offer(1) == ip(101)
    assert lab.lease(1) == ip(101)
    assert lab.offer(1) == ip(101)


def test_an_offer_that_nobody_takes_up_is_free_again_after_its_hold() -> None:
    lab = Lab(size=1)
    assert lab.offer(1) == ip(101)
    lab.now += OFFER_HOLD - 1
    assert lab.offer(2) is None
    lab.now += 1
    assert lab.offer(2) == ip(101)


def test_a_lease_survives_a_restart_and_an_offer_does_not() -> None:
    lab = Lab()
    lab.lease(1)
    lab.offer(2)
    lab.restarted()
    assert lab.table.counts(lab.now) == {"free": 3, "offered": 0, "bound": 1, "idle": 0, "declined": 0}
    assert not lab.table.may_use(mac(2), ip(101), lab.now)


def test_a_client_gets_its_address_back_after_its_lease_ran_out_and_across_restarts() -> None:
    lab = Lab()
    lab.lease(1)
    lab.lease(2)
    lab.now += LEASE * 10
    assert lab.lease(3) == ip(103)  # free addresses first
    lab.restarted()
    assert lab.offer(2) == ip(102)
    lab.now += OFFER_HOLD + 1  # not taken up: it stays the client's own
    assert lab.offer(4) == ip(104)
    assert lab.offer(2) == ip(102)


def test_the_address_idle_for_longest_is_given_away_when_none_is_free() -> None:
    lab = Lab(size=2)
    lab.lease(1)
    lab.now += 10
    lab.lease(2)
    lab.now += LEASE + 1
    assert lab.offer(3) == ip(101)
    lab.restarted()
    assert lab.table.of_client(mac(1), lab.now) is None


def test_a_live_lease_is_never_given_away() -> None:
    lab = Lab(size=1)
    lab.lease(1)
    lab.now += LEASE - 1
    assert lab.offer(2, wanted=ip(101)) is None
    lab.table.bind(mac(1), ip(101), lab.now)  # renewed: the former deadline no longer counts
    lab.now += LEASE - 1
    assert lab.offer(2) is None


def test_a_wanted_address_is_offered_if_it_is_free_and_in_the_pool() -> None:
    lab = Lab()
    assert lab.offer(1, wanted=ip(103)) == ip(103)
    assert lab.offer(2, wanted=ip(103)) == ip(101)
    assert lab.offer(3, wanted=ip(50)) == ip(102)
    assert lab.offer(4, wanted=ip(1)) == ip(104)


def test_a_reserved_address_is_its_clients_alone_inside_the_pool_and_outside() -> None:
    lab = Lab(size=2)
    lab.reservations.set(mac(1), ip(101))
    lab.reservations.set(mac(2), ip(20))
    assert lab.offer(3) == ip(102)
    assert lab.offer(4) is None
    assert lab.offer(1) == ip(101)
    assert lab.offer(2) == ip(20)
    assert not lab.table.may_use(mac(4), ip(20), lab.now)


def test_a_reservation_that_another_client_holds_waits_until_that_one_is_gone() -> None:
    lab = Lab()
    lab.lease(1)
    lab.reservations.set(mac(2), ip(101))
    assert lab.offer(2) == ip(102)
    assert not lab.table.may_use(mac(1), ip(101), lab.now)  # so its renewal is refused, and it moves
    assert lab.lease(1) == ip(103)
    assert lab.offer(2) == ip(101)


def test_two_clients_that_swap_their_reserved_addresses_have_them_when_both_plans_have_come() -> None:
    lab = Lab()
    lab.reservations.set(mac(1), ip(101))
    lab.reservations.set(mac(2), ip(102))
    assert "reserved for" in str(lab.reservations.set(mac(1), ip(102)))
    assert lab.reservations.of(mac(1)) is None
    assert lab.reservations.set(mac(2), ip(101)) is None
    assert (lab.reservations.of(mac(1)), lab.reservations.of(mac(2))) == (ip(102), ip(101))
    assert (lab.reservations.owner(ip(101)), lab.reservations.owner(ip(102))) == (mac(2), mac(1))


def test_a_claim_that_waits_is_given_up_when_its_client_wants_another_address_or_is_gone() -> None:
    lab = Lab()
    lab.reservations.set(mac(1), ip(101))
    for change in (ip(103), None):
        assert lab.reservations.set(mac(2), ip(101)) is not None
        assert lab.reservations.set(mac(2), change) is None
    lab.reservations.set(mac(1), None)
    assert lab.reservations.owner(ip(101)) is None


def test_a_released_address_is_idle_and_comes_back_to_its_client() -> None:
    lab = Lab()
    lab.lease(1)
    assert not lab.table.release(mac(2), ip(101), lab.now)
    assert lab.table.release(mac(1), ip(101), lab.now)
    assert lab.offer(2) == ip(102)
    assert lab.offer(1) == ip(101)


def test_a_declined_address_rests_for_a_day_also_across_a_restart() -> None:
    lab = Lab()
    assert not lab.table.decline(mac(1), ip(101), lab.now)
    lab.lease(1)
    assert lab.table.decline(mac(1), ip(101), lab.now)
    assert lab.lease(1) == ip(102)
    lab.restarted()
    assert lab.table.of_client(mac(1), lab.now) is not None
    assert not lab.table.may_use(mac(2), ip(101), lab.now)
    lab.now += 86_400 - 1
    assert not lab.table.may_use(mac(2), ip(101), lab.now)
    lab.now += 2
    assert lab.table.may_use(mac(2), ip(101), lab.now)


def test_declines_cannot_empty_the_pool() -> None:
    lab = Lab(size=8)
    for n in range(30):
        lab.lease(n)
        lab.table.decline(mac(n), lab.table.of_client(mac(n), lab.now).address, lab.now)  # type: ignore[union-attr]
    assert lab.table.counts(lab.now)["declined"] == 2
    assert lab.offer(99) is not None


def test_an_offer_taken_elsewhere_is_withdrawn_and_a_lease_is_not() -> None:
    lab = Lab(size=1)
    lab.offer(1)
    lab.table.withdraw(mac(1), ip(101))
    lab.lease(2)
    lab.table.withdraw(mac(2), ip(101))
    assert lab.table.counts(lab.now)["bound"] == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("10.77.0.101", {}),
        ("nowhere", {"client": mac(1), "state": "bound", "expires": T0}),
        ("10.77.0.101", {"client": "x", "state": "bound", "expires": T0}),
        ("10.77.0.101", {"client": mac(1), "state": "odd", "expires": T0}),
        ("10.78.0.101", {"client": mac(1), "state": "bound", "expires": T0}),
        ("10.77.0.1", {"client": mac(1), "state": "bound", "expires": T0}),
    ],
)
def test_a_record_that_does_not_fit_is_left_out(key: str, value: dict[str, Any]) -> None:
    lab = Lab()
    assert lab.table.restore([(key, value)], T0) == 1
    assert lab.table.counts(T0)["free"] == 4


def test_renewals_do_not_grow_memory() -> None:
    lab = Lab()
    lab.lease(1)
    for _ in range(1000):
        lab.now += 1
        lab.table.bind(mac(1), ip(101), lab.now)
    assert len(lab.table._deadlines) < 100


steps = st.lists(
    st.tuples(st.sampled_from(("offer", "bind", "release", "decline", "wait", "restart")), st.integers(0, 7)),
    max_size=60,
)


@given(steps)
def test_an_address_with_a_live_lease_is_nobody_elses_whatever_happens(steps: list[tuple[str, int]]) -> None:
    lab = Lab()
    lab.reservations.set(mac(0), ip(102))
    leased: dict[str, tuple[IPv4Address, float]] = {}
    for step, n in steps:
        held = lab.table.of_client(mac(n), lab.now)
        if step == "offer":
            offered = lab.offer(n)
            if offered is not None and mac(n) in leased and leased[mac(n)][0] != offered:
                del leased[mac(n)]
        elif step == "bind" and held and lab.table.may_use(mac(n), held.address, lab.now):
            leased[mac(n)] = (held.address, lab.table.bind(mac(n), held.address, lab.now).expires)
        elif step == "release" and held:
            lab.table.release(mac(n), held.address, lab.now)
            leased.pop(mac(n), None)
        elif step == "decline" and held:
            lab.table.decline(mac(n), held.address, lab.now)
            leased.pop(mac(n), None)
        elif step == "wait":
            lab.now += n * 600
        elif step == "restart":
            lab.restarted()
        counts = lab.table.counts(lab.now)
        assert sum(counts.values()) == 4
        live = [address for address, expires in leased.values() if expires > lab.now]
        assert len(live) == len(set(live))
        assert not any(lab.table.may_use(mac(99), address, lab.now) for address in live)


def test_an_address_that_another_host_answers_for_is_no_new_clients_and_stays_its_old_ones() -> None:
    lab = Lab()
    taken: dict[IPv4Address, str] = {}

    def in_use(address: IPv4Address, client: str, now: float) -> bool:
        return taken.get(address, client) != client

    lab.table = LeaseTable(lab.subnet, lab.reservations.owner, lab._record, in_use=in_use)
    assert lab.offer(1) == ip(101)
    taken[ip(101)] = mac(9)
    taken[ip(102)] = mac(2)
    assert lab.offer(1) == ip(103)  # not the one that it was offered before
    assert lab.offer(2, wanted=ip(102)) == ip(102)  # who answers has it already
    assert lab.lease(3) == ip(104)
    taken[ip(104)] = mac(9)
    assert lab.offer(3) == ip(104)  # its lease
    assert lab.offer(4, wanted=ip(101)) is None
