"""CPUs: how many the process may use, those of a NUMA node, and pinning a thread to one."""

import os
import re
from pathlib import Path

from .. import errors
from ..errors import CommonErrorCode

DEVICES = Path("/sys/devices/system")
"""Where Linux describes its CPUs and NUMA nodes."""


def usable_cpu_count() -> int:
    """The number of CPUs that the process may use, at least 1."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpus_of_group(group: int, devices: Path = DEVICES) -> list[int]:
    """The CPUs of NUMA node `group` that the process may use, one of each physical core.

    A kernel without NUMA has one group, 0, with all CPUs. Raises ValueError if there is no such
    group, or none of its CPUs may be used, and UnsupportedError where threads cannot be pinned.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise errors.make(
            CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED,
            "threads cannot be pinned to CPUs here, make the group without cpu_group",
        )
    allowed = os.sched_getaffinity(0)
    groups = _groups(devices / "node") or {0: allowed}
    if group not in groups:
        known = ", ".join(map(str, sorted(groups)))
        raise ValueError(f"no CPU group {group!r}: this machine has {known}")
    cpus: list[int] = []
    siblings: set[int] = set()
    for cpu in sorted(groups[group] & allowed):
        if cpu not in siblings:
            cpus.append(cpu)
            siblings |= _siblings(devices / "cpu", cpu)
    if not cpus:
        raise ValueError(f"CPU group {group} has no CPU that this process may use")
    return cpus


def pin_this_thread(cpu: int) -> None:
    """Have the calling thread, and threads that it starts, run on one CPU only.

    Raises OSError if the process may not use that CPU.
    """
    os.sched_setaffinity(0, {cpu})


def _groups(nodes: Path) -> dict[int, set[int]]:
    """The CPUs of each NUMA node, by its number; nothing on a kernel without NUMA."""
    return {
        int(path.parent.name.removeprefix("node")): _parse(path.read_text())
        for path in nodes.glob("node[0-9]*/cpulist")
    }


def _siblings(cpus: Path, cpu: int) -> set[int]:
    """The hardware threads of the core that `cpu` is one of."""
    try:
        text = (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except FileNotFoundError:  # virtual machines may have no topology
        return {cpu}
    return _parse(text) | {cpu}


def _parse(cpu_list: str) -> set[int]:
    """The kernel's notation: `0-3,8`."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", cpu_list):
        found.update(range(int(first), int(last or first) + 1))
    return found
