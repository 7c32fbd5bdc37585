"""Tasks of a channel, the objects of its loop, and reports of statistics."""

import asyncio
import gc
import threading
from collections.abc import Sequence
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.channel import Channel, ChannelSlot, ChannelTask
from aws_io_async.event_loop.tasks import TaskStatus
from aws_io_async.statistics import SampleInterval, SocketStatistics, StatisticsHandler
from tests import channels
from tests.channels import (
    App,
    Stage,
    Wire,
    channel_of_a_closed_loop,
    collected_errors,
    ended,
    pipeline,
)
from tests.socket_tools import another_loop, on, turns

no_tasks_left = channels.no_tasks_left

RUN_READY, CANCELED = TaskStatus.RUN_READY, TaskStatus.CANCELED


class Notes:
    """Makes tasks that note how they were called, and where."""

    def __init__(self) -> None:
        self.notes: SimpleQueue[tuple[str, TaskStatus, int]] = SimpleQueue()

    def task(self, name: str = "task") -> ChannelTask:
        return ChannelTask(
            lambda task, status: self.notes.put((task.name, status, threading.get_ident())), name
        )

    def take(self) -> list[tuple[str, TaskStatus]]:
        return [note[:2] for note in self.take_with_threads()]

    def take_with_threads(self) -> list[tuple[str, TaskStatus, int]]:
        taken = []
        while not self.notes.empty():
            taken.append(self.notes.get())
        return taken


# Tasks


async def run_tasks_from_both_sides(serialized: bool) -> None:
    async with pipeline() as channel:
        notes = Notes()
        now = channel.schedule_task_now_serialized if serialized else channel.schedule_task_now

        def schedule(where: str) -> None:
            now(notes.task(f"now {where}"))
            channel.schedule_task_future(notes.task(f"future {where}"), 1)

        await asyncio.to_thread(schedule, "off thread")
        schedule("on thread")
        await turns(20)
        assert sorted(notes.take_with_threads()) == [
            (f"{when} {where} thread", RUN_READY, threading.get_ident())
            for when in ("future", "now")
            for where in ("off", "on")
        ]


async def test_channel_tasks_run() -> None:
    await run_tasks_from_both_sides(serialized=False)


async def test_channel_tasks_serialized_run() -> None:
    await run_tasks_from_both_sides(serialized=True)


async def test_serialized_tasks_run_in_the_order_of_the_calls() -> None:
    async with pipeline() as channel:
        notes = Notes()
        for number in range(3):
            task = notes.task(f"{number} off")
            await asyncio.to_thread(channel.schedule_task_now_serialized, task)
            channel.schedule_task_now_serialized(notes.task(f"{number} on"))
        await turns(5)
        ran = [name for name, _ in notes.take()]
        assert ran == ["0 off", "0 on", "1 off", "1 on", "2 off", "2 on"]


async def test_tasks_of_another_thread_keep_their_order() -> None:
    async with pipeline() as channel:
        notes = Notes()

        def schedule() -> None:
            for number in range(100):
                channel.schedule_task_now(notes.task(str(number)))

        await asyncio.to_thread(schedule)
        await turns(5)
        assert [name for name, _ in notes.take()] == [str(number) for number in range(100)]


async def test_a_task_runs_at_its_time() -> None:
    async with pipeline() as channel:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[float] = loop.create_future()
        start = loop.time()
        task = ChannelTask(lambda *_: done.set_result(loop.time()))
        channel.schedule_task_future(task, channel.current_clock_time() + 20_000_000)
        assert await done - start >= 0.018  # uvloop's clock counts milliseconds


async def test_channel_rejects_post_shutdown_tasks() -> None:
    notes = Notes()
    channel = await Channel.open()
    await channel.aclose()
    channel.schedule_task_now(notes.task())
    channel.schedule_task_now_serialized(notes.task())
    channel.schedule_task_future(notes.task(), 1)
    assert notes.take() == [("task", CANCELED)] * 3
    await asyncio.to_thread(channel.schedule_task_now, notes.task())
    assert notes.take() == [("task", CANCELED)]


async def test_channel_cancels_pending_tasks() -> None:
    notes = Notes()
    channel = await Channel.open(
        on_shutdown=lambda channel, _: channel.schedule_task_now(notes.task("late"))
    )
    channel.schedule_task_future(notes.task("far"), (1 << 64) - 2)
    await asyncio.to_thread(channel.schedule_task_future, notes.task("further"), (1 << 64) - 2)
    await turns(3)
    assert notes.take() == []
    await channel.aclose()
    assert notes.take() == [("far", CANCELED), ("further", CANCELED), ("late", CANCELED)]


