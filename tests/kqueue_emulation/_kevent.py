"""Changes and events, and the constants that they are made of."""

import functools
import operator
from typing import Protocol

# The values are macOS's, the names those that CPython has.
CONSTANTS = {
    "KQ_FILTER_READ": -1,
    "KQ_FILTER_WRITE": -2,
    "KQ_FILTER_AIO": -3,
    "KQ_FILTER_VNODE": -4,
    "KQ_FILTER_PROC": -5,
    "KQ_FILTER_SIGNAL": -6,
    "KQ_FILTER_TIMER": -7,
    "KQ_EV_ADD": 0x0001,
    "KQ_EV_DELETE": 0x0002,
    "KQ_EV_ENABLE": 0x0004,
    "KQ_EV_DISABLE": 0x0008,
    "KQ_EV_ONESHOT": 0x0010,
    "KQ_EV_CLEAR": 0x0020,
    "KQ_EV_SYSFLAGS": 0xF000,
    "KQ_EV_FLAG1": 0x2000,
    "KQ_EV_EOF": 0x8000,
    "KQ_EV_ERROR": 0x4000,
    "KQ_NOTE_LOWAT": 0x00000001,
    "KQ_NOTE_DELETE": 0x00000001,
    "KQ_NOTE_WRITE": 0x00000002,
    "KQ_NOTE_EXTEND": 0x00000004,
    "KQ_NOTE_ATTRIB": 0x00000008,
    "KQ_NOTE_LINK": 0x00000010,
    "KQ_NOTE_RENAME": 0x00000020,
    "KQ_NOTE_REVOKE": 0x00000040,
    "KQ_NOTE_EXIT": 0x80000000,
    "KQ_NOTE_FORK": 0x40000000,
    "KQ_NOTE_EXEC": 0x20000000,
    "KQ_NOTE_PCTRLMASK": 0xFFF00000,
    "KQ_NOTE_PDATAMASK": 0x000FFFFF,
    "KQ_NOTE_TRACK": 0x00000001,
    "KQ_NOTE_TRACKERR": 0x00000002,
    "KQ_NOTE_CHILD": 0x00000004,
}

FILTER_READ = CONSTANTS["KQ_FILTER_READ"]
FILTER_WRITE = CONSTANTS["KQ_FILTER_WRITE"]
EV_ADD = CONSTANTS["KQ_EV_ADD"]
EV_DELETE = CONSTANTS["KQ_EV_DELETE"]
EV_ENABLE = CONSTANTS["KQ_EV_ENABLE"]
EV_DISABLE = CONSTANTS["KQ_EV_DISABLE"]
EV_ONESHOT = CONSTANTS["KQ_EV_ONESHOT"]
EV_CLEAR = CONSTANTS["KQ_EV_CLEAR"]
EV_EOF = CONSTANTS["KQ_EV_EOF"]
EV_ERROR = CONSTANTS["KQ_EV_ERROR"]
# CPython has no names for these two.
EV_RECEIPT = 0x0040
EV_DISPATCH = 0x0080


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


def _to_ident(source: int | _HasFileno) -> int:
    if isinstance(source, int):
        return source
    if not hasattr(source, "fileno"):
        raise TypeError("argument must be an int, or have a fileno() method.")
    fd = source.fileno()
    if fd < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
    return fd


class _Member:
    """A number in a C structure: it can be set to what fits, and not be deleted."""

    def __init__(self, least: int, bits: int) -> None:
        self._range = range(least, least + 2**bits)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, event: object, owner: type) -> int:
        value: int = getattr(event, self._name)
        return value

    def __set__(self, event: object, value: int) -> None:
        if operator.index(value) not in self._range:
            raise OverflowError(f"{self._name[1:]} does not hold {value}")
        setattr(event, self._name, value)

    def __delete__(self, event: object) -> None:
        raise TypeError("can't delete numeric/char attribute")


@functools.total_ordering
class Kevent:
    """`select.kevent`: a change to ask of a queue, or an event that it reports."""

    __slots__ = ("_data", "_fflags", "_filter", "_flags", "_ident", "_udata")

    ident = _Member(0, 64)
    filter = _Member(-(2**15), 16)
    flags = _Member(0, 16)
    fflags = _Member(0, 32)
    data = _Member(-(2**63), 64)
    udata = _Member(0, 64)

    def __init__(
        self,
        ident: int | _HasFileno,
        filter: int = FILTER_READ,
        flags: int = EV_ADD,
        fflags: int = 0,
        data: int = 0,
        udata: int = 0,
    ) -> None:
        self.ident = _to_ident(ident)
        self.filter = filter
        self.flags = flags & 0xFFFF
        self.fflags = fflags & 0xFFFFFFFF
        self.data = data
        self.udata = udata

    def _fields(self) -> tuple[int, ...]:
        return (self.ident, self.filter, self.flags, self.fflags, self.data, self.udata)

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Kevent) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._fields() < other._fields() if isinstance(other, Kevent) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as in CPython: it can be changed

    def __repr__(self) -> str:
        return (
            f"<select.kevent ident={self.ident} filter={self.filter} flags={self.flags:#x} "
            f"fflags={self.fflags:#x} data={self.data & 0xFFFFFFFFFFFFFFFF:#x} "
            f"udata={self.udata:#x}>"
        )
