"""Names and addresses: `getaddrinfo` and `getnameinfo` without blocking the loop.

Lookups run on threads of their own. On the default executor, where asyncio has them, they wait
behind whatever the application does there, and it behind them. The threads are daemons: a lookup
that hangs in the system's resolver delays neither the loop's close nor the interpreter's exit.
Literal addresses are no lookups; they are answered in place.
"""

import asyncio
import socket
import threading
import time
from asyncio.log import logger
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Any

from ._scheduler import Scheduler

MAX_THREADS = 8
"""Lookups under way at once; others wait their turn."""

AddressInfo = tuple[Any, Any, int, str, Any]
"""What `socket.getaddrinfo` returns a list of: family, type, protocol, canonical name, address."""

_PROTOCOLS = {
    int(socket.SOCK_STREAM): socket.IPPROTO_TCP,
    int(socket.SOCK_DGRAM): socket.IPPROTO_UDP,
}

_Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class NameThreads:
    """A few daemon threads for blocking lookups of one loop. Thread: the loop's."""

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._under_way = 0

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)` on a thread; a cancelled lookup goes on, and its result is dropped.

        Raises RuntimeError if there is no thread, and none can be started.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._under_way >= self._threads and self._threads < MAX_THREADS:
            self._start_thread()
        self._under_way += 1
        self._jobs.put((future, function, args))
        try:
            return await future
        finally:
            del future  # an error's traceback keeps this frame: it must not keep its future as well

    def _start_thread(self) -> None:
        name = f"aws_io_async-names-{self._threads + 1}"
        run = Context().run
        try:
            threading.Thread(target=run, args=(self._work,), name=name, daemon=True).start()
        except RuntimeError:  # the system has no more: those that there are do it
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            result, error = None, None
            try:
                result = function(*args)
            except BaseException as exc:
                error = exc
            try:
                self._loop.call_soon_threadsafe(self._deliver, future, result, error)
            except RuntimeError:  # the loop was closed meanwhile
                return
            del job, future, function, args, result, error

    def _deliver(
        self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None
    ) -> None:
        self._under_way -= 1
        if future.done():  # its waiter was cancelled
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def close(self) -> None:
        """Let the threads end, without waiting for lookups that are under way."""
        for _ in range(self._threads):
            self._jobs.put(None)


async def getaddrinfo(
    loop: Scheduler,
    threads: NameThreads,
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int,
    type: int,
    proto: int,
    flags: int,
) -> list[AddressInfo]:
    """`socket.getaddrinfo`; raises `socket.gaierror` as that does."""
    args = (host, port, family, type, proto, flags)
    if _needs_no_lookup(host, port):
        return socket.getaddrinfo(*args)
    if not loop.get_debug():
        return await threads.run(socket.getaddrinfo, *args)  # type: ignore[no-any-return]  # the function's
    started = time.monotonic()
    try:
        return await threads.run(socket.getaddrinfo, *args)  # type: ignore[no-any-return]  # the function's
    finally:
        took = time.monotonic() - started
        if took >= loop.slow_callback_duration:
            logger.info("Getting address info of %r:%r took %.3f ms", host, port, took * 1e3)


async def getnameinfo(threads: NameThreads, sockaddr: Any, flags: int) -> tuple[str, str]:
    """`socket.getnameinfo`; raises `socket.gaierror` as that does."""
    return await threads.run(socket.getnameinfo, sockaddr, flags)  # type: ignore[no-any-return]  # the function's


async def resolve(
    loop: asyncio.AbstractEventLoop,
    address: tuple[Any, ...],
    *,
    family: int = 0,
    type: int = socket.SOCK_STREAM,
    proto: int = 0,
    flags: int = 0,
) -> list[AddressInfo]:
    """The addresses that `(host, port, …)` stands for; one that is literal stays as it is.

    Raises OSError if there are none, `socket.gaierror` (an OSError) if the lookup fails.
    """
    host, port = address[:2]
    literal = _literal(host, port, family, type, proto, address[2:])
    if literal is not None:
        return [literal]
    infos: Any = await loop.getaddrinfo(
        host, port, family=family, type=type, proto=proto, flags=flags
    )
    if not infos:
        raise OSError(f"getaddrinfo({host!r}) returned empty list")
    return list(infos)


def _literal(
    host: Any, port: Any, family: int, type: int, proto: int, rest: tuple[Any, ...]
) -> AddressInfo | None:
    """What `getaddrinfo` would say of a literal address, kept together with its flow and scope."""
    if not isinstance(host, str) or not isinstance(port, int) or "%" in host:
        return None
    protocol = _PROTOCOLS.get(type)
    if protocol is None or proto not in (0, protocol):
        return None
    found = address_family(host)
    if found is None or family not in (socket.AF_UNSPEC, found):
        return None
    if found == socket.AF_INET6:
        flow, scope = (*rest, 0, 0)[:2]
        return found, type, protocol, "", (host, port, flow, scope)
    return found, type, protocol, "", (host, port)


def address_family(host: str) -> int | None:
    """AF_INET or AF_INET6 if `host` is a literal address without a zone, else None."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family
    return None


def _needs_no_lookup(host: Any, port: Any) -> bool:
    if isinstance(port, bytes | str) and not port.isdigit():
        return False  # the name of a service
    if host is None:
        return True
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if not isinstance(host, str):
        return False  # for `socket.getaddrinfo` to refuse
    literal, percent, _ = host.partition("%")
    family = address_family(literal)
    return family == socket.AF_INET6 or (family == socket.AF_INET and not percent)
