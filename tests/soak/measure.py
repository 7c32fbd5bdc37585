"""What a process holds: memory, descriptors, tasks, threads, timers."""

import asyncio
import ctypes
import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """At one moment."""

    resident_bytes: int
    fds: int
    tasks: int
    threads: int
    timers: int

    @classmethod
    async def take(cls) -> "Sample":
        """Of the running loop, which is one of ours, with all garbage collected."""
        loop: Any = asyncio.get_running_loop()
        gc.collect()
        give_back_freed_memory()
        return cls(
            resident_bytes=resident_bytes(),
            fds=len(os.listdir("/proc/self/fd")) - 1,  # one is that of the listing
            tasks=len(asyncio.all_tasks()),
            threads=threading.active_count(),
            timers=sum(not timer.cancelled() for timer in timers_of(loop)),
        )

    def over(self, start: "Sample") -> dict[str, int]:
        """How much more there is of each thing but memory."""
        names = ("fds", "tasks", "threads", "timers")
        return {name: getattr(self, name) - getattr(start, name) for name in names}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def timers_of(loop: Any) -> list[asyncio.TimerHandle]:
    """Those that are scheduled, and cancelled ones whose time has not come."""
    return [timer for _, _, timer in loop._timers.heap + loop._timers.inbox]


def give_back_freed_memory() -> None:
    """malloc keeps what was freed for later, how much depends on chance: that is not in use."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        pass


def spread(values: list[int]) -> float:
    """How far the largest is above the smallest, as a share of that."""
    return (max(values) - min(values)) / min(values) if values else 0.0
