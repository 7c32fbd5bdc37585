"""Event loop groups: their loops and threads, and choosing a loop.

Running code on them is in test_group_code, and how they end in test_group_shutdown.
"""

import asyncio
import contextvars
import gc
import os
import random
import selectors
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aws_io_async import EventLoop, new_event_loop
from aws_io_async.errors import CommonErrorCode, EventLoopShutdownError, UnsupportedError
from aws_io_async.event_loop import _cpu
from aws_io_async.event_loop.group import EventLoopGroup, EventLoopType
from tests import kqueue_emulation, loops

Loop = asyncio.AbstractEventLoop


def new_group(kind: str, count: int = 2) -> EventLoopGroup:
    """A group of our loops, or of those of another factory in `loops.FACTORIES`."""
    if kind == "aws_io_async":
        return EventLoopGroup(count)
    return EventLoopGroup(count, loop_factory=loops.FACTORIES[kind])


def group_threads() -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("aws-io-loop-"))


@pytest.fixture(params=list(loops.FACTORIES))
def group(request: pytest.FixtureRequest) -> Iterator[EventLoopGroup]:
    with new_group(request.param) as group:
        yield group


async def here() -> tuple[Loop, str]:
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), threading.current_thread().name


async def fail() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("on purpose")


async def forever() -> None:
    await asyncio.Event().wait()


# aws-c-io's own cases


def test_event_loop_group_setup_and_shutdown() -> None:
    """aws-c-io makes half as many loops as there are CPUs; we make one for each."""
    group = EventLoopGroup()
    assert group.loop_count == len(group) == _cpu.usable_cpu_count()
    assert group.get_next_loop() in list(group)
    group.shutdown()
    assert group_threads() == []


async def test_event_loop_group_setup_and_shutdown_async() -> None:
    """A task on one of the group's loops shuts the group down; others see it through."""
    group = EventLoopGroup()
    shutdown = asyncio.wrap_future(group.submit(group.aclose()))
    await asyncio.wait([shutdown])
    assert shutdown.cancelled()  # as its loop has ended
    with pytest.raises(EventLoopShutdownError):
        group.get_next_loop()
    await group.aclose()
    assert all(loop.is_closed() for loop in group)
    assert group_threads() == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_numa_aware_event_loop_group_setup_and_shutdown() -> None:
    cores = _cpu.cpus_of_group(0)
    with EventLoopGroup(65535, cpu_group=0) as group:
        assert group.loop_count == len(cores)
        used = [group.submit(affinity(), loop).result() for loop in group]
    assert used == [{core} for core in cores]
    assert os.sched_getaffinity(0) >= set(cores)


async def affinity() -> set[int]:
    return os.sched_getaffinity(0)


# Making one


class TestLoops:
    def test_each_runs_on_a_thread_of_its_own(self, group: EventLoopGroup) -> None:
        assert all(loop.is_running() for loop in group)
        found = [group.submit(here(), loop).result() for loop in group]
        assert found == [(loop, f"aws-io-loop-{n}") for n, loop in enumerate(group)]
        assert group_threads() == ["aws-io-loop-0", "aws-io-loop-1"]

    def test_they_come_from_the_factory(self) -> None:
        for kind, factory in loops.FACTORIES.items():
            with new_group(kind, 1) as group:
                loop = factory()
                loop.close()
                assert type(group.get_loop_at(0)) is type(loop)

    def test_by_index(self, group: EventLoopGroup) -> None:
        assert [group.get_loop_at(0), group.get_loop_at(1)] == list(group)
        assert group.loop_count == len(group) == 2

    @pytest.mark.parametrize("index", [2, -1])
    def test_a_bad_index(self, group: EventLoopGroup, index: int) -> None:
        with pytest.raises(IndexError, match=f"no loop {index}: the loops are 0 to 1"):
            group.get_loop_at(index)

    def test_an_index_that_is_no_number(self, group: EventLoopGroup) -> None:
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            group.get_loop_at("0")  # type: ignore[arg-type]  # on purpose

    def test_they_are_made_on_their_threads_in_an_empty_context(self) -> None:
        variable = contextvars.ContextVar[str]("variable")
        variable.set("the application's")
        made: list[tuple[str, int]] = []

        def factory() -> Loop:
            made.append((threading.current_thread().name, len(contextvars.copy_context())))
            return new_event_loop()

        with EventLoopGroup(2, loop_factory=factory):
            assert made == [("aws-io-loop-0", 0), ("aws-io-loop-1", 0)]

    def test_a_group_can_be_seen_for_what_it_is(self) -> None:
        group = EventLoopGroup(2, EventLoopType.POLL)
        assert repr(group) == "<EventLoopGroup loops=2 type=POLL running>"
        group.shutdown()
        assert repr(group) == "<EventLoopGroup loops=2 type=POLL shut down>"


