"""Subscriptions to descriptors: each event is told once, and none after the end."""

import contextvars
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from aws_io_async import EventLoop
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.event_loop.io_handle import IoEvents, IoHandle
from aws_io_async.event_loop.tasks import Task
from tests.crt_loops import (
    KINDS,
    PATIENCE,
    collect_errors,
    open_ours,
    open_running,
    run_on,
    run_until_idle,
)
from tests.io_ends import Ends, nonblocking_pair

READABLE, WRITABLE = IoEvents.READABLE, IoEvents.WRITABLE


@pytest.fixture(params=KINDS)
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_ours(request.param) as loop:
        yield loop


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_running(request.param) as loop:
        yield loop


@pytest.fixture
def fds() -> Iterator[tuple[int, int]]:
    """A non-blocking pipe."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def pipe(loop: EventLoop, fds: tuple[int, int]) -> Ends:
    return Ends(loop, *fds)


class TestEdges:
    def test_event_loop_subscribe_unsubscribe(self, pipe: Ends) -> None:
        pipe.subscribe()
        pipe.unsubscribe()
        assert pipe.times_readable() == pipe.times_writable() == 0

    def test_event_loop_writable_event_on_subscribe(self, pipe: Ends) -> None:
        pipe.subscribe()
        assert pipe.times_writable() == 1
        assert pipe.times_writable() == 0
        pipe.unsubscribe()

    def test_event_loop_no_readable_event_before_write(self, pipe: Ends) -> None:
        pipe.subscribe()
        assert pipe.times_readable() == 0
        pipe.unsubscribe()

    def test_event_loop_readable_event_on_subscribe_if_data_present(self, pipe: Ends) -> None:
        pipe.write()
        pipe.subscribe()
        assert pipe.times_readable() == 1
        assert pipe.times_readable() == 0
        pipe.unsubscribe()

    def test_event_loop_readable_event_after_write(self, pipe: Ends) -> None:
        pipe.subscribe()
        assert pipe.times_writable() == 1
        pipe.write()
        assert pipe.times_readable() == 1
        assert pipe.times_readable() == 0
        pipe.unsubscribe()

    def test_event_loop_readable_event_on_2nd_time_readable(self, pipe: Ends) -> None:
        pipe.subscribe()
        assert pipe.times_writable() == 1
        pipe.write()
        assert pipe.times_readable() == 1
        pipe.read()
        pipe.write()
        assert pipe.times_readable() == 1
        pipe.unsubscribe()

    def test_new_data_are_new_although_the_old_were_not_read(self, pipe: Ends) -> None:
        pipe.subscribe()
        for _ in range(3):
            pipe.write()
            assert pipe.times_readable() == 1
        pipe.unsubscribe()

    def test_writable_again_once_there_is_room_again(self, pipe: Ends) -> None:
        pipe.subscribe()
        assert pipe.times_writable() == 1
        with pytest.raises(BlockingIOError):
            while True:
                os.write(pipe.writer.fd, bytes(65536))
        pipe.times_writable()
        assert pipe.times_writable() == 0
        pipe.read()
        assert pipe.times_writable() == 1
        pipe.unsubscribe()

    def test_a_loop_that_waits_is_woken(self, loop: EventLoop, pipe: Ends) -> None:
        loop.subscribe_to_io_events(pipe.reader, READABLE, lambda *_: loop.stop())
        thread = threading.Timer(0.01, pipe.write)
        thread.start()
        loop.run_forever()
        thread.join()
        loop.unsubscribe_from_io_events(pipe.reader)

    def test_both_directions_of_one_descriptor(self, loop: EventLoop) -> None:
        a, b = nonblocking_pair()
        with a, b:
            told: list[IoEvents] = []
            handle = IoHandle(a)
            b.send(b"x")
            loop.subscribe_to_io_events(
                handle, READABLE | WRITABLE, lambda loop, handle, events: told.append(events)
            )
            run_until_idle(loop)
            assert told == [READABLE | WRITABLE]
            loop.unsubscribe_from_io_events(handle)

    def test_many_descriptors(self, loop: EventLoop) -> None:
        pairs = [nonblocking_pair() for _ in range(100)]
        told: list[int] = []
        for a, b in pairs:
            b.send(b"x")
            loop.subscribe_to_io_events(
                IoHandle(a), READABLE, lambda loop, handle, events: told.append(handle.fd)
            )
        run_until_idle(loop)
        assert sorted(told) == sorted(a.fileno() for a, _ in pairs)
        loop.close()
        for a, b in pairs:
            a.close()
            b.close()

    def test_in_the_context_of_the_subscriber(self, loop: EventLoop, pipe: Ends) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
        found: list[str] = []
        context = contextvars.copy_context()
        context.run(variable.set, "subscriber's")
        context.run(
            loop.subscribe_to_io_events,
            pipe.writer,
            WRITABLE,
            lambda *_: found.append(variable.get()),
        )
        run_until_idle(loop)
        assert found == ["subscriber's"]


class TestEnd:
    @pytest.mark.parametrize("first", [0, 1])
    def test_event_loop_no_events_after_unsubscribe(self, loop: EventLoop, first: int) -> None:
        """Two are readable in the same turn; who is told first ends both, and closes them."""
        pairs = [nonblocking_pair() for _ in range(2)]
        handles = [IoHandle(a) for a, _ in pairs]
        told: list[IoHandle] = []

        def on_event(loop: EventLoop, handle: IoHandle, events: IoEvents) -> None:
            told.append(handle)
            for other in handles:
                loop.unsubscribe_from_io_events(other)
            for a, b in pairs:
                a.close()
                b.close()

        for handle in handles[first:] + handles[:first]:
            loop.subscribe_to_io_events(handle, READABLE, on_event)
        for _, b in pairs:
            b.send(b"abc")
        run_until_idle(loop)
        assert len(told) == 1

    def test_a_number_used_anew_gets_no_event_of_the_old_descriptor(self, loop: EventLoop) -> None:
        """As above, and the other's number goes to a new descriptor, subscribed at once."""
        pairs = [nonblocking_pair() for _ in range(2)]
        handles = [IoHandle(a) for a, _ in pairs]
        fresh, peer = nonblocking_pair()
        told: list[tuple[int, IoEvents]] = []

        def on_event(loop: EventLoop, handle: IoHandle, events: IoEvents) -> None:
            for each in handles:
                loop.unsubscribe_from_io_events(each)
            number = handles[1 - handles.index(handle)].fd
            os.dup2(fresh.fileno(), number, inheritable=False)
            loop.subscribe_to_io_events(
                IoHandle(number), READABLE, lambda loop, new, events: told.append((new.fd, events))
            )

        for handle in handles:
            loop.subscribe_to_io_events(handle, READABLE, on_event)
        for _, b in pairs:
            b.send(b"abc")
        run_until_idle(loop)
        assert told == []
        peer.send(b"x")
        run_until_idle(loop)
        ((number, events),) = told
        assert number in [handle.fd for handle in handles]
        assert events == READABLE
        loop.close()
        for end in (fresh, peer, *pairs[0], *pairs[1]):
            end.close()

    def test_subscribed_anew_it_is_told_of_what_is_there(self, pipe: Ends) -> None:
        pipe.write()
        for _ in range(3):
            pipe.subscribe()
            assert pipe.times_readable() == 1
            pipe.unsubscribe()

    def test_of_a_descriptor_that_was_closed_before(self, loop: EventLoop) -> None:
        a, b = nonblocking_pair()
        handle = IoHandle(a)
        loop.subscribe_to_io_events(handle, READABLE, lambda *_: None)
        a.close()
        b.close()
        loop.unsubscribe_from_io_events(handle)

    def test_closing_the_loop_ends_all(self, loop: EventLoop, pipe: Ends) -> None:
        pipe.subscribe()
        pipe.write()
        loop.close()
        assert pipe.told == {pipe.reader: [], pipe.writer: []}
        with pytest.raises(AwsIoError):
            loop.unsubscribe_from_io_events(pipe.reader)


