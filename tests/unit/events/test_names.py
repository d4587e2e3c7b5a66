"""Names on the wire: what goes into an IQN comes out of it, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import (
    BootId,
    initiator_iqn,
    mac_token,
    normalise_mac,
    parse_initiator,
    parse_target,
    subject_token,
    target_entry,
    target_iqn,
)

MAC = "52:54:00:12:34:56"


@pytest.mark.parametrize(
    "text",
    [
        "52:54:00:12:34:56",
        "52-54-00-12-34-56",
        "5254.0012.3456",
        "525400123456",
        "525400-123456",
        " 52:54:00:12:34:56 ",
    ],
)
def test_a_mac_address_is_read_however_people_write_it(text: str) -> None:
    assert normalise_mac(text.upper()) == MAC


@pytest.mark.parametrize("text", ["52:54:00:1:23:456", "52:54-00:12:34:56", ":525400123456", "5-25400123456"])
def test_digits_in_the_wrong_places_are_no_other_pcs_address(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        normalise_mac(text)


@pytest.mark.parametrize(
    "text", ["", "52:54:00:12:34", "52:54:00:12:34:5g", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "0" * 12]
)
def test_what_no_pc_can_have_is_no_mac_address(text: str) -> None:
    with pytest.raises(ValueError):
        normalise_mac(text)


def test_the_initiator_name_carries_the_client_and_the_boot() -> None:
    boot_id = BootId.mint()
    assert parse_initiator(initiator_iqn(MAC, boot_id)) == (MAC, boot_id)
    assert parse_initiator(initiator_iqn(MAC, boot_id).upper()) == (MAC, boot_id)


def test_an_initiator_name_without_a_boot_id_still_names_the_client() -> None:
    assert parse_initiator(target_iqn(MAC)) == (MAC, None)


def test_a_damaged_initiator_name_names_nobody() -> None:
    assert parse_initiator(initiator_iqn(MAC, BootId.mint())[:-1]) == (None, None)


def test_the_target_name_carries_the_client() -> None:
    assert parse_target(target_iqn(MAC)) == MAC
    assert target_entry(target_iqn(MAC)) == ""
    assert parse_target(target_iqn(MAC) + ":") is None
    assert parse_target(target_iqn(MAC) + ":more:still") is None


@pytest.mark.parametrize("entry", ["win11", "ubuntu-24.04", "a", "x" * 63])
def test_the_target_name_carries_what_was_chosen_at_the_boot_menu(entry: str) -> None:
    assert parse_target(target_iqn(MAC, entry).upper()) == MAC
    assert target_entry(target_iqn(MAC, entry).upper()) == entry


@pytest.mark.parametrize("entry", ["-a", "a.", "a b", "../a", "x" * 64, "a/b"])
def test_what_is_no_name_is_no_entry_of_a_menu(entry: str) -> None:
    assert parse_target(target_iqn(MAC, entry)) is None
    assert target_entry(target_iqn(MAC, entry)) == ""


@given(st.text(max_size=400))
def test_a_foreign_name_never_raises(name: str) -> None:
    assert parse_initiator(name) == (None, None)
    assert parse_target(name) is None
    assert target_entry(name) == ""


@given(st.text(max_size=80))
def test_any_name_becomes_one_token_of_a_subject(name: str) -> None:
    token = subject_token(name)
    assert token
    assert not set(token) & set(".*> \t\r\n")


def test_the_token_of_a_mac_address_reads_back() -> None:
    assert normalise_mac(mac_token(MAC)) == MAC
