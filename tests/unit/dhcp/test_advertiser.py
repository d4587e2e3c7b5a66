"""When a router solicitation is ours to answer."""

from __future__ import annotations

from bootlink_dhcp.advertiser import HEARD_SECONDS, RouterHearing, _passing
from bootlink_wire.icmpv6 import RouterAdvertisement


def test_auto_answers_while_no_router_was_heard() -> None:
    hearing = RouterHearing("auto")
    assert hearing.answers(10)
    assert hearing.heard(RouterAdvertisement(lifetime=60), 10)
    assert not hearing.heard(RouterAdvertisement(lifetime=60), 20)
    assert not hearing.answers(20 + HEARD_SECONDS - 1)
    assert hearing.answers(20 + HEARD_SECONDS)


def test_a_router_counts_for_as_long_as_it_says() -> None:
    hearing = RouterHearing("auto")
    hearing.heard(RouterAdvertisement(lifetime=9000), 0)
    assert not hearing.answers(8999)


def test_another_server_like_us_is_no_router() -> None:
    hearing = RouterHearing("auto")
    assert not hearing.heard(RouterAdvertisement(lifetime=0), 10)
    assert hearing.answers(11)


def test_on_answers_beside_a_router() -> None:
    hearing = RouterHearing("on")
    hearing.heard(RouterAdvertisement(lifetime=9000), 10)
    assert hearing.answers(11)


def test_the_kernel_passes_the_two_types_alone() -> None:
    words = memoryview(_passing(133, 134)).cast("I").tolist()
    assert [n for n in range(256) if not words[n >> 5] >> (n & 31) & 1] == [133, 134]
