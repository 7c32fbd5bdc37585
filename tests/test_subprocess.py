"""Child processes: real ones, most of them Python's."""

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import loops
from tests.children import BLOCKED, CAT, Recorder, blocked, none_left, output, python

BIG = bytes(range(256)) * 16384  # 4 MiB


@pytest.fixture(autouse=True)
def no_children() -> Iterator[None]:
    with none_left():
        yield


# Data


async def test_communicate_with_much_data_both_ways() -> None:
    source = (
        "import sys\n"
        "while data := sys.stdin.buffer.read1(65536):\n"
        "    sys.stdout.buffer.write(data); sys.stderr.buffer.write(data[::-1])\n"
    )
    process = await python(source, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate(BIG)
    assert out == BIG
    assert len(err) == len(BIG)
    assert process.returncode == 0


async def test_conversation() -> None:
    source = "for line in iter(input, 'end'): print(line.upper(), flush=True)"
    process = await python(source, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for word in (b"one\n", b"two\n"):
        process.stdin.write(word)
        assert await process.stdout.readline() == word.upper()
    assert await output(process, b"end\n") == b""
    assert await process.wait() == 0


async def test_shell() -> None:
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2; exit 7", stdout=PIPE, stderr=PIPE
    )
    assert await process.communicate() == (b"out\n", b"err\n")
    assert process.returncode == 7


async def test_standard_error_into_standard_output() -> None:
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2", stdout=PIPE, stderr=STDOUT
    )
    assert await output(process) == b"out\nerr\n"


