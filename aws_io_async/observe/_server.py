"""A local socket at which the process tells of its loops, for `python -m aws_io_async top`.

For each line that a client sends, it gets one back: a JSON object, as docs/schemas/statistics.json
has it. The server has a loop and a thread of its own, so that it answers also while the loops that
it tells of are stalled; that loop is not among them.
"""

import asyncio
import atexit
import json
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from .. import errors
from ..errors import ErrorCode
from ..event_loop._loop import EventLoop
from ..event_loop._loop_thread import LoopThread
from ..event_loop.entry import new_event_loop
from ._loops import describe_loop, event_loops, hide

T = TypeVar("T")

VERSION = 1
"""Of the format: a number that changes when an old client would misunderstand a new server."""


def describe_process(loops: Iterable[EventLoop] | None = None) -> dict[str, Any]:
    """The process and its loops, in types that JSON has. Thread: any."""
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "program": " ".join(sys.orig_argv),
        "python": sys.version.partition(" ")[0],
        "time": time.time(),
        "monotonic_seconds": time.monotonic(),
        "cpu_seconds": time.process_time(),
        "threads": threading.active_count(),
        "loops": [describe_loop(each) for each in (event_loops() if loops is None else loops)],
    }


class StatisticsServer:
    """Made by `serve_statistics`; ends by `close()`, or with a `with` block. Thread: any."""

    def __init__(self, path: Path, loops: list[EventLoop] | None) -> None:
        self.path = path
        self._loops = loops
        self._pid = os.getpid()
        self._closed = False
        self._sock = _bind(path)
        self._inode = os.stat(path).st_ino
        try:
            self._thread = LoopThread("aws-io-statistics", _new_hidden_loop)
        except BaseException:
            self._sock.close()
            self._remove_file()
            raise
        atexit.register(self.close)
        self._server = self._call(asyncio.start_unix_server(self._answer, sock=self._sock))

    def close(self) -> None:
        """Stop, hang up on the clients, and remove the socket's file; idempotent.

        In a forked child it does nothing: the server is its parent's.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._call(self._stop_listening())
        self._thread.stop()  # which cancels what answers the clients
        self._thread.join()
        self._remove_file()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}{' closed' if self._closed else ''}>"

    def _remove_file(self) -> None:
        with suppress(OSError):  # it is gone already
            if os.stat(self.path).st_ino == self._inode:  # and not another server's by now
                os.unlink(self.path)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._thread.loop).result()

    async def _stop_listening(self) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readline():
                line = json.dumps(describe_process(self._loops)) + "\n"
                writer.write(line.encode())
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client has gone, or its line has no end
        finally:
            writer.close()


def serve_statistics(
    path: str | os.PathLike[str], loops: Iterable[EventLoop] | None = None
) -> StatisticsServer:
    """Tell whoever connects to the Unix socket `path` what the loops of this process do.

    `loops` are those to tell of, by default all that the process has at the time of a question.
    Only the process's own user, and root, may connect: the file has mode 0600. It is removed when
    the server closes, or the interpreter exits; one that a killed process left is replaced.

    Raises IO_SOCKET_ADDRESS_IN_USE, an OSError, if another process serves there or a file of
    another kind is there, IO_SOCKET_INVALID_ADDRESS for a path that is too long for a socket, and
    OSError for what else the system says. Thread: any; it blocks for some milliseconds.
    """
    return StatisticsServer(Path(path), None if loops is None else list(loops))


def _new_hidden_loop() -> EventLoop:
    loop = new_event_loop()
    hide(loop)
    return loop


def _bind(path: Path) -> socket.socket:
    """A socket that has the path, and mode 0600 before anyone can connect to it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(f"{path}")
        os.chmod(path, 0o600)  # nobody can connect before listen()
    except OSError as exc:
        sock.close()
        if "too long" in str(exc):
            raise errors.make(ErrorCode.IO_SOCKET_INVALID_ADDRESS, f"{path}: {exc}") from exc
        raise errors.translate(exc, f"{path}") from exc
    return sock


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that is dead."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # bind() refuses it
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(f"{path}")
            except ConnectionRefusedError:
                os.unlink(path)
