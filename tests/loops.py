"""The event loops that the suite runs on, by name."""

import asyncio
from collections.abc import Callable

import aws_io_async

try:
    import uvloop
except ImportError:  # an interpreter that uvloop has no wheel for
    uvloop = None  # type: ignore[assignment]

Factory = Callable[[], asyncio.AbstractEventLoop]

FACTORIES: dict[str, Factory] = {
    "aws_io_async": aws_io_async.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}
if uvloop is not None:
    FACTORIES["uvloop"] = uvloop.new_event_loop
    # libuv opens descriptors with its first loop that it keeps for good: no leak of a test's.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
