"""Loaders: what a file is, what lies in the folders, and who is given what."""

from __future__ import annotations

import contextlib
import random
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bootlink_events
from bootlink_dhcp.bootfiles import ARCHITECTURES, BootClient, BootFiles, applies, architecture
from bootlink_dhcp.loader_image import HEAD_SIZE, NBP_MAX, Image, LoaderUnfit, examine
from bootlink_dhcp.loaders import LoaderShelf
from bootlink_events import BootId, LoaderRule
from lab.loaders import NBP, SIZE, AtHand, efi_program, put_loaders
from lab.netns import tool

MAC = "00:1b:21:aa:bb:cc"
DEBIAN = Path("/usr/lib/ipxe")


def reason(data: bytes) -> str:
    with pytest.raises(LoaderUnfit) as caught:
        examine(data[:HEAD_SIZE], len(data))
    return str(caught.value)


def test_debians_loaders_are_what_they_are_sent_for() -> None:
    for name, image in (("undionly.kpxe", Image.NBP), ("ipxe.pxe", Image.NBP), ("snponly.efi", Image.X64)):
        data = (DEBIAN / name).read_bytes()
        assert examine(data[:HEAD_SIZE], len(data)) is image
    whole = (DEBIAN / "snponly.efi").read_bytes()
    assert reason(whole[:-1000]) == f"is cut off: it has {len(whole) - 1000} bytes of {len(whole)}"
    assert reason(whole[:300]) == "is cut off within its header, or no UEFI program"


@pytest.mark.parametrize("image", [image for image in Image if image is not Image.NBP])
def test_a_uefi_program_is_known_by_its_machine(image: Image) -> None:
    assert examine(efi_program(image), SIZE) is image


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\xeb\x00" * 10, "has 20 bytes, which is no boot program"),
        (b"\xeb" * (NBP_MAX + 1), "more than a BIOS can load"),
        (b"<!DOCTYPE html><title>404 Not Found</title>".ljust(2000), "is a web page"),
        (b"\r\n\r\n<html>".ljust(2000), "is a web page"),
        (b"#!ipxe\nautoboot\n".ljust(2000), "is a script"),
        (b"\x7fELF".ljust(2000, b"\x01"), "is a program for Linux"),
        (b"\x1f\x8b\x08".ljust(2000, b"\x01"), "is compressed with gzip"),
        (b"\x55\xaa\x80".ljust(2000, b"\x01"), "option ROM"),
        (bytes(2000), "begins with nothing but zeros"),
        (b"MZ", "is cut off within its header"),
        (b"MZ".ljust(0x3C, b"\0") + b"\x40\0\0\0" + b"NE".ljust(2000, b"\0"), "is a DOS program"),
        (efi_program(subsystem=3), "is a Windows program"),
        (efi_program()[:700], "is cut off: it has 700 bytes of 1024"),
    ],
)
def test_what_starts_no_pc_is_refused_with_the_reason(data: bytes, words: str) -> None:
    assert words in reason(data)


@given(st.binary(max_size=2000), st.integers(0, 1 << 20))
def test_no_bytes_make_it_raise_anything_else(data: bytes, size: int) -> None:
    with contextlib.suppress(LoaderUnfit):
        examine(data, max(size, len(data)))


def test_neither_does_a_broken_header() -> None:
    noise = random.Random(7)
    for _ in range(3000):
        data = bytearray(efi_program())
        for _ in range(3):
            data[noise.randrange(0x200)] = noise.randrange(256)
        with contextlib.suppress(LoaderUnfit):
            examine(bytes(data), len(data))


