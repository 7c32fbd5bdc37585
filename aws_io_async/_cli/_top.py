"""`top`: what the loops of running processes do, by the sockets that they have opened for it."""

import argparse
import asyncio
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..event_loop.entry import run
from ..observe._server import VERSION
from ._exit import CommandError, ExitCode
from ._screen import Cell, Facts, Part, Screen, Table, Text, Tone, emit

LIMIT = 16 * 1024 * 1024
"""Bytes of an answer, at most: a process may have many loops."""

PATIENCE = 10.0
"""Seconds that a process may take to answer."""

ENDED = "it has ended"

Loop = dict[str, Any]


@dataclass
class Rates:
    """What a loop has done between two looks."""

    turns_per_second: float
    events_per_second: float
    load: float
    """The share of the time that it was busy."""
    stalled_seconds: float
    """How long it has been in its present turn, as far as it was looked at; 0 if it gets on."""


class NoFiguresError(Exception):
    """Why a process has none."""


class Process:
    """One process, as it is looked at again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statistics: dict[str, Any] | None = None
        """None once it has gone, or if it never was there."""
        self.absence = ENDED
        """Why there are none."""
        self.rates: dict[str, Rates] = {}
        """By the loops' names; of those that were there before."""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> bool:
        """Connect; returns whether somebody is there."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(
                f"{self.path}", limit=LIMIT
            )
        except OSError as exc:
            self.absence = exc.strerror or f"{exc}"
            return False
        return True

    def close(self) -> None:
        """Hang up; idempotent."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def look(self) -> None:
        """Take its figures anew. If it has none, nobody looks again: the others are shown."""
        if self._writer is None:
            return
        before, self.statistics = self.statistics, None
        try:
            now = await self._ask(self._writer)
            self.rates = _rates(before, now, self.rates)
            self.statistics = now
            _part(self)  # what it shows must be there, and be what it should
        except NoFiguresError as exc:
            self.absence = f"{exc}"
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            self.absence = f"it speaks version {VERSION}, but not well: {exc!r}"
        else:
            return
        self.statistics = None
        self.close()

    async def _ask(self, writer: asyncio.StreamWriter) -> dict[str, Any]:
        try:
            writer.write(b"\n")
            async with asyncio.timeout(PATIENCE):
                line = await self._reader.readline()
        except TimeoutError as exc:
            raise NoFiguresError("no answer") from exc
        except ConnectionError:
            line = b""
        except ValueError:  # a line without an end
            line = b"?"
        if not line:
            raise NoFiguresError(ENDED)
        return _parsed(line)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        statistics = json.loads(line)
        version = statistics["version"]
    except (ValueError, KeyError, TypeError) as exc:
        message = "this is not the socket of aws_io_async.observe.serve_statistics"
        raise NoFiguresError(message) from exc
    if version != VERSION:
        raise NoFiguresError(f"it speaks version {version}, this program version {VERSION}")
    found: dict[str, Any] = statistics
    return found


def _rates(
    before: dict[str, Any] | None, now: dict[str, Any], last: dict[str, Rates]
) -> dict[str, Rates]:
    if before is None:
        return {}
    seconds = now["monotonic_seconds"] - before["monotonic_seconds"]
    if seconds <= 0:
        return last
    known = {loop["name"]: loop for loop in before["loops"]}
    rates = {}
    for loop in now["loops"]:
        old = known.get(loop["name"])
        if old is None:
            continue
        stuck = loop["state"] == old["state"] == "busy" and all(
            loop[name] == old[name] for name in ("turns", "polls")
        )
        stalled = last[loop["name"]].stalled_seconds if loop["name"] in last else 0.0
        rates[loop["name"]] = Rates(
            (loop["turns"] - old["turns"]) / seconds,
            (loop["events"] - old["events"]) / seconds,
            min(1.0, max(0.0, (loop["busy_seconds"] - old["busy_seconds"]) / seconds)),
            stalled + seconds if stuck else 0.0,
        )
    return rates


def main(options: argparse.Namespace) -> int:
    """Look as often as is wanted; returns the exit status."""
    return run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    processes = [Process(path) for path in dict.fromkeys(options.paths)]
    left = 1 if options.once else options.count or math.inf
    try:
        if not any([await process.open() for process in processes]):
            raise CommandError(_why_none(processes), ExitCode.UNREACHABLE)
        with Screen().live() as update:
            while True:
                await asyncio.gather(*(process.look() for process in processes))
                if options.json:
                    for process in processes:
                        emit(document(process))
                else:
                    update(_parts(processes))
                if all(process.statistics is None for process in processes):
                    raise CommandError(_why_none(processes), ExitCode.FAILED)
                left -= 1
                if not left:
                    return ExitCode.OK
                await asyncio.sleep(options.interval)
    finally:
        for process in processes:
            process.close()


def _why_none(processes: Sequence[Process]) -> str:
    if all(process.absence == ENDED for process in processes):
        return "all have ended"
    return "; ".join(f"{process.path}: {process.absence}" for process in processes)


# Telling


def document(process: Process) -> dict[str, Any]:
    """As docs/schemas/top.json has it."""
    return {
        "path": f"{process.path}",
        "statistics": process.statistics,
        "rates": {name: vars(rates) for name, rates in process.rates.items()},
    }


COLUMNS = [
    "Loop",
    "Thread",
    "State",
    "Load",
    "Turns/s",
    "Events/s",
    "Ev/poll",
    "Connections",
    "Ready",
    "Timers",
    "Lag",
    "Max lag",
]


EXPENDABLE = ["Ev/poll", "Timers", "Ready", "Thread", "Lag", "Turns/s", "Max lag"]
"""What a narrow terminal does without, the first one first."""


def _parts(processes: Sequence[Process]) -> list[Part]:
    return [_part(process) for process in processes]


def _part(process: Process) -> Part:
    statistics = process.statistics
    if statistics is None:
        return Facts(f"{process.path}: {process.absence}", {})
    gil = any(loop["gil_enabled"] for loop in statistics["loops"])
    program = textwrap.shorten(statistics["program"], 100, placeholder=" ...")
    title = (
        f"{statistics['pid']}  {program}\n"
        f"Python {statistics['python']}{'' if gil else ', no GIL'}, "
        f"{statistics['threads']} threads, {statistics['cpu_seconds']:.1f} s of CPU"
    )
    rows = [_row(loop, process.rates.get(loop["name"])) for loop in statistics["loops"]]
    return Table(title, COLUMNS, rows, EXPENDABLE)


def _row(loop: Loop, rates: Rates | None) -> list[Text]:
    load = loop["load_factor"] if rates is None else rates.load
    return [
        loop["name"],
        loop["thread"] or "",
        _state(loop, rates),
        Cell(f"{load:.0%}", Tone.BAD if load > 0.9 else Tone.ODD if load > 0.6 else Tone.GOOD),
        "" if rates is None else f"{rates.turns_per_second:,.0f}",
        "" if rates is None else f"{rates.events_per_second:,.0f}",
        f"{loop['events_per_poll']:.1f}",
        f"{loop['connections']:,}",
        f"{loop['ready']:,}",
        f"{loop['timers']:,}",
        f"{loop['last_lag'] * 1000:.1f} ms",
        f"{loop['max_lag'] * 1000:.1f} ms",
    ]


def _state(loop: Loop, rates: Rates | None) -> Text:
    if rates is not None and rates.stalled_seconds:
        return Cell(f"stalled {rates.stalled_seconds:.0f} s", Tone.BAD)
    state: str = loop["state"]
    return Cell(state, Tone.MINOR) if state == "stopped" else state
