"""`create_server` and `create_unix_server`: from addresses to bound sockets to a `Server`."""

import asyncio
import errno
import os
import socket
import ssl as ssl_module
import stat
from asyncio.log import logger
from collections.abc import Callable, Iterable
from typing import Any

from ._names import AddressInfo, resolve
from ._scheduler import Scheduler
from ._server import Server
from ._sock_ops import check_not_ssl


def _check_tls_arguments(
    ssl: object, handshake_timeout: float | None, shutdown_timeout: float | None
) -> None:
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    if ssl is None and handshake_timeout is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if ssl is None and shutdown_timeout is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


async def create_server(
    loop: Scheduler,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | Iterable[str] | None,
    port: Any,
    *,
    family: int,
    flags: int,
    sock: socket.socket | None,
    backlog: int,
    ssl: ssl_module.SSLContext | None,
    reuse_address: bool | None,
    reuse_port: bool | None,
    keep_alive: bool | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    start_serving: bool,
) -> Server:
    _check_tls_arguments(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    if sock is not None:
        check_not_ssl(sock)
    if host is not None or port is not None:
        if sock is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        infos = await _addresses(loop, host, port, family, flags)
        options = (
            [(socket.SOL_SOCKET, socket.SO_REUSEADDR)] if reuse_address in (None, True) else []
        )
        if reuse_port:
            if not hasattr(socket, "SO_REUSEPORT"):
                raise ValueError("reuse_port not supported by socket module")
            options.append((socket.SOL_SOCKET, socket.SO_REUSEPORT))
        if keep_alive:
            options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        sockets = _bind_all(loop, infos, options)
    elif sock is None:
        raise ValueError("Neither host/port nor sock were specified")
    elif sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    else:
        sockets = [sock]
    for listener in sockets:
        listener.setblocking(False)
    server = Server(
        loop,
        sockets,
        protocol_factory,
        ssl=ssl,
        backlog=backlog,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    return await _begin(loop, server, start_serving)


async def _begin(loop: Scheduler, server: Server, start_serving: bool) -> Server:
    if start_serving:
        try:
            server._start_serving()
        except BaseException:
            server.close()
            raise
    if loop.get_debug():
        logger.info("%r is serving", server)
    return server


async def _addresses(
    loop: Scheduler, host: str | Iterable[str] | None, port: Any, family: int, flags: int
) -> list[AddressInfo]:
    """Every address to listen on, each once, in the order of the hosts."""
    hosts: list[Any]
    if host == "":
        hosts = [None]
    elif isinstance(host, str) or not isinstance(host, Iterable):
        hosts = [host]
    else:
        hosts = list(host)
    found = await asyncio.gather(
        *(resolve(loop, (host, port), family=family, flags=flags) for host in hosts)
    )
    return list(dict.fromkeys(info for infos in found for info in infos))


def _bind_all(
    loop: Scheduler, infos: list[AddressInfo], options: list[tuple[int, int]]
) -> list[socket.socket]:
    """A bound socket for each address that this machine has; OSError if it has none of them."""
    sockets: list[socket.socket] = []
    try:
        for info in infos:
            sock = _bind(loop, info, options)
            if sock is not None:
                sockets.append(sock)
        if not sockets:
            raise OSError(f"could not bind on any address out of {[info[4] for info in infos]!r}")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(
    loop: Scheduler, info: AddressInfo, options: list[tuple[int, int]]
) -> socket.socket | None:
    """A socket bound to one address; None if this machine has no such family or address."""
    family, kind, proto, _, address = info
    try:
        sock = socket.socket(family, kind, proto)
    except OSError:
        if loop.get_debug():
            logger.warning(
                "create_server() failed to create socket.socket(%r, %r, %r)",
                family,
                kind,
                proto,
                exc_info=True,
            )
        return None
    try:
        for level, option in options:
            sock.setsockopt(level, option, True)
        if family == socket.AF_INET6:
            # One socket an address: without this, [::] would take 0.0.0.0's place as well.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        message = f"error while attempting to bind on address {address!r}: {str(exc).lower()}"
        if exc.errno != errno.EADDRNOTAVAIL:
            raise OSError(exc.errno, message) from None
        if loop.get_debug():
            logger.warning(message)
        return None
    except BaseException:
        sock.close()
        raise
    return sock


async def create_unix_server(
    loop: Scheduler,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    path: Any,
    *,
    sock: socket.socket | None,
    backlog: int,
    ssl: ssl_module.SSLContext | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    start_serving: bool,
    cleanup_socket: bool,
) -> Server:
    _check_tls_arguments(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    if path is not None:
        if sock is not None:
            raise ValueError("path and sock can not be specified at the same time")
        sock = _bind_unix(os.fspath(path))
    elif sock is None:
        raise ValueError("path was not specified, and no sock specified")
    elif sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")
    sock.setblocking(False)
    server = Server(
        loop,
        [sock],
        protocol_factory,
        ssl=ssl,
        backlog=backlog,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        unlink_inode=_inode(sock.getsockname()) if cleanup_socket else None,
    )
    return await _begin(loop, server, start_serving)


def is_abstract(path: str | bytes) -> bool:
    """Whether a Unix socket's address is in Linux' abstract name space, not in the file system."""
    return path[:1] in ("\0", b"\0", "", b"")


def _inode(path: str | bytes) -> int | None:
    if is_abstract(path):
        return None
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def _bind_unix(path: str | bytes) -> socket.socket:
    """A socket bound to a path; one that a dead server left behind there is removed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove_stale_socket(path)
        sock.bind(path)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
        raise
    except BaseException:
        sock.close()
        raise
    return sock


def remove_stale_socket(path: str | bytes) -> None:
    """Remove a socket's file, and a socket's only; what cannot be removed is logged."""
    if is_abstract(path):
        return
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, exc)
