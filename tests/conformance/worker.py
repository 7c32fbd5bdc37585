"""Runs the tests of one module in a process of its own: `python -m tests.conformance.worker DIR`.

DIR/request.json says what to run (see `runner.py`), and DIR/events.jsonl what happened, a JSON
object a line, written as it happens, so that a test which takes the process with it leaves the
results of those before it:

    {"tests": [...]}     the tests that the request selects, by name
    {"start": TEST}
    {"end": TEST, "outcome": "pass" | "skip" | "fail", "reason": ..., "on_loop": bool}
    {"done": true}

A test that runs longer than the request's timeout ends the process, with every thread's stack on
stderr.
"""

# ruff: noqa: N802  (unittest's names)

import asyncio
import contextlib
import faulthandler
import fnmatch
import json
import os
import re
import resource
import signal
import sys
import traceback
import unittest
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.conformance import suite

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Emit = Callable[..., None]

_PARENT = os.getppid()
_SEVERITY = {"pass": 0, "skip": 1, "fail": 2}


def name_of(test: unittest.TestCase) -> str:
    """`test_module.TestCase.test_method`."""
    module = type(test).__module__.rpartition(".")[2]
    return f"{module}.{type(test).__qualname__}.{test._testMethodName}"


def tidy(text: str, limit: int = 160) -> str:
    """`text` on one line, no longer than `limit`, without directories and addresses."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<![\w.:/])/(?:[\w.+~-]+/)+", "", text)
    text = re.sub(r"\b0x[0-9a-f]{6,}\b", "0x…", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _reason(info: ExcInfo) -> str:
    """The error and the line of the test that it came from."""
    kind, error, tb = info
    if kind is None:
        return ""
    first_line = (str(error).strip().splitlines() or [""])[0]
    lines = [
        f" ({os.path.basename(frame.filename)}:{frame.lineno})"
        for frame in traceback.extract_tb(tb)
        if "test_asyncio" in frame.filename
    ]
    return tidy(f"{kind.__name__}: {first_line}") + (lines[-1] if lines else "")


class Recorder(unittest.TestResult):
    """Emits what happens to each test of one class."""

    def __init__(self, emit: Emit, factory: suite.CountingFactory, timeout: float) -> None:
        super().__init__()
        self._emit = emit
        self._factory = factory
        self._timeout = timeout
        self._current: unittest.TestCase | None = None
        self._result: tuple[str, str] | None = None
        self._calls_before = 0
        self.ended: list[unittest.TestCase] = []
        self.class_problem: tuple[str, str] | None = None

    def startTest(self, test: unittest.TestCase) -> None:
        if os.getppid() != _PARENT:
            os._exit(1)  # the run was broken off, and nobody is interested any more
        super().startTest(test)
        self._current, self._result, self._calls_before = test, None, self._factory.calls
        self._emit(start=name_of(test))
        faulthandler.dump_traceback_later(self._timeout, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._current = None
        self.end(test, *(self._result or ("fail", "ended without an outcome")))
        # What a test leaves behind must not break those that follow.
        asyncio._set_running_loop(None)
        suite.forget_policy()
        faulthandler.dump_traceback_later(self._timeout, exit=True)

    def end(self, test: unittest.TestCase, outcome: str, reason: str) -> None:
        self.ended.append(test)
        on_loop = self._factory.calls > self._calls_before
        self._emit(end=name_of(test), outcome=outcome, reason=reason, on_loop=on_loop)

    def _note(self, outcome: str, reason: str = "") -> None:
        if self._current is None:  # setUpClass or tearDownClass
            self.class_problem = (outcome, reason)
        elif self._result is None or _SEVERITY[outcome] > _SEVERITY[self._result[0]]:
            self._result = (outcome, reason)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._note("pass")

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._note("fail", _reason(err))

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._note("fail", _reason(err))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._note("skip", tidy(reason))

    def addExpectedFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._note("pass")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._note("fail", "unexpected success")

    def addSubTest(
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: ExcInfo | None
    ) -> None:
        if err is not None:
            self._note("fail", _reason(err))


def _selected(case: type[unittest.TestCase], patterns: list[str]) -> list[unittest.TestCase]:
    loaded = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    tests = [test for test in loaded if isinstance(test, unittest.TestCase)]
    return [t for t in tests if any(fnmatch.fnmatchcase(name_of(t), p) for p in patterns)]


def _run(request: dict[str, Any], emit: Emit) -> None:
    timeout: float = request["timeout"]
    faulthandler.dump_traceback_later(timeout, exit=True)
    factory = suite.CountingFactory(request["loop"])
    suite.install(factory)
    cases: list[list[unittest.TestCase]] = []
    with contextlib.suppress(unittest.SkipTest):
        cases = [_selected(c, request["select"]) for c in suite.load(request["module"], factory)]
    emit(tests=[name_of(test) for tests in cases for test in tests])
    for tests in cases:
        tests = [test for test in tests if name_of(test) not in request["done"]]
        recorder = Recorder(emit, factory, timeout)
        unittest.TestSuite(tests).run(recorder)
        if recorder.class_problem is not None:
            # A setUpClass that fails fails every test, a tearDownClass the last one.
            for test in [t for t in tests if t not in recorder.ended] or tests[-1:]:
                recorder.end(test, *recorder.class_problem)
    emit(done=True)


def _reset_signals() -> None:
    """Undo what a process started in the background inherits: the tests count on the defaults."""
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main() -> None:
    directory = Path(sys.argv[1])
    request = json.loads((directory / "request.json").read_text())
    process = os.getpid()
    with (directory / "events.jsonl").open("a", buffering=1) as events:

        def emit(**event: object) -> None:
            if os.getpid() == process:  # and not a child that a test forked
                events.write(json.dumps(event) + "\n")

        _reset_signals()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable()
        _run(request, emit)
        sys.stderr.flush()
        os._exit(0)  # whatever threads or handlers the tests have left


if __name__ == "__main__":
    main()
