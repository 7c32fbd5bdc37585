"""What the applications move about, and how to tell that all of it arrived."""

import hashlib
import random
from collections.abc import AsyncIterator

KIB = 1024
MIB = 1024 * KIB


def blob(size: int, seed: int = 0) -> bytes:
    """Bytes that don't compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes | bytearray | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


async def pieces(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    """`data` in pieces that match no buffer size."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
