"""The machine that is measured on: its CPUs, its limits, what to say about it."""

import contextlib
import os
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPARE_DESCRIPTORS = 120
"""For all that is not one of many connections."""


@dataclass(frozen=True)
class Cpus:
    """Which CPU the servers are on, and which the load; None if they are not pinned."""

    server: int | None
    load: int | None


def choose_cpus() -> Cpus:
    """Two different CPUs that this process may use, if there are two, and if it may choose."""
    if not hasattr(os, "sched_getaffinity"):
        return Cpus(None, None)
    cpus = sorted(os.sched_getaffinity(0))
    return Cpus(cpus[0], cpus[1]) if len(cpus) > 1 else Cpus(None, None)


@contextlib.contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Be on that CPU alone for as long as this lasts: what is started meanwhile stays on it."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(process: int) -> float | None:
    """CPU time of another process so far; None if it has ended, or where that cannot be known."""
    if platform.system() != "Linux":
        return None
    try:
        return time.clock_gettime(~process << 3 | 2)  # the id that clock_getcpuclockid(3) makes
    except OSError:
        return None


def resident_bytes() -> int:
    """The memory of this process; where there is no /proc, the most that it has been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def possible_connections(wanted: int) -> int:
    """That many, or as many as the limit of open files allows; raises the limit if it may.

    Processes that are started later have the raised limit as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # more than the system has, whatever it says
        limit = soft
    return max(min(wanted, limit - SPARE_DESCRIPTORS), 1)


def describe() -> dict[str, str]:
    """Facts, by their names."""
    return {
        "Machine": f"{_cpu_model()}, {os.cpu_count()} CPUs",
        "System": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Date": time.strftime("%Y-%m-%d"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
