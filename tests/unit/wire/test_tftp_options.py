"""Option negotiation: an OACK names only what was asked for, and never more than was asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire.tftp_options import Limits, Terms, negotiate


def granted(*options: tuple[str, str], size: int = 74_213, limits: Limits | None = None) -> dict[str, str]:
    return dict(negotiate(options, size=size, limits=limits or Limits()).granted)


def test_a_request_without_options_gets_no_oack() -> None:
    assert negotiate((), size=1, limits=Limits()) == Terms(block_size=512, window=1, resend_after=1.0, granted=())


def test_ipxe_gets_what_it_asks_for() -> None:
    assert granted(("blksize", "1432"), ("tsize", "0")) == {"blksize": "1432", "tsize": "74213"}


def test_a_block_never_exceeds_an_ethernet_frame_unless_the_administrator_says_so() -> None:
    assert granted(("blksize", "65464")) == {"blksize": "1468"}
    assert granted(("blksize", "65535")) == {"blksize": "1468"}
    assert granted(("blksize", "65464"), limits=Limits(block_size=8192)) == {"blksize": "8192"}


def test_a_window_never_exceeds_the_limit() -> None:
    assert granted(("windowsize", "4")) == {"windowsize": "4"}
    assert granted(("windowsize", "64")) == {"windowsize": "16"}


def test_a_time_out_is_granted_as_asked_or_not_at_all() -> None:
    assert granted(("timeout", "2")) == {"timeout": "2"}
    assert granted(("timeout", "6")) == {}
    assert granted(("timeout", "0")) == {}


@pytest.mark.parametrize("name", ["blksize", "windowsize", "timeout", "tsize"])
@pytest.mark.parametrize("value", ["", "abc", "-1", "1.5", "0x10", "\uff19", "1" * 21])
def test_a_senseless_value_is_left_out(name: str, value: str) -> None:
    assert granted((name, value)) == {}


def test_a_block_size_below_the_rfc_and_an_unknown_option_are_left_out() -> None:
    assert granted(("blksize", "7"), ("multicast", ""), ("tsize", "0")) == {"tsize": "74213"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["blksize", "tsize", "timeout", "windowsize", "multicast"]),
            st.integers(0, 100_000).map(str),
        ),
        max_size=5,
        unique_by=lambda option: option[0],
    ),
    st.integers(0, 1 << 30),
)
def test_what_is_granted_was_asked_for_and_holds_in_the_terms(options: list[tuple[str, str]], size: int) -> None:
    asked = dict(options)
    terms = negotiate(tuple(options), size=size, limits=Limits())
    for name, value in terms.granted:
        assert name in asked
        if name != "tsize":
            assert 1 <= int(value) <= int(asked[name])
    got = dict(terms.granted)
    assert terms.block_size == int(got.get("blksize", 512))
    assert terms.window == int(got.get("windowsize", 1))
