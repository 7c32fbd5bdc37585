"""The figures in the text format that Prometheus scrapes.

Source: "Exposition formats", version 0.0.4 of the text format, and OpenMetrics' naming of units.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from ..event_loop._loop import EventLoop
from ..host_resolver import HostResolver
from ._loops import describe_loop, event_loops
from ._stalls import StallWatch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What the text's HTTP response has as its `Content-Type`."""

_LOOP = [  # a field of `describe_loop`, the metric's name, its type, and what it tells
    ("turns", "turns_total", "counter", "Turns of the loop."),
    ("polls", "polls_total", "counter", "Turns that asked the kernel."),
    ("events", "events_total", "counter", "Ready descriptors that the polls reported."),
    ("running_seconds", "running_seconds_total", "counter", "Time within run_forever."),
    ("idle_seconds", "idle_seconds_total", "counter", "Time waiting for the kernel."),
    ("load_factor", "load_factor", "gauge", "Share of the last second that the loop was busy."),
    ("ready", "ready_callbacks", "gauge", "Callbacks in the ready queue."),
    ("timers", "timers", "gauge", "Timers scheduled."),
    ("watched", "watched_descriptors", "gauge", "Descriptors watched."),
    ("connections", "connections", "gauge", "Open transports of sockets."),
    ("last_lag", "last_lag_seconds", "gauge", "How late the most recent timer was taken up."),
    ("max_lag", "max_lag_seconds", "gauge", "How late a timer was taken up at worst."),
]
_RESOLVER = [
    ("hosts", "hosts", "gauge", "Host names in the cache."),
    ("waiting", "waiting", "gauge", "Callers for whom there is no address yet."),
    ("lookups", "lookups_total", "counter", "Lookups that were made."),
    ("failed_lookups", "failed_lookups_total", "counter", "Lookups that failed."),
]
_STALLS = [
    ("count", "stalls_total", "counter", "Turns that took longer than the threshold."),
    ("longest", "longest_stall_seconds", "gauge", "How long the longest of them lasted."),
]


def prometheus_text(
    loops: Iterable[EventLoop] | None = None,
    *,
    host_resolver: HostResolver | None = None,
    stall_watch: StallWatch | None = None,
) -> str:
    """All figures as they are now, by default those of all loops of the process.

    Each loop's have the label `loop`, its name in `describe_loop`. A resolver and a watch add
    theirs. Thread: any.
    """
    described = [describe_loop(loop) for loop in (event_loops() if loops is None else loops)]
    lines: list[str] = []
    for field, name, kind, text in _LOOP:
        samples = [(f'{{loop="{each["name"]}"}}', each[field]) for each in described]
        lines += _family(f"aws_io_async_loop_{name}", kind, text, samples)
    for source, prefix, table in [
        (None if host_resolver is None else host_resolver.statistics(), "resolver_", _RESOLVER),
        (stall_watch, "", _STALLS),
    ]:
        if source is not None:
            for field, name, kind, text in table:
                value = getattr(source, field)
                lines += _family(f"aws_io_async_{prefix}{name}", kind, text, [("", value)])
    return "".join(f"{line}\n" for line in lines)


def _family(name: str, kind: str, text: str, samples: list[tuple[str, Any]]) -> Iterator[str]:
    if samples:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value!r}"
