"""Reading and writing descriptors that others have as well: stdin and stdout.

They are not made non-blocking, which would hold for the shell and everyone else at the terminal.
The loop is asked whether they are ready, and one call is made that does not block then. Files,
which loops do not watch, are always ready.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

CHUNK = 64 * 1024

PIPE_BUF = 4096
"""As much fits into a pipe that is said to be writable."""


async def read(fd: int) -> bytes:
    """What there is to read, at least one byte; b"" at the end. A cancellation loses nothing."""
    loop = asyncio.get_running_loop()
    await _ready(partial(loop.add_reader, fd), partial(loop.remove_reader, fd))
    return os.read(fd, CHUNK)


async def write(fd: int, data: bytes) -> None:
    """Write all. Raises BrokenPipeError if nobody reads it any more."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        is_file = not await _ready(partial(loop.add_writer, fd), partial(loop.remove_writer, fd))
        view = view[os.write(fd, view if is_file else view[:PIPE_BUF]) :]


async def _ready(add: Callable[..., Any], remove: Callable[[], Any]) -> bool:
    """Wait until a descriptor is ready; False for a file, which the loop cannot watch."""
    ready = asyncio.get_running_loop().create_future()
    try:
        add(_set, ready)
    except PermissionError:
        return False
    try:
        await ready
    finally:
        remove()
    return True


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
