"""What every test of the suite gets: event loops to run on, and a check that nothing leaks.

An `async def test_*` runs once on each loop of `loops.FACTORIES`, ours, asyncio's and uvloop's:
a test that passes on all three asserts what users of asyncio expect, not what we happen to do.
`@pytest.mark.loops("aws_io_async")` narrows that for what only our loop has.
"""

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
import trustme

from aws_io_async import EventLoop
from tests import loops, pollers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loops",
        default=",".join(loops.FACTORIES),
        metavar="NAME,...",
        help="run asynchronous tests on these event loops only (default: %(default)s)",
    )


def pytest_configure() -> None:
    """A shell has background jobs ignore SIGINT, which children inherit: undo that for them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, loops.Factory]:
    marker = item.get_closest_marker("loops")
    names = marker.args if marker else tuple(loops.FACTORIES)
    wanted = config.getoption("loops").split(",")
    return {name: loops.FACTORIES[name] for name in names if name in wanted} or {
        name: loops.FACTORIES[name] for name in names if name in loops.FACTORIES
    }


TESTS_BETWEEN_FREEZES = 20

_tests_run = itertools.count(1)


def pytest_collection_finish() -> None:
    """Have the collections after each test look at what tests make, not at all that is imported."""
    gc.collect()
    gc.freeze()


def _open_fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/dev/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of the listing itself, or no /proc
            continue
    return found


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail the test that leaves a file descriptor or a thread behind."""
    fds, threads = _open_fds(), set(threading.enumerate())
    yield
    gc.collect()
    if next(_tests_run) % TESTS_BETWEEN_FREEZES == 0:
        gc.freeze()  # nor at what pytest keeps of them: after 5,000 tests that takes 100 ms
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    left = [t for t in set(threading.enumerate()) - threads if t.is_alive()]
    assert not left, f"threads left running: {left}"
    opened = {fd: what for fd, what in _open_fds().items() if fd not in fds}
    assert not opened, f"file descriptors left open: {opened}"


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads are switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(params=pollers.EVERY_LOOP)
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that does not run yet: one of ours on each poller, then those of others."""
    with pollers.open_loop(request.param) as loop:
        yield loop


@pytest.fixture(params=pollers.OURS)
def ours(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    """One of ours that does not run yet, on each poller."""
    with pollers.open_loop(request.param) as loop:
        assert isinstance(loop, EventLoop)
        yield loop


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority for the tests' TLS servers."""
    return trustme.CA()
