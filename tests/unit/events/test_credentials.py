"""CHAP secrets: the same for all who share a key, and for nobody else."""

from __future__ import annotations

import re

import pytest

from bootlink_events import BootId, ClusterKey
from bootlink_events.credentials import SECRET_SIZE

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
BOOT = BootId.parse("01a206f2-72e2-7b5b-b3af-df7cc1fbeb41")
SECRET, TARGET_SECRET = "vPWKwIVAlikBXhXs", "LqWXUuGzC4fbYzXz"
KEY = b"0123456789abcdef0123456789abcdef"


def test_services_that_share_a_key_derive_the_same_secrets() -> None:
    first, second = (ClusterKey(KEY).credentials(MAC, BOOT) for _ in range(2))
    assert first == second
    # Fixed for ever: a service of another version must come to the same.
    assert (first.user, first.secret, first.target_secret) == ("52-54-00-00-00-01", SECRET, TARGET_SECRET)


def test_another_key_boot_client_or_direction_has_another_secret() -> None:
    cases = [
        ClusterKey(KEY).credentials(MAC, BOOT),
        ClusterKey(KEY[::-1]).credentials(MAC, BOOT),
        ClusterKey(KEY).credentials(OTHER, BOOT),
        ClusterKey(KEY).credentials(MAC, BootId.mint()),
    ]
    assert len({c.secret for c in cases} | {c.target_secret for c in cases}) == 8


def test_a_secret_is_16_letters_and_digits() -> None:
    """12 to 16 bytes for Microsoft's initiator; nothing that means something to an iPXE script."""
    for _ in range(200):
        made = ClusterKey(KEY).credentials(MAC, BootId.mint())
        for secret in (made.secret, made.target_secret):
            assert re.fullmatch(rf"[A-Za-z0-9]{{{SECRET_SIZE}}}", secret)


def test_no_repr_shows_a_secret() -> None:
    key = ClusterKey(KEY)
    made = key.credentials(MAC, BOOT)
    shown = repr(made) + str(made) + repr(key) + str(key)
    assert made.secret not in shown
    assert made.target_secret not in shown
    assert KEY.decode() not in shown


def test_a_short_key_is_none() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        ClusterKey(b"short")
