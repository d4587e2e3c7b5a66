"""File names from the wire. Invariant: no name leads out of the root, and firmware's odd spellings still arrive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import BootId
from bootlink_tftp.folders import FileMissing, FileRefused, Folders
from bootlink_tftp.names import AutoexecName, LoaderName, NameRefused, ScriptName, parts, read

BOOT = "01a206f2-72e2-7b5b-b3af-df7cc1fbeb41"
BOOT_ID = BootId.parse(BOOT)

# The hand-made cases of PROTOCOLS section 6: traversal, absolute, backslash, NUL, UNC, drive letter, stream, case,
# URL encoding, over-long. Each is tried against a root that has a secret beside it.
TRAVERSALS = [
    b"../secret",
    b"../../../../../../../../etc/passwd",
    b"sub/../../secret",
    b"sub/../../../secret",
    b"./../secret",
    b"..\\secret",
    b"sub\\..\\..\\secret",
    b"..\\../secret",
    b"....//secret",
    b"..//secret",
    b"/../secret",
    b"/etc/passwd",
    b"//etc/passwd",
    b"///etc/passwd",
    b"\\\\server\\share\\secret",
    b"\\\\?\\C:\\secret",
    b"C:\\secret",
    b"C:/secret",
    b"c:secret",
    b"loader::$DATA",
    b"%2e%2e/secret",
    b"%2e%2e%2fsecret",
    b"..%2fsecret",
    b"..%5csecret",
    b"%252e%252e/secret",
    b"..%c0%afsecret",
    b"\xc0\xae\xc0\xae/secret",
    b"\xef\xbc\x8e\xef\xbc\x8e/secret",
    b"..\xff/secret",
    b"../secret\xff\xff",
    b".. /secret",
    b"sub/./../../secret",
    b"link",
    b"linkdir/secret",
    b"LINK",
    b"relative",
    b"a/" * 100 + b"secret",
    b"a" * 400,
    b"sub",
    b".",
    b"/",
    b"\\",
    b"",
    b"\xff",
    b"boot/" + BOOT.encode() + b"/../../../secret",
    b"boot/" + BOOT.encode() + b"/..\\..\\..\\secret",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a loader and links that lead out; a secret beside it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "loader").write_bytes(b"loader")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "relative").symlink_to("../secret")
    (root / "linkdir").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize("raw", TRAVERSALS, ids=lambda raw: ascii(raw)[2:40])
def test_no_name_leads_out_of_the_root(root: Path, raw: bytes) -> None:
    try:
        name = read(raw)
    except NameRefused:
        return
    assert isinstance(name, LoaderName)
    with pytest.raises((FileMissing, FileRefused)):
        Folders([root]).read(name.path)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_plain_segments(raw: bytes) -> None:
    try:
        segments = parts(raw)
    except NameRefused:
        return
    for segment in segments:
        assert segment
        assert segment not in (".", "..")
        assert not set(segment) & set("/\\\0:")


@given(st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "C:", "%2e", "\xff", " ", "boot", BOOT]), max_size=12))
def test_any_mixture_of_separators_and_dots_is_refused_or_plain_segments(pieces: list[str]) -> None:
    try:
        segments = parts("".join(pieces).encode("latin-1"))
    except NameRefused:
        return
    assert not {".", ".."} & set(segments)


@pytest.mark.parametrize(
    "raw",
    [
        b"undionly.kpxe",
        b"/undionly.kpxe",
        b"undionly.kpxe\xff",
        b"undionly.kpxe\xff\xff\xff",
        b"undionly.kpxe \r\n",
        b"\\undionly.kpxe",
    ],
)
def test_the_junk_that_firmware_appends_is_taken_off(raw: bytes) -> None:
    assert read(raw) == LoaderName(("undionly.kpxe",))


def test_windows_separators_become_ours() -> None:
    assert read(b"\\Boot\\BCD") == LoaderName(("Boot", "BCD"))


def test_a_loader_is_named_below_its_boot() -> None:
    assert read(f"boot/{BOOT}/undionly.kpxe".encode()) == LoaderName(("undionly.kpxe",), BOOT_ID)
    assert read(f"/Boot/{BOOT.upper()}/x64/snponly.efi\xff".encode("latin-1")) == LoaderName(
        ("x64", "snponly.efi"), BOOT_ID
    )


def test_a_script_is_named_by_the_mac_address() -> None:
    mac = "52:54:00:12:34:56"
    assert read(b"52-54-00-12-34-56.ipxe") == ScriptName(mac)
    assert read(f"boot/{BOOT}/52-54-00-12-34-56.IPXE".encode()) == ScriptName(mac, BOOT_ID)
    assert read(f"boot/{BOOT}/52-54-00-12-34-56.attach.ipxe".encode()) == ScriptName(mac, BOOT_ID, "attach")
    chosen = read(f"boot/{BOOT}/52-54-00-12-34-56.attach.ubuntu-24.04.ipxe".encode())
    assert chosen == ScriptName(mac, BOOT_ID, "attach", "ubuntu-24.04")


def test_a_mac_address_that_no_pc_has_is_refused() -> None:
    with pytest.raises(NameRefused):
        read(b"ff-ff-ff-ff-ff-ff.ipxe")


def test_autoexec_keeps_the_boot_it_was_asked_in() -> None:
    assert read(b"autoexec.ipxe") == AutoexecName()
    assert read(f"boot/{BOOT}/autoexec.ipxe".encode()) == AutoexecName(BOOT_ID)


def test_something_that_is_no_boot_id_is_a_folder_of_the_administrators() -> None:
    assert read(b"boot/grub/grub.cfg") == LoaderName(("boot", "grub", "grub.cfg"))


@pytest.mark.parametrize(
    ("name", "optional"),
    [
        (b"shim_certificate_0.efi", True),
        (b"revocations_sbat.efi", True),
        (b"grubx64.efi", False),
        (b"revocations_sbat.efi/x", False),
    ],
)
def test_what_a_shim_only_looks_for_is_known(name: bytes, optional: bool) -> None:
    found = read(b"boot/01a206db-1111-7222-8333-444444444444/" + name)
    assert isinstance(found, LoaderName)
    assert found.optional is optional
