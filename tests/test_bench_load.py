"""The benchmark's load: compiled where that can be done, or else in Python; and wrk."""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from aws_io_async._bench._load import find_loads, read_wrk
from aws_io_async._bench._processes import ProcessError, running
from tests.bench_runs import SHORT, bench, measured
from tests.cli.servers import serving

COMPILER = shutil.which("cc")

needs_compiler = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="needs a C compiler, and epoll"
)


def compiler(folder: Path, refuses: str = "-no-such-flag") -> str:
    """A C compiler that writes down how it is called, and fails if that includes a flag."""
    script = folder / "compiler"
    script.write_text(
        f'#!/bin/sh\necho "$@" >>{folder}/calls\n'
        f'case "$*" in *{refuses}*) echo no headers >&2; exit 1;; esac\n'
        f'exec {COMPILER} "$@"\n'
    )
    script.chmod(0o755)
    return f"{script}"


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


@needs_compiler
def test_the_load_is_compiled_once(tmp_path: Path) -> None:
    found = {"CC": compiler(tmp_path), "XDG_CACHE_HOME": f"{tmp_path}"}
    called = []
    for _ in range(2):
        run = bench(*SHORT, "--only", "protocol, 1 KiB", "asyncio", env=found)
        assert run.status == 0, run.errors
        assert "\nLoad:     load.c" in run.out
        called.append(calls(tmp_path))
    # Without the headers of OpenSSL there is a vain attempt each time.
    assert called in ([1, 1], [2, 3])
    (program,) = (tmp_path / "aws-io-async").iterdir()
    assert program.stat().st_mode & 0o111


@needs_compiler
def test_without_a_folder_that_lasts_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'file'}")
    with ExitStack() as stack:
        program = find_loads(stack).compiled
        assert program
        assert Path(program).exists()
    assert not Path(program).exists()


@needs_compiler
def test_without_the_headers_of_openssl_only_tls_is_left_to_python(tmp_path: Path) -> None:
    found = {"CC": compiler(tmp_path, refuses="-lssl"), "XDG_CACHE_HOME": f"{tmp_path}"}
    assert measured(tmp_path, "--only", "^echo: .*protocol, 1 KiB", "asyncio", env=found)
    assert calls(tmp_path) == 2
    run = bench(*SHORT, "--only", "protocol, 1 KiB", "asyncio", env=found)
    assert "load.c; for TLS (no headers of OpenSSL) a load in Python, which is" in run.out


@pytest.mark.parametrize(
    ("found", "why"),
    [("no-such-compiler", "there is no C compiler, no-such-compiler"), ("false", "ended with 1")],
)
def test_without_a_compiler_the_load_is_in_python(tmp_path: Path, found: str, why: str) -> None:
    changes = {"CC": found, "XDG_CACHE_HOME": f"{tmp_path}"}
    run = bench(*SHORT, "--only", "protocol, 1 KiB", "asyncio", env=changes)
    assert run.status == 0, run.errors
    if sys.platform == "linux":
        assert "a load in Python, which is the limit of what can be measured" in run.out
        assert why in run.out


def test_the_load_in_python_can_do_all_that_the_other_can(tmp_path: Path) -> None:
    only = "^echo: (protocol|datagrams|TLS protocol|TLS hand|conn)|^http|^scale: 1|^memory: .*prot"
    found = measured(tmp_path, "--only", only, "aws_io_async", env={"CC": "no-such-compiler"})
    assert len(found) == 17
    for samples in found.values():
        assert samples["aws_io_async"][0]["value"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells another's CPU time")
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_compiler), False])
def test_it_goes_on_until_the_server_has_had_a_turn(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """Another process answers here, so that the one that is looked at need not."""
    if not compiled:
        monkeypatch.setenv("CC", "no-such-compiler")
    starved = "import time\nprint()\ntime.sleep(0.5)\nwhile True: pass"
    with ExitStack() as stack:
        loads = find_loads(stack)
        port = stack.enter_context(serving())
        server = stack.enter_context(running("a server", [sys.executable, "-uc", starved], None))
        server.line()
        found = loads.run("tcp", port, 1, 100, 0.01, server, None)
    assert found.cpu is not None
    assert found.cpu > 0


def test_what_wrk_says() -> None:
    said = """\
Running 2s test @ http://127.0.0.1:8000/
  1 threads and 10 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   685.02us  211.31us   4.60ms   88.32%
    Req/Sec    14.68k     1.15k   16.13k    76.19%
  Latency Distribution
     50%  643.00us
     75%  701.00us
     90%    0.89ms
     99%    1.54ms
  30671 requests in 2.10s, 4.65MB read
Requests/sec:  14605.80
Transfer/sec:      2.21MB
"""
    found = read_wrk(said, 1.5)
    assert (found.operations, found.seconds, found.cpu) == (30671, 2.1, 1.5)
    assert (found.p50, found.p99) == (643, 1540)


@pytest.mark.parametrize(
    "said",
    [
        "unable to connect to 127.0.0.1:1 Connection refused",
        "50% 1ms\n99% 2ms\n0 requests in 2.00s, 0.00B read",
        "50% 1ms\n99% 2ms\n10 requests in 2.00s\n  Socket errors: connect 0, read 10, write 0",
        "50% 1ms\n99% 2ms\n10 requests in 2.00s\n  Non-2xx or 3xx responses: 10",
    ],
)
def test_what_wrk_says_when_it_fails(said: str) -> None:
    with pytest.raises(ProcessError, match="wrk"):
        read_wrk(said, None)


@pytest.mark.skipif(sys.platform != "linux", reason="of the load in C; Linux has epoll")
@needs_compiler
def test_the_load_says_how_it_is_used() -> None:
    import subprocess

    with ExitStack() as stack:
        program = find_loads(stack).compiled
        assert program
        done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: load MODE PORT")