class TestTypes:
    def test_the_default_is_the_platform_s_best(self) -> None:
        best = EventLoopType.EPOLL if sys.platform == "linux" else EventLoopType.KQUEUE
        assert EventLoopType.PLATFORM_DEFAULT.resolve() is best
        with EventLoopGroup(1) as group:
            assert group.type is best

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors by kind")
    @pytest.mark.parametrize(("type", "pollers"), [("EPOLL", 1), ("POLL", 0)])
    def test_what_the_loops_wait_with(self, type: str, pollers: int) -> None:
        before = epoll_descriptors()
        with EventLoopGroup(1, EventLoopType[type]) as group:
            assert group.type is EventLoopType[type]
            assert epoll_descriptors() - before == pollers
            assert group.submit(here()).result()[0] is group.get_loop_at(0)

    @pytest.mark.filterwarnings("error")
    def test_kqueue(self) -> None:
        with (
            kqueue_emulation.installed(),
            EventLoopGroup(1, EventLoopType.KQUEUE) as group,
        ):
            assert group.type is EventLoopType.KQUEUE
            assert group.submit(here()).result()[0] is group.get_loop_at(0)

    @pytest.mark.parametrize(
        "type",
        [
            *(["KQUEUE"] if not hasattr(selectors, "KqueueSelector") else []),
            *(["EPOLL"] if not hasattr(selectors, "EpollSelector") else []),
            "IOCP",
            "DISPATCH_QUEUE",
        ],
    )
    def test_one_that_the_platform_has_not(self, type: str) -> None:
        with pytest.raises(UnsupportedError, match=f"type {type} here") as caught:
            EventLoopGroup(1, EventLoopType[type])
        assert isinstance(caught.value, NotImplementedError)
        assert caught.value.code is CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED

    def test_a_factory_s_is_not_known(self) -> None:
        with EventLoopGroup(1, loop_factory=new_event_loop) as group:
            assert group.type is EventLoopType.PLATFORM_DEFAULT


