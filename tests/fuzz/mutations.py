"""Damage to bytes, drawn by hypothesis: the seeds are real, and what becomes of them is not."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st


class Mutation(NamedTuple):
    """One change, `at` a share of the length."""

    kind: str
    at: float
    size: int
    data: bytes

    def apply(self, data: bytes) -> bytes:
        at = int(self.at * len(data))
        before, inside, after = data[:at], data[at : at + self.size], data[at + self.size :]
        match self.kind:
            case "replace":
                return before + self.data + data[at + len(self.data) :]
            case "insert":
                return before + self.data + inside + after
            case "delete":
                return before + after
            case "repeat":
                return before + inside * 2 + after
            case "swap":
                return after + inside + before
            case "cut":
                return before
            case _:  # one bit
                flipped = bytes([data[at] ^ 1 << self.size % 8]) if at < len(data) else b""
                return before + flipped + data[at + 1 :]


KINDS = ("replace", "insert", "delete", "repeat", "swap", "cut", "flip")

MUTATIONS = st.lists(
    st.builds(
        Mutation,
        st.sampled_from(KINDS),
        st.floats(0, 1),
        st.integers(0, 40),
        st.binary(max_size=8) | st.sampled_from([b"\0", b"\n", b"-----BEGIN ", b"\xff\xff"]),
    ),
    max_size=4,
)


def mutated(data: bytes, mutations: Sequence[Mutation]) -> bytes:
    """All of them, one after the other."""
    for mutation in mutations:
        data = mutation.apply(data)
    return data


CUTS = st.lists(st.sampled_from([1, 2, 5, 6, 50, 1000, 1 << 16]), max_size=8)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data in pieces of these sizes, and what is left in one."""
    found = []
    for size in cuts:
        found.append(data[:size])
        data = data[size:]
    return [piece for piece in (*found, data) if piece]
