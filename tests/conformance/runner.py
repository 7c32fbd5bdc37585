"""Runs the tests of a module in worker processes, and comes through hangs and crashes.

`run` starts a worker for the module. A test that hangs or crashes takes its worker with it; the
tests that are left get a new one, until each has an outcome.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.worker import tidy

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What became of a test; `on_loop`: it has run the loop under test, not only a mock."""

    outcome: str  # "pass", "skip", "fail", "hang" or "crash"
    reason: str = ""
    on_loop: bool = False


Results = dict[str, Result]


def run(
    loop: str, module: str, select: tuple[str, ...] = ("*",), *, timeout: float = 60
) -> Results:
    """The result of each test of `module` whose name matches one of the patterns `select`.

    `loop` is MODULE:FACTORY; a test is given `timeout` seconds. Raises RuntimeError, with the last
    line of the worker's output, if the worker dies before it has loaded the tests.
    """
    results: Results = {}
    while True:
        request = {
            "loop": loop,
            "module": module,
            "select": select,
            "timeout": timeout,
            "done": list(results),
        }
        events, exit_status, log = _work(request)
        if not events:
            raise RuntimeError(f"{module}: the worker could not load the tests: {_last_line(log)}")
        tests: list[str] = events[0]["tests"]
        running = ""
        for event in events[1:]:
            running = event.get("start", running)
            if "end" in event:
                results[event["end"]] = Result(event["outcome"], event["reason"], event["on_loop"])
        if "done" in events[-1]:
            return {test: results[test] for test in tests}
        # Between two tests it's the former one's doing: what it left behind, or its tearDownClass.
        blamed = running or next((test for test in tests if test not in results), "")
        if not blamed:
            raise RuntimeError(f"{module}: the worker died with no test left: {_last_line(log)}")
        results[blamed] = _lost(exit_status, log)


def _work(request: dict[str, Any]) -> tuple[list[dict[str, Any]], int, str]:
    """Run one worker to its end: the events, the exit status and the output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS")
    }
    path = [str(ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path)
    with tempfile.TemporaryDirectory(prefix="conformance", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "request.json").write_text(json.dumps(request))
        (directory / "events.jsonl").touch()
        with (directory / "log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-W", "default", "-m", "tests.conformance.worker", name],
                cwd=name,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                worker.wait()
            finally:
                _kill_group(worker)
        lines = (directory / "events.jsonl").read_text().splitlines()
        output = (directory / "log").read_text(errors="replace")
    return [json.loads(line) for line in lines], worker.returncode, output


def _kill_group(worker: subprocess.Popen[bytes]) -> None:
    """End the worker, if need be, and the processes that its tests have left."""
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    worker.wait()


def _lost(exit_status: int, log: str) -> Result:
    """The result of a test that its worker did not survive."""
    _, timed_out, stacks = log.rpartition("Timeout (")
    if timed_out:
        # faulthandler lists the main thread last.
        return Result("hang", _innermost(stacks.split("\nThread ")[-1]), on_loop=True)
    why = signal.Signals(-exit_status).name if exit_status < 0 else f"exit status {exit_status}"
    _, crashed, stacks = log.rpartition("Current thread ")
    where = _innermost(stacks.split("\n\n")[0]) if crashed else _last_line(log)
    return Result("crash", f"{why}: {where}", on_loop=True)


def _innermost(stack: str) -> str:
    """The two innermost frames of a stack that faulthandler wrote, and the line of the test."""
    frames = re.findall(r'File "([^"]*)", line (\d+) in (\S+)', stack)
    shown = [f"{os.path.basename(f)}:{line} {function}" for f, line, function in frames[:2]]
    shown += [f"{os.path.basename(f)}:{n}" for f, n, _ in frames[2:] if "test_asyncio" in f][:1]
    return tidy(" < ".join(shown))


def _last_line(log: str) -> str:
    return tidy((log.strip().splitlines() or [""])[-1])