async def test_streams_that_are_files_numbers_sockets_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"from a file")
    ours, theirs = socket.socketpair()
    source = f"{CAT}; sys.stderr.write('to a socket')"
    with (tmp_path / "in").open("rb") as file, (tmp_path / "out").open("wb") as out:
        process = await python(source, stdin=file, stdout=out.fileno(), stderr=theirs)
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert await process.wait() == 0
    theirs.close()
    assert (tmp_path / "out").read_bytes() == b"from a file"
    with ours, ours.makefile("rb") as received:
        assert received.read() == b"to a socket"

    process = await python(CAT, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    assert await output(process) == b""


async def test_options_reach_the_child(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    source = (
        "import os, sys; os.write(int(sys.argv[1]), b'passed'); "
        "open('here', 'w').write(os.environ['NAME']); print(os.getsid(0) == os.getpid())"
    )
    process = await python(
        source,
        str(writing),
        stdout=PIPE,
        cwd=tmp_path,
        env={**os.environ, "NAME": "value"},
        pass_fds=[writing],
        start_new_session=True,
    )
    assert await output(process) == b"True\n"
    os.close(writing)
    assert (tmp_path / "here").read_text() == "value"
    assert os.read(reading, 10) == b"passed"
    os.close(reading)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads about
async def test_preexec_fn_runs_in_the_child() -> None:
    process = await python(
        "import os; print(os.getpgid(0) == os.getpid())", stdout=PIPE, preexec_fn=os.setpgrp
    )
    assert await output(process) == b"True\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop does not reap the child
async def test_preexec_fn_that_raises_leaves_nothing() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(subprocess.SubprocessError):
        await python("", stdin=PIPE, stdout=PIPE, preexec_fn=fail)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.loops("aws_io_async")
async def test_preexec_fn_with_signal_handlers_on_the_loop() -> None:
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, arrived.set)
    process = await python(
        "", preexec_fn=lambda: signal.raise_signal(signal.SIGUSR1)
    )  # in the child only
    assert await process.wait() == 0
    assert not arrived.is_set()
    os.kill(os.getpid(), signal.SIGUSR1)
    await arrived.wait()
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_input_that_nobody_reads_is_a_broken_pipe() -> None:
    process = await python("import os; os.close(0); print('closed')", stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    process.stdin.write(BIG)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await process.stdin.drain()
    out, _ = await process.communicate()
    assert out == b"closed\n"


async def test_communicate_does_not_mind_a_broken_pipe() -> None:
    process = await python("print('gone')", stdin=PIPE, stdout=PIPE)
    assert await output(process, BIG) == b"gone\n"


async def test_output_written_before_the_end_can_be_read_after_it() -> None:
    process = await python("print('x' * 50_000)", stdout=PIPE)
    assert await process.wait() == 0
    assert process.stdout is not None
    assert await process.stdout.read() == b"x" * 50_000 + b"\n"


# The protocol


async def test_what_the_protocol_is_told_and_when() -> None:
    loop = asyncio.get_running_loop()
    source = "import sys; sys.stdout.write('out'); sys.stderr.write('err')"
    transport, protocol = await loop.subprocess_exec(Recorder, sys.executable, "-c", source)
    await protocol.closed
    assert protocol.data == {1: b"out", 2: b"err"}
    events = protocol.events
    assert events[0] == "made"
    assert events[-1] == ("lost", None)
    for fd in (1, 2):
        assert events.index(("data", fd)) < events.index(("pipe lost", fd))
    assert sorted(map(str, events[1:-1])) == sorted(
        map(str, [("data", 1), ("data", 2), "exited", *(("pipe lost", fd) for fd in range(3))])
    )
    assert transport.get_returncode() == 0
    transport.close()


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's close leaves the child to itself
async def test_transport_knows_its_child() -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(Recorder, *BLOCKED, stderr=None)
    assert transport.get_pid() > 0
    os.kill(transport.get_pid(), 0)
    assert transport.get_returncode() is None
    assert transport.get_protocol() is protocol
    assert isinstance(transport.get_pipe_transport(0), asyncio.WriteTransport)
    assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
    assert transport.get_pipe_transport(2) is None
    assert transport.get_pipe_transport(3) is None
    assert not transport.is_closing()
    transport.close()
    assert transport.is_closing()
    transport.close()
    await protocol.closed
    assert transport.get_returncode() == -signal.SIGKILL


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop wants pipes, or nobody to tell
async def test_child_that_ends_at_once_is_reported_after_connection_made() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(10):
        transport, protocol = await loop.subprocess_exec(
            Recorder, "true", stdin=None, stdout=None, stderr=None
        )
        assert protocol.events[0] == "made"
        await protocol.closed
        assert protocol.events == ["made", "exited", ("lost", None)]
        transport.close()


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's order is another
async def test_protocol_that_raises_is_reported_and_gets_the_rest() -> None:
    class Raising(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            raise ZeroDivisionError

        def pipe_data_received(self, fd: int, data: bytes) -> None:
            super().pipe_data_received(fd, data)
            raise IndexError

        def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
            super().pipe_connection_lost(fd, exc)
            raise KeyError

        def process_exited(self) -> None:
            super().process_exited()
            raise LookupError

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            raise ArithmeticError

    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    transport, protocol = await loop.subprocess_exec(
        Raising, sys.executable, "-c", "print('hello')", stdin=None, stderr=None
    )
    await protocol.closed
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    raised = {type(context["exception"]) for context in reported}
    assert raised == {ZeroDivisionError, IndexError, KeyError, LookupError, ArithmeticError}
    assert protocol.data[1] == b"hello\n"
    transport.close()


async def test_kill_while_reading_is_paused() -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(Recorder, *BLOCKED, stdin=None, stderr=None)
    stdout: Any = transport.get_pipe_transport(1)
    stdout.pause_reading()
    transport.kill()
    await protocol.exited.wait()
    assert ("pipe lost", 1) not in protocol.events
    stdout.resume_reading()
    await protocol.closed
    assert transport.get_returncode() == -signal.SIGKILL
    assert protocol.events[-1] == ("lost", None)
    transport.close()


# Signals


@pytest.mark.parametrize("method", ["kill", "terminate", "send_signal"])
async def test_signals_reach_the_child(method: str) -> None:
    sig = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "send_signal": signal.SIGHUP}
    process = await blocked()
    getattr(process, method)(*([sig[method]] if method == "send_signal" else []))
    assert await process.wait() == -sig[method]
    assert process.returncode == -sig[method]


async def test_signals_to_a_finished_child_are_an_error() -> None:
    process = await python("")
    await process.wait()
    for method, args in (("kill", ()), ("terminate", ()), ("send_signal", (signal.SIGUSR1,))):
        with pytest.raises(ProcessLookupError):
            getattr(process, method)(*args)


# Waiting


async def test_many_waiters_one_cancelled() -> None:
    process = await blocked()
    waiters = [asyncio.create_task(process.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    waiters[2].cancel()
    process.terminate()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(results.pop(2), asyncio.CancelledError)
    assert results == [-signal.SIGTERM] * 4
    assert await process.wait() == -signal.SIGTERM


async def test_many_children_at_once() -> None:
    async def one(number: int) -> tuple[bytes, int | None]:
        source = f"{CAT}; raise SystemExit({number})"
        process = await python(source, stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(b"%d" % number * 10_000)
        return out, process.returncode

    results = await asyncio.gather(*map(one, range(20)))
    assert results == [(b"%d" % number * 10_000, number) for number in range(20)]


@pytest.mark.loops("aws_io_async", "uvloop")  # asyncio's waits for the pipes, before 3.15
async def test_wait_returns_at_the_end_of_the_child_though_a_grandchild_has_its_pipes() -> None:
    reading, writing = os.pipe()
    source = (
        "import os, sys\n"
        "if os.fork(): print('started')\n"
        "else: os.write(1, os.read(int(sys.argv[1]), 100))\n"
    )
    process = await python(source, str(reading), stdout=PIPE, pass_fds=[reading])
    os.close(reading)
    assert await process.wait() == 0
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    os.write(writing, b"still here")
    os.close(writing)
    assert await process.stdout.read() == b"still here"
    await asyncio.sleep(0)


def test_program_that_ends_right_after_wait_leaves_nothing_open() -> None:
    async def main() -> int:
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        return await process.wait()

    for _ in range(10):
        with asyncio.Runner(loop_factory=loops.FACTORIES["aws_io_async"]) as runner:
            assert runner.run(main()) == 0
        gc.collect()  # would warn of what is unclosed


# Closing and cancelling


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's close leaves the child to itself
async def test_close_kills_a_running_child() -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(Recorder, *BLOCKED)
    transport.close()
    await protocol.closed
    assert transport.get_returncode() == -signal.SIGKILL


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop leaves the child running
async def test_cancelled_start_leaves_no_child_and_no_fd() -> None:
    for delay in range(6):  # turns of the loop before the cancellation
        task = asyncio.ensure_future(
            asyncio.create_subprocess_exec(*BLOCKED, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        )
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        try:
            process = await task
        except asyncio.CancelledError:
            continue
        process.kill()  # too late to be cancelled
        await process.communicate()
    await asyncio.sleep(0)


def forget(objects: list[Any]) -> None:
    objects.clear()
    gc.collect()


@pytest.mark.parametrize("name", ["aws_io_async"])
def test_forgotten_transport_warns_and_kills(name: str) -> None:
    loop = loops.FACTORIES[name]()
    made = [loop.run_until_complete(loop.subprocess_exec(asyncio.SubprocessProtocol, *BLOCKED))]
    popen = made[0][0].get_extra_info("subprocess")
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        forget(made)
    assert popen.wait() == -signal.SIGKILL


# Bad input


@pytest.mark.loops("aws_io_async", "asyncio")  # other words in uvloop
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"bufsize": 4096}, "bufsize must be 0"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
    ],
)
async def test_text_and_buffers_are_refused(options: dict[str, Any], message: str) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match=message):
        await loop.subprocess_exec(Recorder, "true", **options)
    with pytest.raises(ValueError, match=message):
        await loop.subprocess_shell(Recorder, "true", **options)


async def test_shell_and_exec_are_not_each_other() -> None:
    loop: Any = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="shell must be"):
        await loop.subprocess_exec(Recorder, "true", shell=True)
    with pytest.raises(ValueError, match="shell must be"):
        await loop.subprocess_shell(Recorder, "true", shell=False)


@pytest.mark.loops("aws_io_async", "asyncio")
@pytest.mark.parametrize("command", [None, 7, ["true"], ("true",)])
async def test_shell_command_must_be_one_string(command: Any) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="cmd must be a string"):
        await loop.subprocess_shell(Recorder, command)


@pytest.mark.parametrize("args", [(123,), ("true", 123), (["true"],), ("true", None)])
async def test_arguments_must_be_strings(args: Any) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TypeError):
        await loop.subprocess_exec(Recorder, *args)


async def test_program_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec(str(tmp_path / "nothing"), stdin=PIPE, stdout=PIPE)
    with pytest.raises(PermissionError):
        await asyncio.create_subprocess_exec(str(tmp_path), stdin=PIPE, stdout=PIPE)


async def test_working_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("true", cwd=tmp_path / "nothing", stdout=PIPE)


# Debug mode


@pytest.mark.loops("aws_io_async", "asyncio")
async def test_debug_mode_logs_the_life_of_a_child_without_its_arguments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 10
    caplog.set_level(logging.DEBUG)
    process = await python("pass  # secret", stdin=PIPE, stdout=PIPE)
    await process.communicate()
    loop.set_debug(False)
    assert f"execute program {sys.executable!r} stdin=<pipe> stdout=<pipe>" in caplog.text
    assert f"pid {process.pid}" in caplog.text
    assert "exited with return code 0" in caplog.text
    assert "secret" not in caplog.text
