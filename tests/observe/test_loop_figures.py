"""What a loop says about itself to another thread, and which loops there are."""

import asyncio
import gc
import os
import socket
import threading
import time
import weakref

import pytest

from aws_io_async import EventLoop, observe
from tests.crt_loops import KINDS, PATIENCE, open_ours, open_running, run_on


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_sleeps_is_idle_up_to_now(kind: str) -> None:
    with open_running(kind) as loop:
        run_on(loop, int)
        until = time.monotonic() + PATIENCE
        while not loop.statistics().waiting and time.monotonic() < until:
            pass
        before = loop.statistics()
        threading.Event().wait(0.05)
        after = loop.statistics()
        assert after.polls == before.polls  # it has slept all the while
        assert after.idle_seconds - before.idle_seconds >= 0.04
        assert after.busy_seconds == pytest.approx(before.busy_seconds)
        assert after.waiting


def test_one_that_works_does_not_wait() -> None:
    with open_ours("aws_io_async") as loop:
        seen = []
        loop.call_soon(lambda: seen.append(loop.statistics().waiting))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen == [False]
        assert not loop.statistics().waiting


def test_events_a_poll() -> None:
    with open_ours("aws_io_async") as loop:
        assert loop.statistics().events_per_poll == 0.0
        pairs = [socket.socketpair() for _ in range(3)]
        for ours, theirs in pairs:
            loop.add_reader(ours, ours.recv, 1)
            theirs.send(b"x")
        loop.stop()
        loop.run_forever()
        for ours, theirs in pairs:
            loop.remove_reader(ours)
            ours.close()
            theirs.close()
        assert loop.statistics().events_per_poll == 3.0


def test_the_loops_of_the_process() -> None:
    before = observe.event_loops()
    with open_ours("aws_io_async") as one, open_running("aws_io_async") as other:
        loops = observe.event_loops()
        assert len(loops) == len(before) + 2
        assert {one, other} < {*loops, None}
        names = [observe.describe_loop(loop)["name"] for loop in loops]
        numbers = [int(name.removeprefix("loop-")) for name in names]
        assert numbers == sorted({*numbers})
        assert [observe.describe_loop(loop)["name"] for loop in observe.event_loops()] == names
    assert observe.event_loops() == before


def test_a_loop_that_is_forgotten_is_not_kept() -> None:
    loop = EventLoop()
    observe.describe_loop(loop)
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_loops_may_be_listed_while_others_come_and_go() -> None:
    ended = threading.Event()

    def make() -> None:
        while not ended.is_set():
            EventLoop().close()

    maker = threading.Thread(target=make)
    maker.start()
    for _ in range(300):
        observe.event_loops()
    ended.set()
    maker.join()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_does_not_count_its_parents_loops() -> None:
    with open_ours("aws_io_async"):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(writer, f"{len(observe.event_loops())}".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reader, 10) == b"0"
        os.close(reader)
        os.close(writer)


@pytest.mark.loops("aws_io_async")
async def test_a_description() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, EventLoop)
    before = observe.describe_loop(loop)
    assert (before["state"], before["thread"], before["connections"]) == ("busy", "MainThread", 0)
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1")
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        peer = await accepted.get()
        assert observe.describe_loop(loop)["connections"] == 2
        writer.close()
        assert observe.describe_loop(loop)["connections"] == 1
        peer.close()
        await asyncio.gather(writer.wait_closed(), peer.wait_closed())
    described = observe.describe_loop(loop)
    assert described["connections"] == 0
    assert described["turns"] > before["turns"]
    assert 0 <= described["load_factor"] <= 1
    assert described["busy_seconds"] > 0


def test_a_description_of_one_that_is_idle_or_stopped() -> None:
    with open_running("aws_io_async") as loop:
        run_on(loop, int)
        until = time.monotonic() + PATIENCE
        while (described := observe.describe_loop(loop))["state"] != "waiting":
            assert time.monotonic() < until
        assert described["thread"] == "aws-io-loop"
        loop.stop()
        loop.wait_for_stop_completion()
        described = observe.describe_loop(loop)
        assert (described["state"], described["thread"]) == ("stopped", None)
