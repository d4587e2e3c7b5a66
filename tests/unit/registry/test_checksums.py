"""Checksum files, as people write them."""

from __future__ import annotations

import pytest

from bootlink_registry.imaging.checksums import find

ONE, TWO = "ab" * 32, "cd" * 32


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ONE, ONE),
        (f"{ONE}\n", ONE),
        (ONE.upper(), ONE),
        (f"{ONE}  win11.vhd\n", ONE),
        (f"{ONE} *win11.vhd\r\n", ONE),
        (f"{ONE}  ./images/win11.vhd\n", ONE),
        (f"{ONE} *C:\\images\\win11.vhd\n", ONE),
        (f"SHA256 (win11.vhd) = {ONE}\n", ONE),
        (f"# sums\n{TWO}  other.vhd\n{ONE}  win11.vhd\n", ONE),
        (f"{ONE}  former-name.vhd\n", ONE),
        (f"{ONE}  a.vhd\n{TWO}  b.vhd\n", None),
        ("", None),
        (ONE[:-1], None),
        (f"{ONE}0", None),
        ("<html>", None),
        (f"SHA512 (win11.vhd) = {ONE}", None),
    ],
)
def test_the_sum_of_a_file_is_found(text: str, found: str | None) -> None:
    assert find(text, "win11.vhd") == found
