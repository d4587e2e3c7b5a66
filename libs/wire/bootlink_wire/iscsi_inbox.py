"""Cuts a connection's byte stream at PDU boundaries.

It holds at most one PDU that is not complete; how long that may be is for its user to say, before it asks for more.
"""

from __future__ import annotations


class Inbox:
    """The bytes of a connection that are not consumed yet: less than one PDU, or what its user chose to leave.

    `take(chunk)` gives all that is there as one piece, or None while that is less than was said to be needed. The
    user consumes whole PDUs from the front and gives the rest back with `keep`. A large PDU that arrives in many
    chunks is joined once.
    """

    __slots__ = ("_chunks", "_needed", "held")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._needed = 0
        self.held = 0  # bytes

    def take(self, chunk: bytes) -> bytes | None:
        if not self._chunks:
            return chunk
        if chunk:
            self._chunks.append(chunk)
            self.held += len(chunk)
        if self.held < self._needed:
            return None
        whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.held = 0
        return whole

    def keep(self, data: bytes, start: int, needed: int) -> None:
        """Hold data[start:]. `take` gives nothing until `needed` bytes are there."""
        rest = data[start:]
        self._chunks = [rest] if rest else []
        self.held = len(rest)
        self._needed = needed
