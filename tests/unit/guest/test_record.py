"""The recorded boot: what the relay hears of a session, and the file that came of it."""

from __future__ import annotations

from bootlink_wire.scsi_cdb import SECTOR
from guest.record import Listener
from lab.boot_reads import BootRead, BootReads, load
from lab.iscsi import IPXE_KEYS, OPEN_ISCSI_KEYS, Speaker, read_10, read_16, write_10


def test_reads_are_heard_however_the_stream_is_cut_and_nothing_else_is() -> None:
    for keys, who in ((IPXE_KEYS, "firmware"), (OPEN_ISCSI_KEYS, "os")):
        speaker = Speaker(keys=list(keys))
        stream = b"".join(
            pdu.encode()
            for pdu in (
                speaker.login(),
                speaker.command(read_10(7, 3), expected=3 * SECTOR),
                speaker.command(write_10(1, 1), expected=SECTOR, write=True, data=bytes(SECTOR)),
                speaker.command(read_16(1 << 33, 128), expected=128 * SECTOR),
            )
        )
        for step in (1, 47, len(stream)):
            reads: list[BootRead] = []
            listener = Listener(0, reads)
            for at in range(0, len(stream), step):
                listener.hear(stream[at : at + step])
            assert [read[1:] for read in reads] == [(7 * 512, 3 * 512, who), (1 << 42, 128 * 512, who)]


def test_the_recorded_boot_goes_from_firmware_to_operating_system_within_its_disk() -> None:
    boot = load()
    assert BootReads.parse(boot.dump()) == boot
    assert boot.reads[0].initiator == "firmware"
    assert boot.reads[-1].initiator == "os"
    assert len(boot.reads) > 1000
    previous = 0
    for read in boot.reads:
        assert read.milliseconds >= previous
        assert read.offset % SECTOR == read.length % SECTOR == 0 < read.length
        assert read.offset + read.length <= boot.size
        previous = read.milliseconds
