"""An interpreter that exits with everything still alive: status 0, soon, and not a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults._report import Fault

EXITS = Fault(
    "Threads and forks",
    "the interpreter exits with loops, groups, channels, lookups or watches alive",
    "status 0, and not a word on stderr",
)

PATIENCE = 40.0
"""Seconds after which an interpreter hangs."""

HEAD = """
import asyncio, socket, sys, threading, time
import aws_io_async
from aws_io_async import EventLoop, EventLoopGroup, HostResolver, connect, observe, serve
from aws_io_async.event_loop.tasks import Task
from aws_io_async.future import Promise
from aws_io_async.host_resolver import HostResolutionConfig

async def echo(stream):
    async for data in stream:
        await stream.send(data)

async def forever():
    await asyncio.Event().wait()

"""

PROGRAMS = {
    "channels on a group": """
        group = EventLoopGroup(2)
        kept = []

        async def main():
            serving = serve(echo, "127.0.0.1", event_loop_group=group)
            listener = await serving.__aenter__()
            stream = await connect("127.0.0.1", listener.endpoint.port, event_loop_group=group)
            await stream.send(b"x")
            await stream.receive()
            kept.extend([serving, stream])

        asyncio.run(main())
        """,
    "a loop on its own thread, with a timer, a task and a reader": """
        loop = EventLoop()
        near, far = socket.socketpair()
        loop.run()
        loop.call_soon_threadsafe(loop.call_later, 0.001, lambda: None)
        loop.call_soon_threadsafe(loop.add_reader, near, print)
        loop.schedule_task_future(Task(print), loop.current_clock_time() + 10**12)
        """,
    "a loop that was never run": "loop = EventLoop()\nloop.call_soon(print)\n",
    "a group that threads go on to use": """
        group = EventLoopGroup(2)
        began = threading.Event()

        async def work():
            began.set()
            await asyncio.sleep(0)

        def use():
            while True:
                try:
                    group.submit(work())
                except RuntimeError:
                    return

        for _ in range(2):
            threading.Thread(target=use, daemon=True).start()
        began.wait()
        """,
    "a lookup that hangs": """
        looking_up = threading.Event()

        def hang(host):
            looking_up.set()
            time.sleep(3600)

        config = HostResolutionConfig(impl=hang)
        group = EventLoopGroup(1)
        group.submit(HostResolver.default().resolve_host("host.example", config))
        looking_up.wait()
        """,
    "a cache that is kept fresh": """
        resolver = HostResolver(config=HostResolutionConfig(
            impl=lambda host: ["127.0.0.1"], resolve_frequency=0.1))
        print(asyncio.run(resolver.resolve_host("host.example")))
        """,
    "a watch, and a server of statistics": """
        group = EventLoopGroup(1)
        watch = observe.watch_stalls(list(group))
        server = observe.serve_statistics(sys.argv[1] + "/socket")
        """,
    "promises that nobody keeps": """
        promise = Promise()
        waiting = threading.Thread(target=promise.future.wait, daemon=True)
        waiting.start()
        loop = EventLoop()
        promise.future.register_event_loop_callback(loop, print)
        loop.close()
        """,
    "out of a running loop, by sys.exit": """
        group = EventLoopGroup(1)

        async def main():
            group.submit(forever())
            reading = asyncio.create_task(forever())
            await asyncio.sleep(0)
            sys.exit(0)

        try:
            aws_io_async.run(main())
        except SystemExit:
            pass
        """,
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_nothing_is_said_and_nothing_hangs(what: str, tmp_path: Path) -> None:
    lines = PROGRAMS[what].splitlines()
    program = HEAD + "\n".join(line.removeprefix(" " * 8) for line in lines)
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert [*tmp_path.iterdir()] == []
    EXITS.seen("status 0, and not a word")
