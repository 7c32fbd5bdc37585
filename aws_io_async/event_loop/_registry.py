"""Every loop of the process, and what becomes of them in a forked child.

The child has its parent's loops in memory and shares their kernel objects: nothing that it did with
them could be right. So each is told, and refuses from then on.
"""

import os
import weakref
from typing import Protocol


class Disownable(Protocol):
    """A loop, as this module knows it."""

    def _disown(self) -> None: ...


loops: "weakref.WeakSet[Disownable]" = weakref.WeakSet()
"""Those that are still referred to. Thread: any may add one, and iterate over a copy."""


def _disown_loops() -> None:
    for loop in list(loops):
        loop._disown()


os.register_at_fork(after_in_child=_disown_loops)