async def test_a_task_may_schedule_itself_again() -> None:
    async with pipeline() as channel:
        statuses: list[TaskStatus] = []

        def run(task: ChannelTask, status: TaskStatus) -> None:
            statuses.append(status)
            if len(statuses) < 3:
                channel.schedule_task_now(task)

        channel.schedule_task_now(ChannelTask(run))
        await turns(5)
        assert statuses == [RUN_READY] * 3


async def test_what_a_task_raises_goes_to_the_loop() -> None:
    def fail(*_: Any) -> None:
        raise ValueError("in a task")

    async with pipeline() as channel:
        notes = Notes()
        with collected_errors() as errors:
            channel.schedule_task_now_serialized(ChannelTask(fail, "bad"))
            channel.schedule_task_now_serialized(notes.task())
            await turns(3)
            assert [context["message"] for context in errors] == [
                "Exception in <ChannelTask bad> with status RUN_READY"
            ]
            errors.clear()
        assert notes.take() == [("task", RUN_READY)]
        assert channel.error is None


async def test_misuse_of_tasks_is_told_at_once() -> None:
    async def coroutine(*_: Any) -> None:
        pass

    async with pipeline() as channel:
        task = ChannelTask(lambda *_: None, "twice")
        channel.schedule_task_now(task)
        for schedule in (channel.schedule_task_now, channel.schedule_task_now_serialized):
            with pytest.raises(RuntimeError, match="<ChannelTask twice pending> is scheduled"):
                schedule(task)
        with pytest.raises(TypeError, match="a channel runs ChannelTasks"):
            channel.schedule_task_now(print)  # type: ignore[arg-type]  # the point
        with pytest.raises(TypeError, match="needs a plain function"):
            ChannelTask(coroutine)


async def test_tasks_for_a_loop_that_is_closed() -> None:
    channel = await asyncio.to_thread(channel_of_a_closed_loop, type(asyncio.get_running_loop()))
    task = ChannelTask(lambda *_: None)
    for schedule in (channel.schedule_task_now, channel.schedule_task_now_serialized):
        with pytest.raises(RuntimeError, match="closed"):
            schedule(task)
        assert not task.pending


@pytest.mark.loops("aws_io_async")
async def test_a_task_that_ends_the_program_leaves_the_others_to_the_next_turn() -> None:
    loop = EventLoop()
    notes = Notes()

    def leave(*_: Any) -> None:
        raise SystemExit

    def main() -> None:
        channel = Channel(loop)
        channel.schedule_task_now(ChannelTask(leave))
        channel.schedule_task_now(notes.task())
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert notes.take() == []
        loop.run_until_complete(asyncio.sleep(0))
        assert notes.take() == [("task", RUN_READY)]
        loop.run_until_complete(channel.aclose())
        loop.close()

    await asyncio.to_thread(main)


# Objects of the loop


async def test_objects_are_the_loops_and_shared_by_its_channels() -> None:
    async with pipeline() as one, pipeline() as other, another_loop() as loop:
        key, value = object(), object()
        one.put_local_object(key, value)
        assert other.fetch_local_object(key) is value
        stranger = await Channel.open(loop)

        async def fetch() -> None:
            with pytest.raises(KeyError):
                stranger.fetch_local_object(key)

        await on(loop, fetch())
        await stranger.aclose()
        assert other.remove_local_object(key) is True
        assert one.remove_local_object(key) is False
        with pytest.raises(KeyError):
            one.fetch_local_object(key)


async def test_who_put_an_object_is_told_when_it_leaves() -> None:
    removed: list[object] = []
    async with pipeline() as channel:
        channel.put_local_object("key", 1, removed.append)
        channel.put_local_object("key", 2, removed.append)
        assert removed == [1]
        assert channel.fetch_local_object("key") == 2
        channel.remove_local_object("key")
        assert removed == [1, 2]
        channel.put_local_object("key", 3, removed.append)
    assert removed == [1, 2]  # the loop lives on, and so does its object


@pytest.mark.loops("aws_io_async")
async def test_our_loops_keep_their_objects_themselves() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, EventLoop)
    async with pipeline() as channel:
        channel.put_local_object("key", 1)
        assert loop.fetch_local_object("key") == 1
        loop.put_local_object("key", 2)
        assert channel.fetch_local_object("key") == 2
        assert channel.remove_local_object("key")
        with pytest.raises(KeyError):
            loop.fetch_local_object("key")


async def test_objects_leave_with_their_loop() -> None:
    removed: list[object] = []

    def main(factory: Any) -> None:
        async def put() -> None:
            async with pipeline() as channel:
                channel.put_local_object("one", 1, removed.append)
                channel.put_local_object("two", 2, removed.append)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(put())
            assert removed == []

    await asyncio.to_thread(main, type(asyncio.get_running_loop()))
    gc.collect()
    assert removed == [2, 1]


# Statistics


