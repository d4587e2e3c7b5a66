"""The cluster key: where it is read from, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootlink_events import BootId, ClusterKey
from bootlink_runtime import ClusterSettings, StartupError, load

MAC, BOOT = "52:54:00:00:00:01", BootId.mint()
KEY = "an administrator's own key, long enough"


def same(key: ClusterKey | None, text: str) -> bool:
    return key is not None and key.credentials(MAC, BOOT) == ClusterKey(text.encode()).credentials(MAC, BOOT)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BOOTLINK_CLUSTER_KEY", "BOOTLINK_CLUSTER_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)


def test_no_key_is_none() -> None:
    assert load(ClusterSettings).shared_key() is None


def test_the_key_comes_from_the_environment_or_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    monkeypatch.setenv("BOOTLINK_CLUSTER_KEY_FILE", str(path))
    assert same(load(ClusterSettings).shared_key(), KEY)
    monkeypatch.setenv("BOOTLINK_CLUSTER_KEY", KEY[::-1])
    assert same(load(ClusterSettings).shared_key(), KEY[::-1])


def test_the_key_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTLINK_CLUSTER_KEY", KEY)
    assert KEY not in repr(load(ClusterSettings))
    assert KEY not in load(ClusterSettings).model_dump_json()


@pytest.mark.parametrize("content", [None, b"", b"short", b"\xff" * 40])
def test_a_key_that_is_none_stops_the_service_and_says_which_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("BOOTLINK_CLUSTER_KEY_FILE", str(path))
    with pytest.raises(StartupError) as caught:
        load(ClusterSettings).shared_key()
    assert "BOOTLINK_CLUSTER_KEY_FILE" in f"{caught.value.problem} {caught.value.remedy}"
    assert "short" not in str(caught.value).replace("too short", "")
