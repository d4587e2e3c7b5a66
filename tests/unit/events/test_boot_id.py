"""The boot id is identity, trace id, fencing token and file name at once."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bootlink_events import BootId

MILLISECONDS = st.integers(min_value=0, max_value=2**48 - 2)


@given(MILLISECONDS)
def test_a_boot_id_is_a_version_7_uuid_that_tells_its_time(now_ms: int) -> None:
    boot_id = BootId.mint(now_ms=now_ms)
    standard = uuid.UUID(str(boot_id))
    assert (standard.version, standard.variant) == (7, uuid.RFC_4122)
    assert boot_id.timestamp_ms == now_ms
    assert BootId.parse(str(boot_id)) == boot_id


@given(MILLISECONDS, MILLISECONDS)
def test_a_newer_boot_is_greater_even_when_the_clock_jumped_back(first_ms: int, second_ms: int) -> None:
    former = BootId.mint(now_ms=first_ms)
    assert BootId.mint(now_ms=second_ms, after=former) > former


@given(MILLISECONDS)
def test_the_trace_and_span_ids_are_ones_that_opentelemetry_takes(now_ms: int) -> None:
    boot_id = BootId.mint(now_ms=now_ms)
    assert 0 < boot_id.trace_id < 2**128
    assert 0 < boot_id.root_span_id < 2**64


def test_boot_ids_of_one_millisecond_differ() -> None:
    assert len({BootId.mint(now_ms=1) for _ in range(1000)}) == 1000


VERSION_4 = "3f1d8a52-6f0c-4c53-9a4e-0d5c1f7f6a11"


@pytest.mark.parametrize("text", ["", "pc-07", VERSION_4, "00000000-0000-0000-0000-000000000000", "0" * 36])
def test_what_is_no_version_7_uuid_is_no_boot_id(text: str) -> None:
    with pytest.raises(ValueError):
        BootId.parse(text)


def test_a_model_takes_a_boot_id_as_text_and_writes_it_as_text() -> None:
    class Model(BaseModel):
        boot_id: BootId

    boot_id = BootId.mint()
    model = Model.model_validate({"boot_id": str(boot_id)})
    assert isinstance(model.boot_id, BootId)
    assert model.model_dump(mode="json") == {"boot_id": str(boot_id)}
    with pytest.raises(ValidationError):
        Model.model_validate({"boot_id": str(uuid.uuid4())})
