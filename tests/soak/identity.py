"""Bytes that tell whose they are: each connection and direction has a stream of its own."""

import hashlib

BLOCK = 4096


class WrongBytesError(Exception):
    """Bytes that are somebody else's, or not in their place."""


class LostBytesError(Exception):
    """The stream ended before its end."""


class Identity:
    """The stream of one name: as random as SHAKE-128 of it, so that any mix-up shows."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._block = b""
        self._number = -1
        self.position = 0
        """Bytes that were taken or checked so far."""

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            number, offset = divmod(self.position, BLOCK)
            if number != self._number:
                key = f"{self._name}/{number}".encode()
                self._number, self._block = number, hashlib.shake_128(key).digest(BLOCK)
            piece = self._block[offset : offset + size - len(data)]
            self.position += len(piece)
            data += piece
        return bytes(data)

    def take(self, size: int) -> bytes:
        """The next bytes of it, to be sent."""
        return self._read(size)

    def check(self, data: bytes) -> None:
        """Hold what was received against the next bytes of it."""
        start = self.position
        if self._read(len(data)) != data:
            raise WrongBytesError(f"{self._name}: {len(data)} bytes from {start} are others'")

    def ended(self, size: int) -> None:
        """It was to be so long."""
        if self.position != size:
            raise LostBytesError(f"{self._name}: {self.position} bytes of {size}")
