"""An endless text, which is what both sides say in the models: a count tells which bytes."""

import random

TEXT = random.Random(1).randbytes(60_013)
"""Its length has no common divisor with the sizes of buffers: where it begins anew is no border."""


def text(start: int, size: int) -> bytes:
    """So many bytes from a place on."""
    start %= len(TEXT)
    return (TEXT * (size // len(TEXT) + 2))[start : start + size]
