"""A TCP proxy on loopback that does to connections what its scripts say.

It runs on a thread and an asyncio loop of its own, on plain sockets: nothing of what is tested is
in it. One script is for what clients send, one for what the server does.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from tests.faults.script import CLEAR, Action, End, Plan, Script, Send, Stall, Trouble, Wait

LOOPBACK = "127.0.0.1"
SILENCE = 0.02
"""Seconds without a byte after which a script is told so."""
PATIENCE = 30.0


class FaultProxy:
    """A proxy before a server's port, while its `async with` lasts. Each connection is alike.

    At the end it waits until the ends of its connections have closed them. `buffer` is for both of
    its sockets' buffers, in bytes: the least that there is makes everybody write in small pieces.
    """

    def __init__(
        self, server: int, up: Plan = CLEAR, down: Plan = CLEAR, *, buffer: int | None = None
    ) -> None:
        self._server = (LOOPBACK, server)
        self._plans = up, down
        self._buffer = buffer
        self._loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._over = asyncio.Event()
        self._stopped = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self.injected = [False, False]
        """Whether the trouble has come about: up, down."""

    async def __aenter__(self) -> Self:
        self._listener = socket.socket()
        set_buffers(self._listener, self._buffer)
        self._listener.bind((LOOPBACK, 0))
        self._listener.listen(100)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="fault-proxy")
        self._thread.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc is None:
                draining = asyncio.run_coroutine_threadsafe(self._drain(), self._loop)
                await asyncio.wrap_future(draining)
        finally:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert not self._errors, self._errors

    def release(self) -> None:
        """End all stalls, those to come too. Thread: any."""
        self._loop.call_soon_threadsafe(self._over.set)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        accepting = asyncio.create_task(self._accept())
        with self._listener:
            await self._stopped.wait()
            tasks = [accepting, *self._connections]
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    self._errors.append(outcome)

    async def _drain(self) -> None:
        self._over.set()
        async with asyncio.timeout(PATIENCE):
            while self._connections:
                await asyncio.wait(self._connections)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(self._listener)
            task = loop.create_task(self._connect(near))
            self._connections.add(task)
            task.add_done_callback(self._disconnected)

    def _disconnected(self, task: "asyncio.Task[None]") -> None:
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    async def _connect(self, near: socket.socket) -> None:
        with near, socket.socket() as far:
            near.setblocking(False)
            far.setblocking(False)
            set_buffers(far, self._buffer)
            try:
                await asyncio.get_running_loop().sock_connect(far, self._server)
            except OSError:
                reset(near)
                return
            for sock in near, far:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            scripts = [Script(plan) for plan in self._plans]
            try:
                await _Connection(near, far, scripts, self._over).run()
            finally:
                for direction, script in enumerate(scripts):
                    self.injected[direction] |= script.injected


class _ConnectionEndedError(Exception):
    """By the script, or by one of its ends: both directions."""


class _Connection:
    def __init__(
        self,
        near: socket.socket,
        far: socket.socket,
        scripts: list[Script],
        over: asyncio.Event,
    ) -> None:
        self._sockets = near, far
        self._scripts = scripts
        self._over = over
        self._bytes = 0

    async def run(self) -> None:
        near, far = self._sockets
        up, down = self._scripts
        pumps = [
            asyncio.create_task(self._pump(near, far, up)),
            asyncio.create_task(self._pump(far, near, down)),
        ]
        try:
            await asyncio.gather(*pumps)
        except _ConnectionEndedError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(self, source: socket.socket, sink: socket.socket, script: Script) -> None:
        try:
            while True:
                before = self._bytes
                if await readable(source, SILENCE if script.minds_silence else None):
                    data = source.recv(65536)
                    self._bytes += len(data)
                    await self._act(sink, script.data(data) if data else script.end())
                    if not data:
                        return
                elif self._bytes == before:
                    await self._act(sink, script.silence())
        except OSError:  # an end has reset it, which the other one shall know
            self._reset()

    async def _act(self, sink: socket.socket, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    await asyncio.get_running_loop().sock_sendall(sink, data)
                    await asyncio.sleep(0)
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case Stall():
                    await self._over.wait()
                case End(Trouble.HALF_CLOSE):
                    sink.shutdown(socket.SHUT_WR)
                case End(Trouble.RESET):
                    self._reset()
                case End():
                    raise _ConnectionEndedError

    def _reset(self) -> None:
        for sock in self._sockets:
            reset(sock)
        raise _ConnectionEndedError


async def readable(sock: socket.socket, patience: float | None) -> bool:
    """Wait for something to read, or the end; False if there was none in so many seconds."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, tell)
    try:
        async with asyncio.timeout(patience):
            await ready
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(sock)
    return True


def reset(sock: socket.socket) -> None:
    """Have the socket's closing be a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def set_buffers(sock: socket.socket, size: int | None) -> None:
    """Both buffers; the kernel raises what is too small to the least that there is."""
    if size is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def narrow(sock: Any, size: int) -> None:
    """Have a connected socket take and send little at a time.

    A receive buffer that is made smaller than what the peer has been told has the kernel drop what
    comes, and perhaps the news that there is room again: that may take it minutes.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    if hasattr(socket, "TCP_WINDOW_CLAMP"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size)
