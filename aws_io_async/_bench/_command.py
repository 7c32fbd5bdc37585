"""The command line of the benchmark."""

import argparse
import json
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from . import _certificate, _loops, _machine, _results
from ._charts import draw
from ._load import find_loads
from ._loops import BARE, KNOWN, Loop
from ._page import update
from ._processes import NotAvailableError, ProcessError, python_command, running
from ._results import Results
from ._runner import measure
from ._scenarios import Bench, Scenario, scenarios
from ._tables import as_text, grids, ratio_note

INTERRUPTED = 128 + signal.SIGINT
TERMINATING = (signal.SIGTERM, signal.SIGHUP)


class UsageError(Exception):
    """Something that the user has asked for is not possible."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP has come."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    """See `aws_io_async._bench.main`."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        wanted = _wanted(options.only, options.connections)
        if options.list:
            print("\n".join(map(str, wanted)))
            return 0
        _check_files(options)
        if options.saved:
            return _show(_only(_results.read(options.saved), wanted), options)
        with _terminable(), ExitStack() as stack:
            bench, results, loops = _prepare(options, stack)
            return _run(bench, loops, wanted, options, results)
    except BrokenPipeError:
        raise  # whoever reads what is printed has gone: that is the caller's to deal with
    except (UsageError, ValueError, OSError, ProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated as terminated:
        return terminated.status


def _number(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    """A number no smaller than `least`, for argparse."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aws_io_async bench",
        description="Compare event loops, side by side: servers, and what a scheduler does. Use "
        "it on a machine that has nothing else to do.",
    )
    parser.add_argument(
        "loops",
        nargs="*",
        metavar="LOOP",
        help=f"of {', '.join(KNOWN)}, {BARE} (a server without a loop, which marks the limit), or "
        "MODULE:FACTORY; the first one is compared with the others (default: all that are there)",
    )
    parser.add_argument("--rounds", type=_number(int, 1), default=3, help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=_number(float, 0.01),
        default=2.0,
        help="for each measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--connections",
        type=_number(int, 1),
        default=10_000,
        help="the most to make, where their number is what it is about (default: %(default)s)",
    )
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="the scenarios whose names it matches"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios, and do no more")
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter of the servers (default: this)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw them")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE.md",
        help="put tables and charts into a page, between its marks; results and charts go into a "
        "folder of the page's name",
    )
    parser.add_argument(
        "--from",
        dest="saved",
        type=Path,
        metavar="FILE",
        help="measure nothing: show the results of a file that --json wrote",
    )
    return parser


# What was asked for


def _wanted(only: str, connections: int) -> list[Scenario]:
    try:
        pattern = re.compile(only, re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"not a regular expression: {only!r}: {error}") from None
    found = [s for s in scenarios() if pattern.search(str(s)) and s.connections <= connections]
    if not found:
        raise UsageError(f"no scenario matches {only!r}: --list shows all of them")
    return found


def _only(results: Results, wanted: list[Scenario]) -> Results:
    names = {(scenario.group, scenario.name) for scenario in wanted}
    results.rows = [row for row in results.rows if (row.group, row.name) in names]
    if not results.rows:
        raise UsageError("there are no results of these scenarios")
    return results


def _check_files(options: argparse.Namespace) -> None:
    """Find out now whether there is a place for the results, not when they are there."""
    for file in filter(None, (options.json, options.plot, options.page)):
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise UsageError(f"cannot write to {file}: it is no file in an existing folder")
    if options.page:
        update(options.page, None)


@contextmanager
def _terminable() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end things as an interrupt does: what was started is cleaned up."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, terminate) for number in TERMINATING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What there is


def _prepare(options: argparse.Namespace, stack: ExitStack) -> tuple[Bench, Results, list[Loop]]:
    if shutil.which(options.python) is None:
        raise UsageError(f"there is no Python at {options.python!r}")
    loops, about = _find_loops(options.loops, options.python)
    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aws-io-async-")))
    certificate: Path | str
    try:
        certificate = _certificate.make(temporary)
    except RuntimeError as error:
        certificate = str(error)
    connections = _machine.possible_connections(options.connections)
    bench = Bench(
        options.python,
        options.seconds,
        connections,
        certificate,
        find_loads(stack),
        _machine.choose_cpus(),
    )
    facts = _machine.describe() | about
    facts["Loops"] = ", ".join(f"{loop.name} {loop.version}".strip() for loop in loops)
    facts["Load"] = bench.loads.note
    pinned = f"servers on CPU {bench.cpus.server}, load on CPU {bench.cpus.load}"
    facts["CPUs"] = "not pinned" if bench.cpus.server is None else pinned
    rounds = (
        f"medians of {options.rounds} alternating rounds" if options.rounds > 1 else "one round"
    )
    facts["Figures"] = f"{rounds}, {options.seconds:g} s for each measurement"
    if connections < options.connections:
        facts["Connections"] = f"no more than {connections:,}: the limit of open files"
    return bench, Results(facts, [loop.name for loop in loops]), loops


def _find_loops(names: list[str], python: str) -> tuple[list[Loop], dict[str, str]]:
    """The loops, and facts about the interpreter.

    Raises UsageError for a name that nobody has, or a loop that cannot be made.
    """
    found: dict[str, Loop] = {}
    facts: dict[str, str] = {}
    for loop in map(_loops.by_name, names or [*KNOWN, BARE]):
        if not loop.spec:
            found[loop.name] = loop
            continue
        command = python_command("_loops", loop.spec, python=python, life=0)
        try:
            with running(f"loop {loop.name!r}", command, None) as process:
                about = json.loads(process.line())
        except NotAvailableError as error:
            if names:
                raise UsageError(f"loop {loop.name!r} is not there: {error}") from None
            continue
        found[loop.name] = Loop(loop.name, loop.spec, about["version"])
        facts = {"Python": about["python"], "OpenSSL": about["openssl"].removeprefix("OpenSSL ")}
    if not any(loop.spec for loop in found.values()):
        raise UsageError("there is no loop to measure")
    return list(found.values()), facts


# What comes of it


def _run(
    bench: Bench,
    loops: list[Loop],
    wanted: list[Scenario],
    options: argparse.Namespace,
    results: Results,
) -> int:
    for name, fact in results.facts.items():
        print(f"{name + ':':9} {fact}", flush=True)
    wanted = [scenario for scenario in wanted if scenario.connections <= bench.connections]
    try:
        measure(bench, loops, wanted, options.rounds, results)
    except (KeyboardInterrupt, Terminated):
        print("interrupted: this is what there is", file=sys.stderr)
        _print(results)
        raise
    return _show(results, options)


def _show(results: Results, options: argparse.Namespace) -> int:
    _print(results)
    if options.json:
        results.write(options.json)
    if options.plot:
        options.plot.write_text(draw(results), encoding="utf-8")
    if options.page:
        update(options.page, results)
    failures = results.missing("failed")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _print(results: Results) -> None:
    tables = [as_text(grid) for grid in grids(results)]
    for table in tables:
        print(f"\n{table}")
    if tables and (note := ratio_note(results)):
        print(f"\n{note}")
    if absent := results.missing("absent"):
        print("\nNot measured\n" + "\n".join(f"  {line}" for line in absent))
    sys.stdout.flush()
