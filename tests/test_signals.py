"""Signal handlers, with real signals; what belongs to a whole process runs in one of its own."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests import loops

OURS_AND_ASYNCIO = pytest.mark.parametrize("name", ["aws_io_async", "asyncio"])


@pytest.fixture(autouse=True)
def dispositions_restored() -> Iterator[None]:
    """Fail the test that leaves a handler or a wakeup fd behind."""
    signals = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(sig) for sig in signals]
    yield
    assert [signal.getsignal(sig) for sig in signals] == before
    fd = signal.set_wakeup_fd(-1)
    assert fd == -1


def send(sig: int) -> None:
    os.kill(os.getpid(), sig)


async def test_handler_runs_on_the_loop_with_its_arguments() -> None:
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def handler(*args: object) -> None:
        arrived.set_result((asyncio.get_running_loop(), args))

    loop.add_signal_handler(signal.SIGUSR1, handler, 1, "two")
    send(signal.SIGUSR1)
    assert await arrived == (loop, (1, "two"))
    assert loop.remove_signal_handler(signal.SIGUSR1)


async def test_each_signal_has_its_own_handler_and_one_can_be_replaced() -> None:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[str] = asyncio.Queue()
    loop.add_signal_handler(signal.SIGUSR1, arrived.put_nowait, "old")
    loop.add_signal_handler(signal.SIGUSR1, arrived.put_nowait, "one")
    loop.add_signal_handler(signal.SIGUSR2, arrived.put_nowait, "two")
    send(signal.SIGUSR1)
    assert await arrived.get() == "one"
    send(signal.SIGUSR2)
    assert await arrived.get() == "two"
    assert loop.remove_signal_handler(signal.SIGUSR1)
    send(signal.SIGUSR2)
    assert await arrived.get() == "two"
    assert loop.remove_signal_handler(signal.SIGUSR2)
    assert arrived.empty()


async def test_signal_wakes_a_loop_that_waits() -> None:
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, arrived.set)
    sender = threading.Thread(target=send, args=(signal.SIGUSR1,))
    loop.call_soon(sender.start)
    await arrived.wait()
    sender.join()
    assert loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's has the loop's context
async def test_handler_runs_in_the_context_of_the_call_that_added_it() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    variable.set("when added")
    loop.add_signal_handler(signal.SIGUSR1, lambda: arrived.set_result(variable.get()))
    variable.set("later")
    send(signal.SIGUSR1)
    assert await arrived == "when added"
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_handler_that_raises_is_reported() -> None:
    loop = asyncio.get_running_loop()
    reported = loop.create_future()
    loop.set_exception_handler(lambda _, context: reported.set_result(context["exception"]))

    def fail() -> None:
        raise ZeroDivisionError

    loop.add_signal_handler(signal.SIGUSR1, fail)
    send(signal.SIGUSR1)
    assert isinstance(await reported, ZeroDivisionError)
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_defaults_are_restored() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert not loop.remove_signal_handler(signal.SIGUSR1)
    interrupt = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, print)
    assert loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, interrupt)


@OURS_AND_ASYNCIO
def test_close_restores_everything(name: str) -> None:
    loop = loops.FACTORIES[name]()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGHUP, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.loops("aws_io_async")  # asyncio runs what was queued before
async def test_removed_handler_does_not_run_even_if_the_signal_has_arrived() -> None:
    loop = asyncio.get_running_loop()
    ran: list[str] = []
    done = asyncio.Event()

    def first() -> None:
        ran.append("first")
        loop.remove_signal_handler(signal.SIGUSR2)
        loop.call_soon(done.set)

    loop.add_signal_handler(signal.SIGUSR1, first)
    loop.add_signal_handler(signal.SIGUSR2, ran.append, "second")
    send(signal.SIGUSR1)
    send(signal.SIGUSR2)
    await done.wait()
    await asyncio.sleep(0)
    assert ran == ["first"]
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_signals_that_others_handle_are_left_to_them() -> None:
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    caught: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, arrived.set)
    old = signal.signal(signal.SIGUSR2, lambda signum, frame: caught.append(signum))
    try:
        send(signal.SIGUSR2)  # its number is written to the loop's wakeup fd, too
        send(signal.SIGUSR1)
        await arrived.wait()
        assert caught == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, old)
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.loops("aws_io_async")  # asyncio's prints warnings, and loses signals
async def test_flood_of_signals_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, arrived.set)
    for _ in range(10_000):  # more than the wakeup pair holds
        signal.raise_signal(signal.SIGUSR1)
    await arrived.wait()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert capfd.readouterr().err == ""


@OURS_AND_ASYNCIO
@pytest.mark.parametrize(
    ("sig", "error", "message"),
    [
        ("SIGUSR1", TypeError, "sig must be an int, not 'SIGUSR1'"),
        (1.0, TypeError, "sig must be an int, not 1.0"),
        (0, ValueError, "invalid signal number 0"),
        (-1, ValueError, "invalid signal number -1"),
        (signal.NSIG + 1, ValueError, "invalid signal number"),
    ],
)
def test_what_is_no_signal(name: str, sig: Any, error: type[Exception], message: str) -> None:
    loop = loops.FACTORIES[name]()
    with pytest.raises(error, match=message):
        loop.add_signal_handler(sig, print)
    with pytest.raises(error, match=message):
        loop.remove_signal_handler(sig)
    loop.close()


@OURS_AND_ASYNCIO
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP])
def test_what_cannot_be_caught(name: str, sig: int) -> None:
    loop = loops.FACTORIES[name]()
    with pytest.raises(RuntimeError, match=f"sig {sig:d} cannot be caught"):
        loop.add_signal_handler(sig, print)
    assert not loop.remove_signal_handler(sig)
    assert signal.set_wakeup_fd(-1) == -1
    loop.close()


@OURS_AND_ASYNCIO
def test_refused_signal_leaves_the_others_alone(name: str) -> None:
    loop = loops.FACTORIES[name]()

    async def main() -> None:
        arrived = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, arrived.set)
        with pytest.raises(RuntimeError):
            loop.add_signal_handler(signal.SIGKILL, print)
        send(signal.SIGUSR1)
        await arrived.wait()

    loop.run_until_complete(main())
    loop.close()


@OURS_AND_ASYNCIO
def test_coroutines_are_refused(name: str) -> None:
    async def handler() -> None: ...

    loop = loops.FACTORIES[name]()
    coroutine = handler()
    with pytest.raises(TypeError, match="coroutines cannot be used with add_signal_handler"):
        loop.add_signal_handler(signal.SIGUSR1, handler)
    with pytest.raises(TypeError, match="coroutines cannot be used with add_signal_handler"):
        loop.add_signal_handler(signal.SIGUSR1, coroutine)  # type: ignore[arg-type]  # on purpose
    coroutine.close()
    loop.close()


@OURS_AND_ASYNCIO
def test_closed_loop_takes_no_handler(name: str) -> None:
    loop = loops.FACTORIES[name]()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.add_signal_handler(signal.SIGUSR1, print)


@OURS_AND_ASYNCIO
def test_only_the_main_thread_can_add_handlers(name: str) -> None:
    loop = loops.FACTORIES[name]()
    raised: list[Exception] = []

    def add() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except Exception as exc:
            raised.append(exc)

    thread = threading.Thread(target=add)
    thread.start()
    thread.join()
    loop.close()
    assert [type(exc) for exc in raised] == [RuntimeError]
    assert "main thread" in str(raised[0])


def test_wakeup_fd_of_another_loop_stays_where_it_is() -> None:
    first, second = loops.FACTORIES["aws_io_async"](), loops.FACTORIES["aws_io_async"]()
    first.add_signal_handler(signal.SIGUSR1, print)

    async def main() -> None:
        arrived = asyncio.Event()
        second.add_signal_handler(signal.SIGUSR2, arrived.set)
        first.remove_signal_handler(signal.SIGUSR1)
        send(signal.SIGUSR2)
        await arrived.wait()

    second.run_until_complete(main())
    second.close()
    first.close()


def test_handler_added_on_the_main_thread_runs_on_the_loops_thread() -> None:
    loop = loops.FACTORIES["aws_io_async"]()
    ran_on: list[threading.Thread] = []

    def handler() -> None:
        ran_on.append(threading.current_thread())
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    send(signal.SIGUSR1)
    thread.join()
    loop.close()
    assert ran_on == [thread]


# Whole processes

INTERRUPTED = """
import asyncio, os, signal, sys
from tests import loops