def test_the_first_folder_that_has_a_name_decides_as_it_does_for_tftp(tmp_path: Path) -> None:
    own, system = put_loaders(tmp_path / "own", []), put_loaders(tmp_path / "system")
    shelf = LoaderShelf((own, system, tmp_path / "absent"))
    assert shelf.look() == {"undionly.kpxe", "snponly.efi"}
    assert list(shelf) == ["snponly.efi", "undionly.kpxe"]
    assert not shelf.look()
    (own / "snponly.efi").write_bytes(b"")
    assert shelf.look() == {"snponly.efi"}
    assert list(shelf) == ["undionly.kpxe"]
    assert shelf.problems() == [f"{own / 'snponly.efi'} is empty"]
    (own / "snponly.efi").unlink()
    (own / "snponly.efi").symlink_to(system / "snponly.efi")  # as in Debian's package; tftp follows no link
    shelf.look()
    assert shelf.fits("snponly.efi", Image.X64)
    assert not shelf.problems()


def test_a_loader_of_another_kind_than_its_name_says_is_not_offered(tmp_path: Path) -> None:
    (tmp_path / "undionly.kpxe").write_bytes(efi_program())
    (tmp_path / "snponly.efi").write_bytes(efi_program(Image.ARM64))
    (tmp_path / "ipxe.efi").write_bytes(NBP)
    shelf = LoaderShelf((tmp_path,))
    shelf.look()
    assert not list(shelf)
    assert shelf.problems() == [
        f"{tmp_path / 'ipxe.efi'} is a BIOS boot program, not a UEFI program for x64",
        f"{tmp_path / 'snponly.efi'} is a UEFI program for arm64, not a UEFI program for x64",
        f"{tmp_path / 'undionly.kpxe'} is a UEFI program for x64, not a BIOS boot program",
    ]


def test_a_shim_is_offered_beside_its_second_stage_and_not_without(tmp_path: Path) -> None:
    own, system = put_loaders(tmp_path / "own", ["snponly-shimx64.efi"]), put_loaders(tmp_path / "system")
    shelf = LoaderShelf((own, system))
    shelf.look()
    files = BootFiles(IPv4Address("10.0.0.1"), 69, shelf)
    client = BootClient(architecture(7), "PXEClient", ipxe=False, http=False)
    assert files.candidates(client, MAC) == ("snponly.efi",)  # Debian's, which nobody signed, is not the shim's
    assert "loads snponly.efi from its own folder" in shelf.problems()[0]
    put_loaders(own, ["snponly.efi"])
    shelf.look()
    assert files.candidates(client, MAC) == ("snponly-shimx64.efi", "snponly.efi")
    assert not shelf.problems()


def test_loaders_may_lie_in_a_folder_below_and_names_that_do_not_fit_a_packet_are_left_out(tmp_path: Path) -> None:
    put_loaders(tmp_path / "vendor" / "deeper", ["snponly.efi"])
    put_loaders(tmp_path / "vendor", ["snponly.efi", "x" * 60 + ".efi", ".hidden.efi"])
    shelf = LoaderShelf((tmp_path,), [LoaderRule(arch="uefi-x64", loaders=("vendor/snponly.efi",))])
    assert shelf.look() == {"vendor/snponly.efi"}
    assert list(shelf) == ["vendor/snponly.efi"]


def test_a_fifo_and_an_unreadable_file_delay_nobody(tmp_path: Path) -> None:
    subprocess.run([tool("mkfifo", "coreutils"), str(tmp_path / "snponly.efi")], check=True)
    shelf = LoaderShelf((tmp_path,))
    assert not shelf.look()


@pytest.mark.parametrize(
    ("rule", "does"),
    [
        (LoaderRule(loaders=("a.efi",)), True),
        (LoaderRule(arch="uefi-x64", loaders=("a.efi",)), True),
        (LoaderRule(arch="bios", loaders=("a.efi",)), False),
        (LoaderRule(vendor_class="PXEClient:Arch:00007", loaders=("a.efi",)), True),
        (LoaderRule(vendor_class="HTTPClient", loaders=("a.efi",)), False),
        (LoaderRule(model="00:1B:21", loaders=("a.efi",)), True),
        (LoaderRule(model="00-1b-21", loaders=("a.efi",)), True),
        (LoaderRule(model="00:1b:22", loaders=("a.efi",)), False),
    ],
)
def test_a_rule_is_for_clients_that_all_of_it_fits(rule: LoaderRule, does: bool) -> None:
    client = BootClient(architecture(7), "PXEClient:Arch:00007:UNDI:003000", ipxe=False, http=False)
    assert applies(rule, client, MAC) is does


