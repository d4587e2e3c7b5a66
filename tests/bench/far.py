"""`python -m bench.far HOST PORT FILE BLOCKS SIZE SECONDS`: one client fetches so many blocks of that size, one at a
time, and acknowledges each so much later, as if the network took that long. Prints the octets per second."""

from __future__ import annotations

import socket
import sys
import time

from bench.boot_servers import LOADERS, content
from bootlink_wire import tftp

PATIENCE = 5.0  # seconds for one answer


def main(host: str, port: int, file: str, blocks: int, size: int, away: float) -> None:
    wanted = content(LOADERS[file])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(tftp.encode(tftp.ReadRequest(file.encode(), "octet", (("blksize", str(size)),))), (host, port))
        answer, peer = sock.recvfrom(2048)
        if not isinstance(tftp.decode(answer), tftp.OptionAck):
            sys.exit(f"no OACK: {answer!r}")
        sock.connect(peer)
        began = time.monotonic()
        for block in range(blocks):
            # Not asleep: a sleep is not as short as is asked for.
            due = time.monotonic() + away
            while time.monotonic() < due:
                pass
            sock.send(tftp.ack(block & 0xFFFF))
            packet = tftp.decode(sock.recv(2048))
            if packet != tftp.Data((block + 1) & 0xFFFF, wanted[block * size : (block + 1) * size]):
                sys.exit(f"something else than block {block + 1}")
        taken = time.monotonic() - began
        sock.send(tftp.encode(tftp.Error(tftp.ErrorCode.UNDEFINED, "enough")))
    print(blocks * size / taken)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
