"""Measure: each scenario on each loop in turn, round after round, and say how far it has got."""

import os
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from ._loops import BARE, Loop
from ._processes import NotAvailableError, ProcessError
from ._results import Results, Row
from ._scenarios import Bench, Scenario


class Progress:
    """A line on a stream that says what is under way; on a terminal it is written over."""

    def __init__(self, steps: int, stream: TextIO) -> None:
        self._steps, self._done = steps, 0
        self._stream = stream
        self._over = stream.isatty()
        self._width = 0
        self._began = time.monotonic()

    def step(self, what: str) -> None:
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._began) / self._done * (self._steps - self._done)
            left = f", {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"
        self._done += 1
        self._say(f"[{self._done}/{self._steps}{left}] {what}")

    def end(self) -> None:
        if self._over:
            self._say("")
            self._stream.write("\r")

    def _say(self, text: str) -> None:
        if self._over:
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            text = text[: columns - 1]
            self._stream.write(f"\r{text.ljust(self._width)}")
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def measure(
    bench: Bench,
    loops: Sequence[Loop],
    scenarios: Sequence[Scenario],
    rounds: int,
    results: Results,
) -> None:
    """Fill `results`, which are of use even if this is interrupted.

    What fails once is not tried again.
    """
    plan = [(scenario, 1 if scenario.once else rounds) for scenario in scenarios]
    steps = sum(len(_taking_part(scenario, loops)) * times for scenario, times in plan)
    progress = Progress(steps, sys.stderr)
    try:
        for scenario, times in plan:
            row = Row(scenario.group, scenario.name)
            results.rows.append(row)
            for number in range(1, times + 1):
                for loop in _taking_part(scenario, loops):
                    which = f", round {number} of {times}" if times > 1 else ""
                    progress.step(f"{scenario}: {loop.name}{which}")
                    _measure_once(scenario, bench, loop, row)
    finally:
        progress.end()


def _taking_part(scenario: Scenario, loops: Sequence[Loop]) -> list[Loop]:
    return [loop for loop in loops if scenario.bare or loop.name != BARE]


def _measure_once(scenario: Scenario, bench: Bench, loop: Loop, row: Row) -> None:
    if loop.name in row.absent or loop.name in row.failed:
        return
    try:
        row.samples.setdefault(loop.name, []).append(scenario.measure(bench, loop))
    except NotAvailableError as error:
        row.absent[loop.name] = str(error)
    except ProcessError as error:
        row.failed[loop.name] = str(error)
