"""Options that an administrator writes: each type's bytes, and what is refused with which words."""

from __future__ import annotations

import pytest

from bootlink_wire.dhcp_values import KINDS, RESERVED, TYPES, check_code, check_type, encode_value


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("address", "10.77.0.5", b"\x0a\x4d\0\5"),
        ("addresses", "10.77.0.5, 10.77.0.6", b"\x0a\x4d\0\5\x0a\x4d\0\6"),
        ("text", "lab.example", b"lab.example"),
        ("byte", "255", b"\xff"),
        ("word", "258", b"\1\2"),
        ("long", "4294967295", b"\xff\xff\xff\xff"),
        ("flag", "true", b"\1"),
        ("flag", "False", b"\0"),
        ("domains", "lab.example,a.b.", b"\3lab\7example\0\1a\1b\0"),
        ("hex", "01:0a-FF 00", b"\x01\x0a\xff\x00"),
    ],
)
def test_each_type_has_its_bytes(kind: str, text: str, value: bytes) -> None:
    assert encode_value(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("address", "10.77.0", "10.77.0"),
        ("addresses", "10.77.0.5,,", "cannot be empty"),
        ("text", "", "the value is empty"),
        ("text", "a\0b", "no printable ASCII"),
        ("text", "grün", "no printable ASCII"),
        ("text", "x" * 256, "takes 256 bytes; an option has 255"),
        ("byte", "256", "no number from 0 to 255"),
        ("word", "-1", "no number from 0 to 65535"),
        ("long", "4294967296", "no number from 0 to 4294967295"),
        ("flag", "yes", "neither true nor false"),
        ("domains", "a..b", "no domain name"),
        ("domains", "-a", "no domain name"),
        ("domains", ".".join(4 * ["a" * 63]), "takes 257 bytes"),
        ("hex", "1", "no row of hexadecimal bytes"),
        ("hex", "zz", "no row of hexadecimal bytes"),
        ("address6", "::1", "no type of option; there are: address,"),
    ],
)
def test_what_is_no_value_is_told_why(kind: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode_value(kind, text)


def test_what_bootlink_sets_itself_cannot_be_set_by_hand() -> None:
    for code, reason in RESERVED.items():
        with pytest.raises(ValueError, match="set by Bootlink itself") as caught:
            check_code(code)
        assert reason in str(caught.value)
    for code in (0, 255, 256):
        with pytest.raises(ValueError, match="codes go from 1 to 254"):
            check_code(code)
    for code in (3, 6, 12, 15, 42, 43, 60, 119, 150, 252):
        check_code(code)
    assert len(KINDS) == 9


@pytest.mark.parametrize(
    ("code", "kind", "refused"),
    [
        (42, "text", "it holds addresses, not text"),
        (26, "text", "it holds word, not text"),
        (119, "text", "it holds domains, not text"),
        (3, "address", None),
        (3, "hex", None),
        (224, "text", None),
    ],
)
def test_an_option_whose_type_is_settled_is_no_other(code: int, kind: str, refused: str | None) -> None:
    if refused is None:
        check_type(code, kind)
    else:
        with pytest.raises(ValueError, match=refused):
            check_type(code, kind)
    assert set(TYPES.values()) <= KINDS.keys()
