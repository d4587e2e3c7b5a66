"""The demo disk's first sector, byte for byte."""

from guest.disk import Partition, boot_record


def test_a_boot_record_has_the_partitions_and_grubs_code() -> None:
    record = boot_record(
        bytes(range(256)) * 2, Partition(0x83, 2048, 1046528, active=True), Partition(0xEF, 1048576, 8192)
    )
    assert len(record) == 512
    assert record[:440] == (bytes(range(256)) * 2)[:440]
    assert record[446:462] == bytes.fromhex("80 feffff 83 feffff 00080000 00f80f00")
    assert record[462:478] == bytes.fromhex("00 feffff ef feffff 00001000 00200000")
    assert record[478:510] == bytes(32)
    assert record[510:] == b"\x55\xaa"


def test_a_short_boot_code_is_padded_not_shifted() -> None:
    assert boot_record(b"\xeb\x63", Partition(0x83, 1, 1))[510:] == b"\x55\xaa"