class Counting(Stage):
    """A handler that counts bytes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.statistics = SocketStatistics()

    def process_read_message(self, slot: ChannelSlot, message: Any) -> None:
        self.statistics.bytes_read += len(message.data)
        super().process_read_message(slot, message)

    def gather_statistics(self) -> SocketStatistics:
        return self.statistics

    def reset_statistics(self) -> None:
        self.note("reset")
        self.statistics.reset()


class Reader(StatisticsHandler):
    """Writes down what is reported."""

    report_interval_ms = 1

    def __init__(self) -> None:
        self.reports: list[tuple[SampleInterval, list[int]]] = []
        self.closed = False
        self.reported = asyncio.Event()

    def process_statistics(
        self, interval: SampleInterval, statistics: Sequence[object], channel: Channel
    ) -> None:
        counts = [item.bytes_read for item in statistics if isinstance(item, SocketStatistics)]
        assert len(counts) == len(statistics)
        self.reports.append((interval, counts))
        self.reported.set()

    def close(self) -> None:
        self.closed = True

    async def next(self) -> list[int]:
        self.reported.clear()
        await self.reported.wait()
        return self.reports[-1][1]


async def test_statistics_are_reported_left_to_right_at_an_interval() -> None:
    reader = Reader()
    async with pipeline(wire := Wire(), Counting("a"), Counting("b"), App()) as channel:
        wire.send(b"before")
        assert channel.statistics() == [SocketStatistics(6), SocketStatistics(6)]
        channel.set_statistics_handler(reader)
        assert channel.statistics() == [SocketStatistics(), SocketStatistics()]
        wire.send(b"abc")
        assert await reader.next() == [3, 3]
        assert await reader.next() == [0, 0]
        wire.send(b"de")
        assert await reader.next() == [2, 2]
        intervals = [interval for interval, _ in reader.reports]
        assert all(one.end_ms == two.begin_ms for one, two in pairwise(intervals))
        assert all(interval.begin_ms < interval.end_ms for interval in intervals)
        assert not reader.closed
    assert reader.closed


async def test_what_cannot_be_reported_to_is_refused_and_changes_nothing() -> None:
    one, restless = Reader(), Reader()
    restless.report_interval_ms = 0
    async with pipeline(Counting("a")) as channel:
        channel.set_statistics_handler(one)
        with pytest.raises(TypeError, match="a channel reports to a StatisticsHandler"):
            channel.set_statistics_handler(print)  # type: ignore[arg-type]  # the point
        with pytest.raises(ValueError, match=r"report_interval_ms of .* must be positive"):
            channel.set_statistics_handler(restless)
        await one.next()
        assert not one.closed


async def test_another_handler_takes_over() -> None:
    one, two = Reader(), Reader()
    async with pipeline(Counting("a")) as channel:
        channel.set_statistics_handler(one)
        await one.next()
        channel.set_statistics_handler(two)
        assert (one.closed, two.closed) == (True, False)
        await two.next()
        count = len(one.reports)
        channel.set_statistics_handler(None)
        assert two.closed
        assert len(one.reports) == count


async def test_a_reader_may_put_another_in_its_place_or_end_the_channel() -> None:
    class Once(Reader):
        def process_statistics(self, *args: Any) -> None:
            super().process_statistics(*args)
            args[2].set_statistics_handler(last)

    class Last(Reader):
        def process_statistics(self, *args: Any) -> None:
            super().process_statistics(*args)
            args[2].shutdown(OSError("unhealthy"))

    once, last = Once(), Last()
    async with pipeline(Counting("a")) as channel:
        channel.set_statistics_handler(once)
        error = await ended(channel)
        assert isinstance(error, OSError)
        assert (len(once.reports), len(last.reports)) == (1, 1)
        assert once.closed
        assert last.closed


async def test_nothing_is_reported_while_the_channel_shuts_down() -> None:
    class Slow(Counting):
        async def shutdown(self, *_: Any) -> None:
            await go_on.wait()

    go_on, reader = asyncio.Event(), Reader()
    async with pipeline(slow := Slow("a")) as channel:
        channel.set_statistics_handler(reader)
        slow.events.clear()
        channel.shutdown()
        await asyncio.sleep(0.01)
        assert reader.reports == []
        assert slow.events == []
        assert not reader.closed
        go_on.set()
        await ended(channel)
        assert reader.closed


async def test_a_reader_that_fails_is_asked_again() -> None:
    class Failing(Reader):
        def process_statistics(self, *args: Any) -> None:
            super().process_statistics(*args)
            raise ValueError("cannot judge")

    reader = Failing()
    async with pipeline(Counting("a")) as channel:
        with collected_errors() as errors:
            channel.set_statistics_handler(reader)
            await reader.next()
            await reader.next()
            channel.set_statistics_handler(None)
            assert {str(context["exception"]) for context in errors} == {"cannot judge"}
            errors.clear()
        assert channel.error is None
