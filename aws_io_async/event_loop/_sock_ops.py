"""`loop.sock_*`: awaitable operations on a non-blocking socket that the caller owns.

They are methods of the loop as they stand here, under asyncio's names with `sock_` before them: one
coroutine a call, no facade.

Each tries at once, without suspending if it can. If the kernel says "not now", it waits until the
socket is ready and tries again. The attempt is made by the waiting task itself, not by whoever
wakes it: a task that is cancelled between the two has taken nothing from the socket, so no byte
and no accepted connection is lost. The watch ends in the same step, before the caller goes on:
the socket may be closed then, and its fd be somebody else's in the next moment.
"""

import asyncio
import errno
import socket
import ssl
from typing import Any

from ._names import resolve
from ._scheduler import Scheduler

_NOT_NOW = (BlockingIOError, InterruptedError)


def _check(loop: Scheduler, sock: socket.socket) -> None:
    if isinstance(sock, ssl.SSLSocket):
        check_not_ssl(sock)
    if loop._debug and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")


def check_not_ssl(sock: socket.socket) -> None:
    """TypeError for an `ssl.SSLSocket`, whose readiness says nothing about its data."""
    if isinstance(sock, ssl.SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket: pass a plain one, and ssl=")


async def _readable(loop: Scheduler, sock: socket.socket) -> None:
    """Wait until `sock` is readable; as in asyncio, one waiter a socket and direction."""
    fd = sock.fileno()
    if fd in loop._transports:  # the last one's, perhaps
        loop._check_no_transport(fd)
    future: asyncio.Future[None] = loop.create_future()
    watcher = loop._add_reader(fd, wake, future, context=loop._bare_context)
    try:
        await future
    finally:
        loop._watchers.remove_reader(fd, watcher)


async def wait_writable(loop: Scheduler, sock: socket.socket) -> None:
    """Wait until `sock` is writable; as in asyncio, one waiter a socket and direction."""
    fd = sock.fileno()
    if fd in loop._transports:  # the last one's, perhaps
        loop._check_no_transport(fd)
    future: asyncio.Future[None] = loop.create_future()
    watcher = loop._add_writer(fd, wake, future, context=loop._bare_context)
    try:
        await future
    finally:
        loop._watchers.remove_writer(fd, watcher)


def wake(future: "asyncio.Future[None]") -> None:
    """Have whoever waits for `future` go on, unless they have given up."""
    if not future.done():
        future.set_result(None)


async def recv(loop: Scheduler, sock: socket.socket, nbytes: int) -> bytes:
    _check(loop, sock)
    while True:
        try:
            return sock.recv(nbytes)
        except _NOT_NOW:
            await _readable(loop, sock)


async def recv_into(loop: Scheduler, sock: socket.socket, buf: Any) -> int:
    _check(loop, sock)
    while True:
        try:
            return sock.recv_into(buf)
        except _NOT_NOW:
            await _readable(loop, sock)


async def recvfrom(loop: Scheduler, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
    _check(loop, sock)
    while True:
        try:
            return sock.recvfrom(bufsize)
        except _NOT_NOW:
            await _readable(loop, sock)


async def recvfrom_into(
    loop: Scheduler, sock: socket.socket, buf: Any, nbytes: int = 0
) -> tuple[int, Any]:
    _check(loop, sock)
    while True:
        try:
            return sock.recvfrom_into(buf, nbytes or len(buf))
        except _NOT_NOW:
            await _readable(loop, sock)


async def accept(loop: Scheduler, sock: socket.socket) -> tuple[socket.socket, Any]:
    _check(loop, sock)
    while True:
        try:
            connection, address = sock.accept()
        except _NOT_NOW:
            await _readable(loop, sock)
        else:
            connection.setblocking(False)
            return connection, address


async def sendall(loop: Scheduler, sock: socket.socket, data: Any) -> None:
    _check(loop, sock)
    rest = data
    while True:
        loop._has_sent = True
        try:
            sent = sock.send(rest)
        except _NOT_NOW:
            sent = 0
        if type(rest) is bytes and sent == len(rest):
            return
        rest = memoryview(rest).cast("B")[sent:]
        if not rest:
            return
        await wait_writable(loop, sock)


async def sendto(loop: Scheduler, sock: socket.socket, data: Any, address: Any) -> int:
    _check(loop, sock)
    while True:
        loop._has_sent = True
        try:
            return sock.sendto(data, address)
        except _NOT_NOW:
            await wait_writable(loop, sock)


async def connect(loop: Scheduler, sock: socket.socket, address: Any) -> None:
    _check(loop, sock)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        infos = await resolve(loop, address, family=sock.family, type=sock.type, proto=sock.proto)
        address = infos[0][4]
    loop._has_sent = True
    try:
        sock.connect(address)
    except _NOT_NOW as exc:
        if exc.errno == errno.EAGAIN:
            raise  # a Unix server's backlog is full: nothing is under way to wait for
        await wait_writable(loop, sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, f"Connect call failed {address}") from None
