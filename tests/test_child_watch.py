"""How the end of a child process comes to be known, by pidfd and by thread."""

import asyncio
import errno
import logging
import os
import resource
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from typing import Any

import pytest

from tests import loops
from tests.children import (
    BLOCKED,
    CAT,
    Recorder,
    blocked,
    none_left,
    output,
    python,
    until_ended,
)


@pytest.fixture(autouse=True)
def no_children() -> Iterator[None]:
    with none_left():
        yield


def reap(pid: int) -> None:
    os.waitpid(pid, 0)


def no_pidfd(*args: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture(params=["pidfd", "thread"])
def way_of_waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """For our loop: wait for the child as this system would, and as one without pidfd."""
    if request.param == "thread":
        monkeypatch.setattr(os, "pidfd_open", no_pidfd, raising=False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("needs pidfd")
    return str(request.param)


@pytest.mark.loops("aws_io_async")
async def test_both_ways_of_waiting(way_of_waiting: str) -> None:
    process = await blocked()
    threads = [t for t in threading.enumerate() if t.name == f"waitpid-{process.pid}"]
    assert len(threads) == (1 if way_of_waiting == "thread" else 0)
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    process = await python("raise SystemExit(3)", stdin=PIPE, stdout=PIPE)
    assert await output(process, b"x") == b""
    assert process.returncode == 3


@pytest.mark.loops("aws_io_async")
async def test_child_that_ended_before_connection_made(way_of_waiting: str) -> None:
    loop = asyncio.get_running_loop()

    def factory() -> Recorder:
        # The first callbacks of the new transport run after this one: by then the child is dead.
        loop.call_soon(until_ended, None)
        return Recorder()

    transport, protocol = await loop.subprocess_exec(factory, "true")
    await protocol.closed
    assert protocol.events[0] == "made"
    assert "exited" in protocol.events
    assert transport.get_returncode() == 0
    transport.close()


@pytest.mark.loops("aws_io_async")
async def test_no_more_watches_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = asyncio.get_running_loop()
    real = loop._add_reader

    def full(fd: int, *args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(loop, "_add_reader", real)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "_add_reader", full)
    process = await python("raise SystemExit(3)")
    assert await process.wait() == 3


@pytest.mark.loops("aws_io_async")
async def test_child_that_cannot_be_watched_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "pidfd_open", no_pidfd, raising=False)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await asyncio.create_subprocess_exec(*BLOCKED, stdin=PIPE, stdout=PIPE, stderr=PIPE)


@pytest.mark.loops("aws_io_async")
async def test_nothing_is_left_when_no_fd_is(way_of_waiting: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir("/dev/fd"))
    fillers = [os.open("/dev/null", os.O_RDONLY)]
    while fillers[-1] < highest:
        fillers.append(os.open("/dev/null", os.O_RDONLY))
    failures = 0
    for spare in range(15):
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + spare, hard))
        try:
            process = await python("", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except OSError as exc:
            assert exc.errno == errno.EMFILE  # noqa: PT017  # the ones that start are as good
            failures += 1
        else:
            await process.communicate()
            assert process.returncode == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in fillers:
        os.close(fd)
    assert 0 < failures < 15


@pytest.mark.loops("aws_io_async")  # asyncio's two ways differ, uvloop waits for any child
async def test_child_reaped_by_someone_else(
    way_of_waiting: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = await blocked()
    if way_of_waiting == "thread":
        # It is in waitpid() already, and would win.
        old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        process.kill()
        assert await process.wait() == 255
        signal.signal(signal.SIGCHLD, old)
    else:
        process.kill()
        reap(process.pid)
        assert await process.wait() == 255
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{process.pid} exit status already read" in record.getMessage()


@pytest.mark.loops("aws_io_async")  # asyncio warns and says 255
async def test_child_reaped_by_its_popen_object(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        Recorder, sys.executable, "-c", "raise SystemExit(5)"
    )
    popen = transport.get_extra_info("subprocess")
    until_ended(popen.pid)
    assert popen.poll() == 5
    await protocol.closed
    assert transport.get_returncode() == 5
    assert caplog.records == []
    transport.close()


@pytest.mark.loops("aws_io_async")  # asyncio may signal another process that has the pid by now
async def test_signals_between_the_end_and_its_notice_do_nothing(way_of_waiting: str) -> None:
    process = await blocked()
    os.kill(process.pid, signal.SIGUSR1)
    until_ended(process.pid)
    process.kill()
    assert await process.wait() == -signal.SIGUSR1


@pytest.mark.loops("aws_io_async")  # asyncio takes the exit status from itself, and says 255
async def test_close_leaves_a_finished_child_its_return_code(way_of_waiting: str) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        Recorder, sys.executable, "-c", "raise SystemExit(5)"
    )
    until_ended(transport.get_pid())
    transport.close()
    await protocol.closed
    assert transport.get_returncode() == 5


@pytest.mark.loops("aws_io_async")  # asyncio's can hang: a task of its own is cancelled, too
async def test_start_while_all_tasks_are_cancelled(way_of_waiting: str) -> None:
    for delay in range(1, 4):
        task = asyncio.ensure_future(
            asyncio.create_subprocess_exec(*BLOCKED, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        )
        for _ in range(delay):
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        if isinstance(results[0], Process):
            results[0].kill()
            await results[0].communicate()


@pytest.mark.parametrize("name", ["aws_io_async", "asyncio"])
def test_on_a_loop_of_another_thread(name: str, way_of_waiting: str) -> None:
    if name == "asyncio" and (way_of_waiting == "thread" or sys.version_info < (3, 12)):
        pytest.skip("asyncio chooses its way once for all, and before 3.12 needs the main thread")
    loop = loops.FACTORIES[name]()
    results: list[Any] = []

    async def main() -> None:
        process = await python(CAT, stdin=PIPE, stdout=PIPE)
        results.append(await process.communicate(b"hello"))
        results.append(process.returncode)

    def run() -> None:
        loop.run_until_complete(main())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    loop.close()
    assert results == [(b"hello", None), 0]


def test_loop_closed_before_the_child_ends(
    way_of_waiting: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop = loops.FACTORIES["aws_io_async"]()
    transport, _ = loop.run_until_complete(
        loop.subprocess_exec(asyncio.SubprocessProtocol, *BLOCKED)
    )
    pid = transport.get_pid()
    loop.close()
    assert (f"handles pid {pid} is closed" in caplog.text) == (way_of_waiting == "pidfd")
    transport.close()  # kills it
    transport.get_extra_info("subprocess").wait()
    for thread in threading.enumerate():
        if thread.name == f"waitpid-{pid}":
            thread.join()
    assert caplog.text.count(f"handles pid {pid} is closed") == 1
