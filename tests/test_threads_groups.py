"""Groups while threads are switched all the time: order, and shutdown amid everything."""

import asyncio
import threading
from concurrent.futures import CancelledError, Future

import anyio
import pytest

from aws_io_async import ChannelStream, EventLoopGroup, connect, serve
from aws_io_async.errors import EventLoopShutdownError
from tests import loops
from tests.faults._report import Fault, few
from tests.test_group import forever, new_group
from tests.test_threads_runs import at_once

SHUT_DOWN = Fault(
    "Threads and forks",
    "a group is shut down by threads while others submit to it, threads switched all the time",
    "each coroutine has ended, or was refused; no thread is left",
)

every_kind = pytest.mark.parametrize("kind", loops.FACTORIES)


pytestmark = pytest.mark.usefixtures("restless")


@every_kind
def test_each_thread_s_coroutines_begin_in_its_order(kind: str) -> None:
    """On each loop: what one thread submits there begins in the order in which it did."""
    count = few(150)
    with new_group(kind) as group:
        begun: list[list[tuple[int, int]]] = [[] for _ in group]

        async def note(loop: int, thread: int, number: int) -> None:
            begun[loop].append((thread, number))
            await asyncio.sleep(0)

        def submit(thread: int) -> list[Future[None]]:
            futures = []
            for number in range(count):
                for at, loop in enumerate(group):
                    futures.append(group.submit(note(at, thread, number), loop))
            return futures

        for futures in at_once(3, submit):
            for future in futures:
                future.result()
    for notes in begun:
        for thread in range(3):
            assert [number for who, number in notes if who == thread] == [*range(count)]


class Work:
    """What two threads submit to a group, one to each of its two loops, until it is shut down."""

    def __init__(self, group: EventLoopGroup) -> None:
        self.group = group
        self._loops = [*group]
        self.begun, self.ended = [0, 0], [0, 0]  # by loop
        self._under_way = threading.Event()

    async def _do(self, at: int) -> int:
        self.begun[at] += 1
        try:
            await asyncio.sleep(3600 if self.begun[at] % 3 else 0)
        finally:
            self.ended[at] += 1
        return at

    def submit(self, at: int) -> list[Future[int]]:
        futures: list[Future[int]] = []
        while True:
            try:
                futures.append(self.group.submit(self._do(at), self._loops[at]))
            except EventLoopShutdownError:
                return futures
            if len(futures) == 20:
                self._under_way.set()

    def shut_down(self, thread: int) -> list[Future[int]]:
        self._under_way.wait()
        if thread % 2:
            self.group.shutdown()
        else:
            asyncio.run(self.group.aclose())
        return []


@every_kind
def test_shutdown_by_several_while_others_submit(kind: str) -> None:
    for _ in range(few(3)):
        work = Work(new_group(kind))
        functions = [work.submit, work.submit, *[work.shut_down] * 3]
        submitted = at_once(5, lambda n, functions=functions: functions[n](n))  # type: ignore[misc] # a default
        for at, futures in enumerate(submitted):
            for future in futures:
                try:
                    assert future.result(30) == at
                    SHUT_DOWN.seen("ended")
                except CancelledError:
                    SHUT_DOWN.seen("cancelled")
        assert work.begun == work.ended
        assert "shut down" in repr(work.group)
        SHUT_DOWN.seen("refused", 2)


@every_kind
def test_channels_of_a_group_that_shuts_down_tell_their_owners(kind: str) -> None:
    """Streams on two loops, used from a third, when those two end: an error, and no hang."""

    async def echo(stream: ChannelStream) -> None:
        async for data in stream:
            await stream.send(data)

    async def talk(port: int, group: EventLoopGroup, answered: asyncio.Event) -> str:
        try:
            async with await connect("127.0.0.1", port, event_loop_group=group) as stream:
                while True:
                    await stream.send(b"x")
                    await stream.receive()
                    answered.set()
        except (anyio.BrokenResourceError, anyio.EndOfStream, EventLoopShutdownError) as exc:
            return type(exc).__name__

    async def main() -> None:
        group = new_group(kind)
        async with serve(echo, "127.0.0.1") as listener:
            answered = [asyncio.Event() for _ in range(4)]
            port = listener.endpoint.port
            talking = [asyncio.create_task(talk(port, group, event)) for event in answered]
            for event in answered:
                await event.wait()
            await group.aclose()
            async with asyncio.timeout(30):
                outcomes = await asyncio.gather(*talking, return_exceptions=True)
            assert not [each for each in outcomes if not isinstance(each, str)], outcomes

    asyncio.run(main())


def test_groups_come_and_go_on_many_threads() -> None:
    """Each thread makes groups of its own, uses them, and leaves nothing."""

    def come_and_go(_: int) -> int:
        for _ in range(few(3)):
            with EventLoopGroup(2) as group:
                futures = [group.submit(forever()) for _ in range(3)]
            assert all(future.cancelled() for future in futures)
        return 1

    assert sum(at_once(4, come_and_go)) == 4
    assert not [each for each in threading.enumerate() if each.name.startswith("aws-io-loop")]