async def main():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
    finally:
        print("cleaned up", flush=True)

with asyncio.Runner(loop_factory=loops.FACTORIES[sys.argv[1]]) as runner:
    try:
        runner.run(main())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""

INTERRUPTED_IN_CALLBACK = """
import asyncio, os, signal, sys
from tests import loops

def callback():
    os.kill(os.getpid(), signal.SIGINT)

loop = loops.FACTORIES[sys.argv[1]]()
loop.call_soon(callback)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted", loop.is_running(), flush=True)
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
print("closed", flush=True)
"""

FORKED = """
import asyncio, os, signal, sys
from tests import loops

async def main():
    loop = asyncio.get_running_loop()
    arrived = []
    loop.add_signal_handler(signal.SIGUSR1, arrived.append, "parent")
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.raise_signal(signal.SIGUSR1)  # the inherited handler: does nothing
        os.write(writing, b"done")
        os._exit(0)
    os.read(reading, 4)
    os.waitpid(pid, 0)
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR2, done.set)
    os.kill(os.getpid(), signal.SIGUSR2)
    await done.wait()
    print("parent saw", arrived, flush=True)

loop = loops.FACTORIES[sys.argv[1]]()
loop.run_until_complete(main())
loop.close()
"""


def run_program(source: str, name: str) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source, name],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert finished.stderr == ""
    assert finished.returncode == 0
    return finished.stdout.splitlines()


@pytest.mark.parametrize("name", list(loops.FACTORIES))
def test_ctrl_c_cancels_the_main_task_and_becomes_keyboard_interrupt(name: str) -> None:
    assert run_program(INTERRUPTED, name) == ["cancelled", "cleaned up", "interrupted"]


@pytest.mark.parametrize("name", list(loops.FACTORIES))
def test_ctrl_c_in_a_callback_ends_run_forever_and_the_loop_can_go_on(name: str) -> None:
    assert run_program(INTERRUPTED_IN_CALLBACK, name) == ["interrupted False", "closed"]


@OURS_AND_ASYNCIO
def test_signal_to_a_forked_child_is_not_the_parents(name: str) -> None:
    if name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("asyncio's children share the wakeup fd before 3.12")
    assert run_program(FORKED, name) == ["parent saw []"]
