"""The demo disk's first sector, byte for byte."""

from guest.disk import boot_record


def test_a_boot_record_has_one_bootable_linux_partition_and_grubs_code() -> None:
    record = boot_record(bytes(range(256)) * 2, 2048, 1046528)
    assert len(record) == 512
    assert record[:440] == (bytes(range(256)) * 2)[:440]
    assert record[446:462] == bytes.fromhex("80 feffff 83 feffff 00080000 00f80f00")
    assert record[462:510] == bytes(48)
    assert record[510:] == b"\x55\xaa"


def test_a_short_boot_code_is_padded_not_shifted() -> None:
    assert boot_record(b"\xeb\x63", 1, 1)[510:] == b"\x55\xaa"