def test_a_groups_rules_come_before_the_settings_and_those_before_the_table() -> None:
    at_hand = AtHand("group.efi", "settings.efi", "snponly.efi", "ipxe.efi")
    settings = (LoaderRule(loaders=("settings.efi", "missing.efi")), LoaderRule(arch="bios", loaders=("ipxe.efi",)))
    files = BootFiles(IPv4Address("10.0.0.1"), 69, at_hand, rules=settings)
    client = BootClient(architecture(7), "PXEClient", ipxe=False, http=False)
    group = (LoaderRule(model="00:1b:21", loaders=("group.efi", "ipxe.efi")),)
    assert files.candidates(client, MAC, group) == ("group.efi", "ipxe.efi", "settings.efi", "snponly.efi")
    assert files.candidates(client, "00:00:00:00:00:07", group) == ("settings.efi", "snponly.efi", "ipxe.efi")


def test_http_boot_is_a_whole_url_and_needs_a_port() -> None:
    client = BootClient(architecture(16), "HTTPClient:Arch:00016", ipxe=False, http=True)
    without = BootFiles(IPv4Address("10.0.0.1"), 69, AtHand("snponly.efi"))
    assert without.candidates(client, MAC) == ()
    assert "BOOTLINK_TFTP_HTTP_PORT" in without.remedy(client)
    boot_id = BootId.mint()
    for port, root in ((80, "http://10.0.0.1"), (8080, "http://10.0.0.1:8080")):
        files = BootFiles(IPv4Address("10.0.0.1"), 69, AtHand("snponly.efi"), port)
        (loader,) = files.candidates(client, MAC)
        assert files.loader_file(boot_id, loader, client) == f"{root}/boot/{boot_id}/snponly.efi"


def test_scripts_come_over_http_where_that_is_set() -> None:
    boot_id = BootId.mint()
    files = BootFiles(IPv4Address("10.0.0.1"), 69, AtHand(), 8080, http_scripts=True)
    assert files.script_file(boot_id, MAC) == f"http://10.0.0.1:8080/boot/{boot_id}/00-1b-21-aa-bb-cc.ipxe"


def test_every_boot_file_fits_its_field() -> None:
    files = BootFiles(IPv4Address("255.255.255.255"), 65535, AtHand(), 65535)
    for http, ipxe in ((False, False), (False, True), (True, False)):
        client = BootClient(architecture(7), "", ipxe=ipxe, http=http)
        assert len(files.loader_file(BootId.mint(), "x" * 48, client)) <= 128


def test_every_architecture_says_what_to_do_where_there_is_no_loader() -> None:
    for row in (*ARCHITECTURES.values(), architecture(4711)):
        assert row.remedy
        assert (row.image is None) == (not row.loaders)


def test_the_registry_knows_the_names_of_all_architectures() -> None:
    assert {row.name for row in ARCHITECTURES.values()} == bootlink_events.ARCHITECTURES


def test_debians_package_has_loaders_for_bios_and_x64_and_for_nothing_else() -> None:
    """As docs/dhcp.md says: what IA32 and ARM firmware is to start must come from elsewhere."""
    shelf = LoaderShelf((DEBIAN,))
    shelf.look()
    files = BootFiles(IPv4Address("10.0.0.1"), 69, shelf, http_port=80)
    served = {
        row.name for row in ARCHITECTURES.values() if files.candidates(BootClient(row, "", ipxe=False, http=False), MAC)
    }
    assert served == {"bios", "uefi-x64", "http-x64"}
