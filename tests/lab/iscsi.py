"""An iSCSI initiator for tests: it builds PDUs and understands answers, and does nothing else by itself.

`Speaker` makes PDUs with the right numbers. `Initiator` is a Speaker over TCP, one exchange at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_codes import FINAL, NO_TAG, LoginStatus
from bootlink_wire.iscsi_digest import NONE, Digests, front
from bootlink_wire.iscsi_pdu import Pdu
from bootlink_wire.scsi_cdb import SECTOR, Op

ISID = bytes.fromhex("00023d000001")  # what open-iscsi's iscsistart uses on every machine
IPXE_ISID = bytes.fromhex("400027231a2b")
REPLY_SECONDS = 10.0

# What they offer, as captured (PROTOCOLS 2.1) and as iPXE's source has it.
IPXE_KEYS = [
    ("HeaderDigest", "None"),
    ("DataDigest", "None"),
    ("InitialR2T", "Yes"),
    ("ImmediateData", "No"),
    ("MaxRecvDataSegmentLength", "8192"),
    ("MaxBurstLength", "262144"),
    ("FirstBurstLength", "65536"),
    ("DefaultTime2Wait", "0"),
    ("DefaultTime2Retain", "0"),
    ("MaxOutstandingR2T", "1"),
    ("DataPDUInOrder", "Yes"),
    ("DataSequenceInOrder", "Yes"),
    ("ErrorRecoveryLevel", "0"),
]
OPEN_ISCSI_KEYS = [
    ("HeaderDigest", "None"),
    ("DataDigest", "None"),
    ("DefaultTime2Wait", "2"),
    ("DefaultTime2Retain", "0"),
    ("IFMarker", "No"),
    ("OFMarker", "No"),
    ("ErrorRecoveryLevel", "0"),
    ("InitialR2T", "No"),
    ("ImmediateData", "Yes"),
    ("MaxBurstLength", "16776192"),
    ("FirstBurstLength", "262144"),
    ("MaxOutstandingR2T", "1"),
    ("MaxConnections", "1"),
    ("DataPDUInOrder", "Yes"),
    ("DataSequenceInOrder", "Yes"),
    ("MaxRecvDataSegmentLength", "262144"),
]


def read_10(lba: int, sectors: int) -> bytes:
    return struct.pack(">BBIBHB", Op.READ_10, 0, lba, 0, sectors, 0)


def read_16(lba: int, sectors: int) -> bytes:
    return struct.pack(">BBQIBB", Op.READ_16, 0, lba, sectors, 0, 0)


def write_10(lba: int, sectors: int, *, fua: bool = False) -> bytes:
    return struct.pack(">BBIBHB", Op.WRITE_10, 8 if fua else 0, lba, 0, sectors, 0)


def unmap(extents: Sequence[tuple[int, int]]) -> tuple[bytes, bytes]:
    """The CDB and the parameter list (SBC-3, section 5.28) for extents of (LBA, sectors)."""
    descriptors = b"".join(struct.pack(">QIxxxx", lba, sectors) for lba, sectors in extents)
    parameters = struct.pack(">HHxxxx", len(descriptors) + 6, len(descriptors)) + descriptors
    return struct.pack(">BxxxxxxHx", Op.UNMAP, len(parameters)), parameters


@dataclass
class Speaker:
    """Who speaks, and with which numbers."""

    name: str = "iqn.1993-08.org.debian:01:test"
    target: str = "iqn.2026-11.io.bootlink:52-54-00-00-00-01"
    isid: bytes = ISID
    lun: int = 0  # that commands go to, unless told
    cmdsn: int = 1
    itt: int = 0
    keys: list[tuple[str, str]] = field(default_factory=lambda: list(OPEN_ISCSI_KEYS))

    def tag(self) -> int:
        self.itt += 1
        return self.itt

    def login(
        self,
        *,
        flags: int = FINAL | 1 << 2 | 3,
        discovery: bool = False,
        tsih: int = 0,
        more: Sequence[tuple[str, str]] = (),
    ) -> pdu.LoginRequest:
        """One request straight from the operational stage to full feature."""
        kind = [("SessionType", "Discovery")] if discovery else [("TargetName", self.target)]
        pairs = [("InitiatorName", self.name), *kind, *self.keys, *more]
        return pdu.LoginRequest(
            flags=flags,
            isid=self.isid,
            tsih=tsih,
            itt=self.tag(),
            cmdsn=self.cmdsn,
            data=text.encode(pairs),
            immediate=True,
        )

    def command(
        self,
        cdb: bytes,
        *,
        expected: int = 0,
        write: bool = False,
        data: bytes = b"",
        final: bool = True,
        lun: int | None = None,
        cmdsn: int | None = None,
        immediate: bool = False,
    ) -> pdu.ScsiCommand:
        direction = (codes.WRITE if write else codes.READ) if expected else 0
        number = self.cmdsn if cmdsn is None else cmdsn
        if cmdsn is None and not immediate:
            self.cmdsn = (self.cmdsn + 1) & 0xFFFFFFFF
        return pdu.ScsiCommand(
            flags=(FINAL if final else 0) | direction | 1,
            lun=(self.lun if lun is None else lun) << 48,
            itt=self.tag(),
            expected=expected,
            cmdsn=number,
            cdb=cdb.ljust(16, b"\0"),
            data=data,
            immediate=immediate,
        )

    def task(self, function: int, *, referenced: int = NO_TAG, refcmdsn: int = 0, lun: int = 0) -> pdu.TaskRequest:
        return pdu.TaskRequest(
            function=FINAL | function,
            lun=lun << 48,
            itt=self.tag(),
            referenced=referenced,
            refcmdsn=refcmdsn,
            cmdsn=self.cmdsn,
            immediate=True,
        )


class LoginFailed(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"0x{status:04x}")
        self.status = status


class CheckConditionSeen(Exception):
    """The command ended with CHECK CONDITION; `key` and `code` are its sense."""

    def __init__(self, data: bytes) -> None:
        sense = data[2:]
        self.key, self.code = sense[2] & 0x0F, sense[12] << 8 | sense[13]
        super().__init__(f"sense {self.key:x} {self.code:04x}")


class Initiator(Speaker):
    """A Speaker with a connection. `closed` when the target has closed it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rest: bytes = b""
    digests: Digests = NONE  # as its last login has agreed

    @classmethod
    async def connect(cls, host: str, port: int, **who: object) -> Initiator:
        self = cls(**who)  # type: ignore[arg-type]
        self.reader, self.writer = await asyncio.open_connection(host, port)
        return self

    @classmethod
    async def logged_in(cls, host: str, port: int, **who: object) -> Initiator:
        """Connected, logged in, and past the unit attention."""
        self = await cls.connect(host, port, **who)
        try:
            await self.log_in()
            await self.attentions()
        except BaseException:
            await self.close()
            raise
        return self

    async def log_in(self, **more: object) -> pdu.LoginResponse:
        self.send(self.login(**more))  # type: ignore[arg-type]
        response = await self.receive()
        assert isinstance(response, pdu.LoginResponse)
        if response.status != LoginStatus.SUCCESS:
            raise LoginFailed(response.status)
        self.cmdsn = response.expcmdsn
        agreed = dict(text.parse(response.data))
        self.digests = Digests(agreed.get("HeaderDigest") == "CRC32C", agreed.get("DataDigest") == "CRC32C")
        return response

    async def attentions(self) -> None:
        """TEST UNIT READY until no unit attention is pending."""
        while True:
            self.send(self.command(bytes(6)))
            response = await self.receive()
            assert isinstance(response, pdu.ScsiResponse)
            if response.status == 0:
                return

    def send(self, *pdus: Pdu) -> None:
        self.writer.write(b"".join(self.digests.seal([p.encode() for p in pdus])))

    async def receive(self) -> Pdu:
        """The next PDU. ConnectionError when the target has closed."""
        while True:
            first = front(self.rest, self.digests)
            if first is not None:
                found, self.rest = first
                return found
            async with asyncio.timeout(REPLY_SECONDS):
                chunk = await self.reader.read(1 << 16)
            if not chunk:
                raise ConnectionResetError("the target closed the connection")
            self.rest += chunk

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes, or CheckConditionSeen."""
        self.send(self.command(read_10(offset // SECTOR, length // SECTOR), expected=length))
        data = bytearray()
        while True:
            answer = await self.receive()
            if isinstance(answer, pdu.ScsiResponse):
                raise CheckConditionSeen(answer.data)
            assert isinstance(answer, pdu.DataIn)
            data += answer.data
            if answer.flags & codes.STATUS:
                return bytes(data)

    async def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        """Write with immediate data, as far as 64 KiB go, and R2Ts; returns when it is acknowledged."""
        first = data[:65536] if dict(self.keys).get("ImmediateData") == "Yes" else b""
        command = self.command(
            write_10(offset // SECTOR, len(data) // SECTOR, fua=fua), expected=len(data), write=True, data=first
        )
        self.send(command)
        while True:
            answer = await self.receive()
            if isinstance(answer, pdu.ReadyToTransfer):
                part = data[answer.offset : answer.offset + answer.desired]
                for number, at in enumerate(range(0, len(part), 65536)):
                    piece = part[at : at + 65536]
                    last = at + len(piece) == len(part)
                    self.send(
                        pdu.DataOut(
                            flags=FINAL if last else 0,
                            itt=answer.itt,
                            ttt=answer.ttt,
                            datasn=number,
                            offset=answer.offset + at,
                            data=piece,
                        )
                    )
                continue
            assert isinstance(answer, pdu.ScsiResponse)
            if answer.status:
                raise CheckConditionSeen(answer.data)
            return

    async def gone(self) -> bool:
        """Whether the target closes this connection now or has."""
        try:
            while True:
                await self.receive()
        except (ConnectionError, TimeoutError) as error:
            return isinstance(error, ConnectionError)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