class TestFailingSubscribers:
    def test_one_that_raises_is_reported_and_stops_no_other(self, loop: EventLoop) -> None:
        errors, told = collect_errors(loop), list[IoHandle]()
        pairs = [nonblocking_pair() for _ in range(3)]

        def on_event(loop: EventLoop, handle: IoHandle, events: IoEvents) -> None:
            told.append(handle)
            raise LookupError("on purpose")

        handles = [IoHandle(a) for a, _ in pairs]
        for handle, (_, b) in zip(handles, pairs, strict=True):
            b.send(b"x")
            loop.subscribe_to_io_events(handle, READABLE, on_event)
        run_until_idle(loop)
        assert set(told) == set(handles)
        assert [type(context["exception"]) for context in errors] == [LookupError] * 3
        for handle, (a, b) in zip(handles, pairs, strict=True):
            loop.unsubscribe_from_io_events(handle)
            a.close()
            b.close()

    def test_after_system_exit_the_others_are_told_in_the_next_run(self, loop: EventLoop) -> None:
        told: list[IoHandle] = []
        pairs = [nonblocking_pair() for _ in range(3)]

        def on_event(loop: EventLoop, handle: IoHandle, events: IoEvents) -> None:
            told.append(handle)
            if len(told) == 1:
                sys.exit(3)

        for a, b in pairs:
            b.send(b"x")
            loop.subscribe_to_io_events(IoHandle(a), READABLE, on_event)
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert len(told) == 1
        run_until_idle(loop)
        assert len(told) == 3
        loop.close()
        for a, b in pairs:
            a.close()
            b.close()


