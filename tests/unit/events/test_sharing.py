"""How plans lie in their bucket: a plan that is taken apart is the same plan when it is put together."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from pydantic import ValidationError

from bootlink_events import (
    NAME,
    BootPlan,
    ClientPart,
    OwnFields,
    Refusal,
    SharedFields,
    SharedPart,
    is_shared,
    join,
    mac_token,
    read_entry,
    read_plan,
    shared_key,
)

MAC = "52:54:00:12:34:56"
OWN = {"mac": MAC, "client": "pc-07", "group": "a", "address": IPv4Address("10.0.0.7"), "target": "iqn.2026-11.io.x:y"}
SHARED = {"portals": ("10.0.0.1:3260",), "chap": "mutual"}
WHOLE = BootPlan(**OWN, **SHARED, revision=7)


def test_each_field_of_a_plan_is_either_the_clients_own_or_shared() -> None:
    own, shared = set(OwnFields.model_fields), set(SharedFields.model_fields)
    assert not own & shared
    assert set(BootPlan.model_fields) == own | shared
    assert set(ClientPart.model_fields) == own | {"shares"}
    assert set(SharedPart.model_fields) == shared | {"revision"}


@pytest.mark.parametrize(("client", "shared"), [(7, 3), (3, 7), (7, 7)])
def test_the_two_parts_make_the_plan_with_the_newer_revision(client: int, shared: int) -> None:
    part = ClientPart(**OWN, revision=client, shares="shared_a")
    made = join(part, SharedPart(**SHARED, revision=shared))
    assert made == WHOLE
    assert BootPlan.model_validate_json(made.model_dump_json()) == WHOLE


def test_a_refusal_that_is_shared_names_each_client() -> None:
    refusal = Refusal(cause="no_link", detail=f"{NAME} has no link", remedy=f"bootlink link set {NAME} IMAGE")
    shared = SharedPart(refusal=refusal, revision=1)
    for client in ("pc-07", "pc-08"):
        told = join(ClientPart(**{**OWN, "client": client}, revision=1, shares="shared"), shared).refusal
        assert told == Refusal(
            cause="no_link", detail=f"{client} has no link", remedy=f"bootlink link set {client} IMAGE"
        )


def test_an_entry_is_read_as_what_it_is() -> None:
    part = ClientPart(**OWN, revision=1, shares="shared_a")
    assert read_entry(part.model_dump_json().encode()) == part
    assert read_entry(WHOLE.model_dump_json().encode()) == WHOLE
    for wrong in (
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"shares": 1}',
        b'"shares"',
        b"\xff",
        part.model_dump_json().encode()[:-1],
    ):
        with pytest.raises(ValidationError):
            read_entry(wrong)


def test_a_plan_is_read_of_what_the_bucket_holds() -> None:
    key, shared = mac_token(MAC), shared_key("a")
    part = ClientPart(**OWN, revision=1, shares=shared).model_dump_json().encode()
    entries = {key: part, shared: SharedPart(**SHARED, revision=7).model_dump_json().encode()}
    assert read_plan(entries, key) == WHOLE
    assert read_plan({key: part}, key) is None
    assert read_plan({}, key) is None
    assert read_plan({key: WHOLE.model_dump_json().encode()}, key) == WHOLE


def test_the_key_of_a_shared_part_is_no_clients_and_one_groups_alone() -> None:
    keys = [shared_key(group) for group in (None, "a", "a.b", "a..b", "a-b", "shared")]
    assert len(set(keys)) == len(keys)
    assert all(map(is_shared, keys))
    assert not any("." in key for key in keys)
    assert not is_shared(mac_token(MAC))
    assert not is_shared("rubbish")