def epoll_descriptors() -> int:
    links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
    return sum("eventpoll" in os.readlink(link) for link in links if os.path.islink(link))


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"loop_count": 0}, ValueError, "loop_count must be at least 1, or None .*: 0"),
            ({"loop_count": -1}, ValueError, "loop_count must be at least 1, or None .*: -1"),
            ({"loop_count": "2"}, TypeError, "'str' object cannot be interpreted as an integer"),
            ({"type": "epoll"}, TypeError, "type must be an EventLoopType, not 'epoll'"),
            ({"loop_factory": 1}, TypeError, "loop_factory must be callable, not 1"),
            (
                {"type": EventLoopType.POLL, "loop_factory": new_event_loop},
                ValueError,
                r"either type \(POLL\) or loop_factory",
            ),
            ({"cpu_group": 4000}, (ValueError, UnsupportedError), "CPU"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            EventLoopGroup(**{"loop_count": 1} | arguments)
        assert group_threads() == []

    def test_a_factory_that_raises(self) -> None:
        """The loops that were made before are closed, their threads joined."""
        made: list[Loop] = []

        def factory() -> Loop:
            if len(made) == 2:
                raise ZeroDivisionError("on purpose")
            made.append(new_event_loop())
            return made[-1]

        with pytest.raises(ZeroDivisionError, match="on purpose"):
            EventLoopGroup(3, loop_factory=factory)
        assert [loop.is_closed() for loop in made] == [True, True]
        assert group_threads() == []

    def test_a_factory_that_makes_no_loop(self) -> None:
        with pytest.raises(
            TypeError, match=r"loop_factory returned 'loop', which is no event loop"
        ):
            EventLoopGroup(1, loop_factory=lambda: "loop")  # type: ignore[arg-type,return-value]  # on purpose

    def test_a_factory_that_makes_one_loop_twice(self) -> None:
        loop = new_event_loop()
        with pytest.raises(RuntimeError, match="must make a new loop each time"):
            EventLoopGroup(2, loop_factory=lambda: loop)
        assert loop.is_closed()

    def test_a_factory_that_returns_a_closed_loop(self) -> None:
        loop = new_event_loop()
        loop.close()
        with pytest.raises(RuntimeError, match="must make a new loop each time"):
            EventLoopGroup(1, loop_factory=lambda: loop)


# Choosing a loop


class LoadedLoop(EventLoop):
    """One that says how much there is to do; the work itself would be slow to make."""

    load = 0.0

    @property
    def load_factor(self) -> float:
        return self.load


def loaded_loops(*loads: float) -> Callable[[], Loop]:
    rest = iter(loads)

    def factory() -> Loop:
        loop = LoadedLoop()
        loop.load = next(rest)
        return loop

    return factory


class TestNextLoop:
    def test_of_one(self) -> None:
        with EventLoopGroup(1) as group:
            assert group.get_next_loop() is group.get_loop_at(0)

    def test_all_have_their_turn(self, group: EventLoopGroup) -> None:
        seen: set[Loop] = set()
        while len(seen) < 2:  # or the test times out
            seen.add(group.get_next_loop())
        assert seen == set(group)

    def test_the_better_of_two_random_ones(self) -> None:
        """Shares of 1/9, 3/9 and 5/9: also the busiest gets some, so a stale figure draws no
        crowd. Ten standard deviations lie between these shares and the wrong order."""
        with EventLoopGroup(3, loop_factory=loaded_loops(0.5, 0.9, 0.1)) as group:
            chosen = Counter(group.get_next_loop() for _ in range(2000))
            by_share = [loop for loop, _ in chosen.most_common()]
            assert by_share == [group.get_loop_at(n) for n in (2, 0, 1)]

    def test_the_application_s_random_numbers_are_its_own(self, group: EventLoopGroup) -> None:
        random.seed(1)
        expected = random.random()
        random.seed(1)
        group.get_next_loop()
        assert random.random() == expected


# The running loop as a group


class TestCurrent:
    async def test_it_is_the_running_loop(self) -> None:
        group = EventLoopGroup.current()
        loop = asyncio.get_running_loop()
        assert list(group) == [loop]
        assert group.loop_count == len(group) == 1
        assert group.get_next_loop() is group.get_loop_at(0) is loop
        assert group.type is EventLoopType.PLATFORM_DEFAULT
        assert group_threads() == []

    async def test_it_is_one_object(self) -> None:
        group = EventLoopGroup.current()
        await asyncio.sleep(0)
        assert EventLoopGroup.current() is group

    async def test_shutting_it_down_does_nothing(self) -> None:
        with EventLoopGroup.current() as group:
            pass
        async with EventLoopGroup.current():
            group.shutdown()
        assert group.get_next_loop() is asyncio.get_running_loop()

    async def test_code_on_it(self) -> None:
        loop, _ = await EventLoopGroup.current().run(here())
        assert loop is asyncio.get_running_loop()
        future = EventLoopGroup.current().submit(here())
        assert await asyncio.wrap_future(future) == (loop, threading.current_thread().name)

    async def test_on_a_loop_of_a_group_it_is_that_loop_alone(self, group: EventLoopGroup) -> None:
        async def current() -> list[Loop]:
            return list(EventLoopGroup.current())

        loop = group.get_loop_at(1)
        assert await group.run(current(), loop) == [loop]

    def test_without_a_loop(self) -> None:
        with pytest.raises(RuntimeError, match=r"no running event loop: this needs one of asyncio"):
            EventLoopGroup.current()

    @pytest.mark.parametrize("kind", list(loops.FACTORIES))
    def test_it_keeps_no_loop_alive(self, kind: str) -> None:
        async def keep() -> "weakref.ref[Loop]":
            EventLoopGroup.current().get_next_loop()
            return weakref.ref(asyncio.get_running_loop())

        with asyncio.Runner(loop_factory=loops.FACTORIES[kind]) as runner:
            loop = runner.run(keep())
        del runner
        gc.collect()
        assert loop() is None
