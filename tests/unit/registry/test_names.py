"""Names that administrators give, and the settings that make some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_registry.names import as_mac, check_name
from bootlink_registry.settings import RegistrySettings
from bootlink_runtime import StartupError, load


@pytest.mark.parametrize("name", ["a", "7", "win11", "pc-007", "ubuntu-24.04", "x" * 63])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Win11", "a b", "-a", "a-", ".a", "a_b", "a\n", "${net0/mac}", "<b>", "x" * 64, "5254.0012.3456"]
)
def test_what_could_hurt_a_script_a_path_or_a_reader_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        check_name(name)


@given(st.text(max_size=70))
def test_no_name_reads_as_a_mac_address_or_holds_a_character_that_means_something(text: str) -> None:
    try:
        check_name(text)
    except ValueError:
        return
    assert as_mac(text) is None
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


@pytest.mark.parametrize("pattern", ["pc", "pc-{n", "{m}", "PC-{n}", "{n.x}", "{}", "-{n}", "{n:99999999}", "{n!r}"])
def test_an_enrolment_pattern_that_makes_no_names_is_told_at_start(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTLINK_REGISTRY_ENROL_NAME", pattern)
    with pytest.raises(StartupError, match="BOOTLINK_REGISTRY_ENROL_NAME"):
        load(RegistrySettings)


def test_the_databases_url_has_one_name_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTLINK_DATABASE_URL", "postgresql://x/y")
    monkeypatch.setenv("BOOTLINK_REGISTRY_API_PORT", "0")
    settings = load(RegistrySettings)
    assert (settings.database_url, settings.api_port, settings.enrol_name) == ("postgresql://x/y", 0, "pc-{n:03}")
