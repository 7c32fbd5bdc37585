"""The benchmark measures what it lists, and says so when it cannot."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aws_io_async._bench import _child
from aws_io_async._bench._machine import cpu_seconds
from aws_io_async._bench._processes import PATIENCE, python_command, running
from tests.bench_runs import ROOT, SHORT, bench, command, environment, measured

ONE = ("--only", "^echo: protocol, 1 KiB")
TWO = ("--only", "^echo: (protocol, 1 KiB|streams, 1 KiB)")
LINUX = sys.platform == "linux"


def listed(*arguments: str) -> list[str]:
    run = bench("--list", *arguments)
    assert (run.status, run.errors) == (0, "")
    return run.out.splitlines()


# What it measures


@pytest.mark.parametrize("group", ["echo", "http", "scale", "scheduler", "memory", "start"])
def test_all_that_is_listed_is_measured(tmp_path: Path, group: str) -> None:
    only = ("--only", f"^{group}", "--connections", "50")
    found = measured(tmp_path, *only, "aws_io_async")
    assert list(found) == listed(*only)
    for samples in found.values():
        (sample,) = samples["aws_io_async"]
        assert sample["value"] > 0
        if group in ("echo", "http", "scale"):
            assert 0 < sample["p50"] <= sample["p99"]
            assert not LINUX or sample["cpu"] > 0


@pytest.mark.skipif(not LINUX, reason="only Linux tells another process's CPU time")
def test_the_cpu_time_is_the_servers() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(), input()"
    with running("a server", [sys.executable, "-uc", spin], None) as server:
        server.line()
        spent = cpu_seconds(server.pid)
    assert spent is not None
    assert 0.2 < spent < PATIENCE  # the kernel adds to it from tick to tick
    assert cpu_seconds(server.pid) is None  # it has ended


def test_every_scenario_is_in_a_group_of_the_tests_above() -> None:
    groups = {name.partition(":")[0] for name in listed()}
    assert groups == {"echo", "http", "scale", "scheduler", "memory", "start"}


@pytest.mark.skipif(not LINUX, reason="needs epoll")
def test_a_bare_server_marks_the_limit(tmp_path: Path) -> None:
    found = measured(tmp_path, "aws_io_async", "bare", "--only", "1 KiB|handshakes|opened")
    limits = {name for name, samples in found.items() if "bare" in samples}
    assert limits == {
        "echo: protocol, 1 KiB, 10 connections",
        "echo: datagrams, 1 KiB, 10 connections",
        "echo: TLS protocol, 1 KiB, 10 connections",
        "echo: TLS handshakes, 1 at a time",
        "echo: TLS handshakes, 10 at a time",
        "echo: connections opened and closed, 1 at a time",
        "echo: connections opened and closed, 10 at a time",
    }


def test_rounds_alternate_between_the_loops(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    two = ("aws_io_async", "asyncio")
    run = bench(*SHORT, "--rounds", "2", *TWO, "--json", f"{file}", *two)
    assert run.status == 0, run.errors
    assert run.steps() == [
        f"echo: {name}, 1 KiB, 10 connections: {loop}, round {number} of 2"
        for name in ("protocol", "streams")
        for number in (1, 2)
        for loop in ("aws_io_async", "asyncio")
    ]


def test_the_first_loop_is_compared_with_the_others() -> None:
    run = bench(*SHORT, *ONE, "asyncio", "aws_io_async")
    assert run.status == 0, run.errors
    heading, row = next(
        (lines[1].split(), lines[2])
        for table in run.out.split("\n\n")
        if (lines := table.splitlines())[0].startswith("Echo servers: messages")
    )
    assert heading == ["asyncio", "aws_io_async"]
    assert row.count("(x") == 1
    assert "how many times that loop's figure asyncio has" in run.out


def test_the_default_is_all_loops_that_are_there() -> None:
    run = bench(*SHORT, "--only", "^scheduler: task spawn")
    assert run.status == 0, run.errors
    loops = [step.rpartition(": ")[2] for step in run.steps()]
    assert loops[:3] == ["aws_io_async", "uvloop", "asyncio"]


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import asyncio\nclass Loops:\n    new = staticmethod(asyncio.SelectorEventLoop)\n"
    )
    run = bench(*SHORT, *ONE, "mine:Loops.new", cwd=tmp_path)
    assert run.status == 0, run.errors
    assert run.steps() == ["echo: protocol, 1 KiB, 10 connections: mine:Loops.new"]


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs, and a choice",
)
def test_servers_and_load_are_on_different_cpus(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import asyncio, os\n"
        "def new():\n"
        "    with open('cpus', 'a') as file:\n"
        "        print(*os.sched_getaffinity(0), file=file)\n"
        "    return asyncio.SelectorEventLoop()\n"
    )
    run = bench(*SHORT, *ONE, "mine:new", cwd=tmp_path)
    assert run.status == 0, run.errors
    first, second, *_ = sorted(os.sched_getaffinity(0))
    assert f"servers on CPU {first}, load on CPU {second}\n" in run.out
    assert (tmp_path / "cpus").read_text().splitlines()[-1] == f"{first}"


def test_no_more_connections_than_descriptors() -> None:
    few = 'ulimit -n 150 && exec "$@"'
    only = ("--connections", "100", "--only", "^scale: 10|^memory: protocol")
    run = bench(*SHORT, *only, "asyncio", shell=few)
    assert run.status == 0, run.errors
    assert "no more than 30: the limit of open files\n" in run.out
    assert run.steps() == ["scale: 10 connections: asyncio", "memory: protocol: asyncio"]


# What it cannot measure


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("quick",), "unknown loop 'quick': it is one of aws_io_async, uvloop, asyncio, rloop"),
        (("no_such_module:new",), "loop 'no_such_module:new' is not there: No module named"),
        (("asyncio:no_such_loop",), "loop 'asyncio:no_such_loop' is not there: module 'asyncio'"),
        (("os:getpid",), "loop 'os:getpid' ended by exit status 1: AttributeError"),
        (("bare",), "there is no loop to measure"),
        (("--only", "no such scenario"), "no scenario matches 'no such scenario'"),
        (("--only", "(", "asyncio"), "not a regular expression: '('"),
        (("--python", "no-such-python"), "there is no Python at 'no-such-python'"),
        (("--json", "no/such/folder/file"), "cannot write to no/such/folder/file"),
        (("--plot", "."), "cannot write to ."),
        (("--page", "empty.md"), "empty.md lacks the lines <!-- benchmark"),
        (("--from", "empty.md"), "empty.md has no results of this benchmark"),
        (("--from", "missing.json"), "No such file or directory: 'missing.json'"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    (tmp_path / "empty.md").write_text("")
    run = bench(*arguments, cwd=tmp_path)
    assert run.status == 2
    (line,) = run.errors.splitlines()
    assert line.startswith("error: ")
    assert complaint in line


@pytest.mark.parametrize(
    "arguments", [("--rounds", "0"), ("--seconds", "-1"), ("--seconds", "inf"), ("--frobnicate",)]
)
def test_arguments_that_cannot_be_read(arguments: tuple[str, ...]) -> None:
    run = bench(*arguments)
    assert run.status == 2
    assert "usage: python -m aws_io_async bench" in run.errors


def test_a_server_that_dies(tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(
        "import asyncio, os, sys\n"
        "class Loop(asyncio.SelectorEventLoop):\n"
        "    def call_soon(self, *args, **kwargs):\n"
        "        self.calls = getattr(self, 'calls', 0) + 1\n"
        "        if self.calls == 50:\n"
        "            sys.stderr.write('out of calls')\n"
        "            sys.stderr.flush()\n"
        "            os._exit(7)\n"
        "        return super().call_soon(*args, **kwargs)\n"
    )
    run = bench(*SHORT, *TWO, "mortal:Loop", "asyncio", cwd=tmp_path)
    assert run.status == 1
    assert run.complaints() == [
        "failed: mortal:Loop: the server ended by exit status 7: out of calls "
        "(echo: protocol, 1 KiB, 10 connections; echo: streams, 1 KiB, 10 connections)"
    ]
    assert "streams, 1 KiB, 10 connections" in run.out  # of asyncio


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "refuses.py").write_text(
        "import asyncio\n"
        "class Loop(asyncio.SelectorEventLoop):\n"
        "    async def create_server(self, *args, **kwargs):\n"
        "        raise OSError('no servers here')\n"
        "    async def create_datagram_endpoint(self, *args, **kwargs):\n"
        "        raise NotImplementedError('no datagrams')\n"
    )
    only = ("--only", "^echo: (protocol|datagrams), 1 KiB")
    run = bench(*SHORT, *only, "refuses:Loop", cwd=tmp_path)
    assert run.status == 1
    assert run.complaints() == [
        "failed: refuses:Loop: the server ended by exit status 1: OSError: no servers here "
        "(echo: protocol, 1 KiB, 10 connections)"
    ]
    missing = "  refuses:Loop: no datagrams (echo: datagrams, 1 KiB, 10 connections)\n"
    assert run.out.endswith(f"Not measured\n{missing}")


def test_a_server_that_sends_something_else(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "import asyncio\n"
        "class Loop(asyncio.SelectorEventLoop):\n"
        "    async def sock_sendall(self, sock, data):\n"
        "        await super().sock_sendall(sock, data[::-1])\n"
    )
    for compiler in ("cc", "no-such-compiler"):
        run = bench(
            *SHORT, "--only", "sock methods", "wrong:Loop", cwd=tmp_path, env={"CC": compiler}
        )
        assert run.status == 1
        (complaint,) = run.complaints()
        assert "the server sent wrong bytes" in complaint


# How it ends


def children_of(pid: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = (map(int, line.split()) for line in listing.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to it", "to all, as a terminal does"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_process(
    number: signal.Signals, status: int, send: Callable[[int, int], None]
) -> None:
    """And the results so far are shown."""
    with subprocess.Popen(
        command("--seconds", "0.05", *TWO, "--rounds", "1000", "asyncio"),
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr
        steps = iter(process.stderr.readline, "")
        assert next(steps).endswith("round 1 of 1000\n")
        assert next(steps).endswith("round 2 of 1000\n")
        while not (children := children_of(process.pid)):
            pass  # one of them is about to be started
        send(process.pid, number)
        out, errors = process.communicate(timeout=50)
        assert process.returncode == status
    assert not any(map(is_alive, children))
    assert "interrupted: this is what there is\n" in errors
    assert "protocol, 1 KiB, 10 connections" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_process_is_started_leaves_none(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It comes at the worst time: the process is there, and nobody knows of it yet."""
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), running("it", ["sleep", "1000"], None):
            pytest.fail("it goes on")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_servers_do_not_outlive_a_benchmark_that_was_killed() -> None:
    """They end by themselves when their time is over."""
    server = python_command("_serve_asyncio", "asyncio:SelectorEventLoop", "protocol", life=1)
    assert server[2] == f"{1 + 2 * PATIENCE:.0f}"
    server[2] = "1"
    done = subprocess.run(server, input=b"", capture_output=True, check=False)
    assert done.returncode == -signal.SIGALRM
    assert int(done.stdout) > 0


def test_parts_run_the_copy_of_the_library_that_they_lie_in(tmp_path: Path) -> None:
    (tmp_path / "aws_io_async.py").write_text("raise SystemExit('another one')")
    probe = python_command("_loops", "aws_io_async:new_event_loop", life=0)
    assert probe[1] == _child.__file__
    done = subprocess.run(
        probe, cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_examples_are_ways_into_it() -> None:
    for name, group in (("echo.py", "echo"), ("idle.py", "memory")):
        done = subprocess.run(
            [sys.executable, "-W", "error", f"{ROOT / 'examples' / 'bench' / name}", "--list"],
            env=environment({}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {group}