class TestThreads:
    def test_subscribing_from_another_thread(
        self, running: EventLoop, fds: tuple[int, int]
    ) -> None:
        told = threading.Event()
        threads: list[bool] = []

        def on_event(loop: EventLoop, handle: IoHandle, events: IoEvents) -> None:
            threads.append(loop.thread_is_callers_thread())
            told.set()

        handle = IoHandle(fds[0])
        running.subscribe_to_io_events(handle, READABLE, on_event)
        os.write(fds[1], b"x")
        assert told.wait(PATIENCE)
        assert threads == [True]
        run_on(running, running.unsubscribe_from_io_events, handle)

    def test_the_first_subscribers_from_several_threads_at_once(self, running: EventLoop) -> None:
        pairs = [nonblocking_pair() for _ in range(8)]
        told = [threading.Event() for _ in pairs]

        def subscribe(n: int) -> None:
            running.subscribe_to_io_events(
                IoHandle(pairs[n][0]), READABLE, lambda *_: told[n].set()
            )

        threads = [threading.Thread(target=subscribe, args=(n,)) for n in range(len(pairs))]
        for thread in threads:
            thread.start()
        for _, b in pairs:
            b.send(b"x")
        assert all(event.wait(PATIENCE) for event in told)
        for thread in threads:
            thread.join()
        running.stop()
        running.wait_for_stop_completion()
        running.close()
        for a, b in pairs:
            a.close()
            b.close()

    def test_unsubscribing_from_another_thread_is_refused(
        self, running: EventLoop, fds: tuple[int, int]
    ) -> None:
        handle = IoHandle(fds[0])
        running.subscribe_to_io_events(handle, READABLE, lambda *_: None)
        with pytest.raises(AwsIoError) as caught:
            running.unsubscribe_from_io_events(handle)
        assert caught.value.code is ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY
        run_on(running, running.unsubscribe_from_io_events, handle)


def test_loops_without_subscribers_have_no_descriptor_more(loop: EventLoop) -> None:
    before = loop.statistics().watched
    loop.schedule_task_now(Task(lambda *_: None))
    run_until_idle(loop)
    assert loop.statistics().watched == before
