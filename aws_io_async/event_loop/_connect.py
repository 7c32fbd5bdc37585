"""Outgoing connections, and the transports of sockets that are connected already."""

import asyncio
import errno
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from . import _sock_ops
from ._connect_lookup import ConnectLookup, HostResolver
from ._happy_eyeballs import first_to_succeed, interleave
from ._names import AddressInfo, resolve
from ._scheduler import Scheduler
from ._tls_transport import TlsProtocol
from ._transport import SocketTransport

P = TypeVar("P", bound=asyncio.BaseProtocol)

Ssl = bool | ssl_module.SSLContext | None


def check_tls_arguments(
    ssl: Ssl,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> None:
    """ValueError for options of TLS without TLS."""
    if ssl:
        return
    if server_hostname is not None:
        raise ValueError("server_hostname is only meaningful with ssl")
    if handshake_timeout is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if shutdown_timeout is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


async def create_connection(
    loop: Scheduler,
    protocol_factory: Callable[[], P],
    host: Any,
    port: Any,
    *,
    ssl: Ssl,
    family: int,
    proto: int,
    flags: int,
    sock: socket.socket | None,
    local_addr: tuple[str, int] | None,
    server_hostname: str | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    happy_eyeballs_delay: float | None,
    first_family_count: int | None,
    all_errors: bool,
    resolver: HostResolver | None,
) -> tuple[asyncio.Transport, P]:
    check_tls_arguments(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
    if ssl and server_hostname is None:
        if not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        server_hostname = host
    if sock is not None:
        _sock_ops.check_not_ssl(sock)
    if host is not None or port is not None:
        if sock is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        sock = await _connect_to_host(
            loop,
            (host, port),
            family=family,
            proto=proto,
            flags=flags,
            local_addr=local_addr,
            delay=happy_eyeballs_delay,
            first_family_count=first_family_count,
            all_errors=all_errors,
            lookup=ConnectLookup(resolver),
        )
    elif sock is None:
        raise ValueError("host and port was not specified and no sock specified")
    elif sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    return await open_transport(
        loop,
        sock,
        protocol_factory,
        ssl=ssl,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )


async def _connect_to_host(
    loop: Scheduler,
    address: tuple[Any, Any],
    *,
    family: int,
    proto: int,
    flags: int,
    local_addr: tuple[str, int] | None,
    delay: float | None,
    first_family_count: int | None,
    all_errors: bool,
    lookup: ConnectLookup,
) -> socket.socket:
    """A socket connected to one of the addresses of a host."""
    infos = await lookup.resolve(loop, address, family=family, proto=proto, flags=flags)
    local_infos = None
    if local_addr is not None:
        local_infos = await resolve(loop, local_addr, family=family, proto=proto, flags=flags)
    if delay is not None and first_family_count is None:
        first_family_count = 1
    if first_family_count:
        infos = interleave(infos, first_family_count)
    if len(infos) == 1 and not all_errors:  # nothing to race: no task needed
        return await _connect_socket(loop, infos[0], local_infos, lookup)
    attempts: list[Callable[[], Awaitable[socket.socket]]] = [
        partial(_connect_socket, loop, info, local_infos, lookup) for info in infos
    ]
    outcome = await first_to_succeed(attempts, delay, _close)
    winner, errors = outcome
    if winner is not None:
        return winner
    try:
        raise _combined(errors, all_errors)
    finally:
        errors.clear()  # an exception and its traceback would keep one another alive


def _close(sock: socket.socket) -> None:
    sock.close()


def _combined(errors: list[Exception], all_errors: bool) -> Exception:
    """One exception for the failed attempts, as asyncio has it."""
    if all_errors:
        return ExceptionGroup("create_connection failed", errors)
    if all(str(error) == str(errors[0]) for error in errors):
        return errors[0]
    return OSError("Multiple exceptions: " + ", ".join(str(error) for error in errors))


async def _connect_socket(
    loop: Scheduler,
    info: AddressInfo,
    local_infos: list[AddressInfo] | None,
    lookup: ConnectLookup,
) -> socket.socket:
    """One attempt: a new socket connected to one address."""
    family, kind, proto, _, address = info
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        if local_infos is not None:
            _bind_local(sock, local_infos)
        try:
            await loop.sock_connect(sock, address)
        except OSError:
            lookup.failed(info)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_local(sock: socket.socket, local_infos: list[AddressInfo]) -> None:
    error = None
    for family, _, _, _, address in local_infos:
        if family != sock.family:
            continue
        try:
            sock.bind(address)
        except OSError as exc:
            error = OSError(
                exc.errno,
                f"error while attempting to bind on address {address!r}: {str(exc).lower()}",
            )
        else:
            return
    if error is not None:
        raise error
    raise OSError(f"no matching local address with family={sock.family!r} found")


async def open_transport(
    loop: Scheduler,
    sock: socket.socket,
    protocol_factory: Callable[[], P],
    *,
    ssl: Ssl,
    server_hostname: str | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    server_side: bool = False,
) -> tuple[asyncio.Transport, P]:
    """A transport for a connected socket, once its protocol has been told and TLS is agreed on.

    The socket belongs to the transport from here on; an error or a cancellation closes it. Raises
    RuntimeError, and closes nothing, if it belongs to another transport already.
    """
    loop._check_no_transport(sock.fileno())
    transport: asyncio.Transport
    waiter: asyncio.Future[None] = loop.create_future()
    try:
        sock.setblocking(False)
        protocol = protocol_factory()
        if ssl:
            tls = TlsProtocol(
                loop,
                protocol,
                ssl,
                waiter,
                server_side=server_side,
                server_hostname=server_hostname,
                handshake_timeout=ssl_handshake_timeout,
                shutdown_timeout=ssl_shutdown_timeout,
            )
            SocketTransport(loop, sock, tls)
            transport = tls.app_transport
        else:
            transport = SocketTransport(loop, sock, protocol, waiter=waiter)
    except BaseException:
        sock.close()
        raise
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    finally:
        del waiter  # its exception has a traceback, which leads to this frame
    return transport, protocol


async def create_unix_connection(
    loop: Scheduler,
    protocol_factory: Callable[[], P],
    path: Any,
    *,
    ssl: Ssl,
    sock: socket.socket | None,
    server_hostname: str | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
) -> tuple[asyncio.Transport, P]:
    if ssl and server_hostname is None:
        raise ValueError("you have to pass server_hostname when using ssl")
    check_tls_arguments(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
    if path is not None:
        if sock is not None:
            raise ValueError("path and sock can not be specified at the same time")
        path = os.fspath(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, path)
        except OSError as exc:
            sock.close()
            if exc.errno in (errno.ENOENT, errno.ECONNREFUSED) and exc.filename is None:
                exc.filename = path  # asyncio does not say which path it was
            raise
        except BaseException:
            sock.close()
            raise
    elif sock is None:
        raise ValueError("no path and sock were specified")
    elif sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")
    return await open_transport(
        loop,
        sock,
        protocol_factory,
        ssl=ssl,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )


async def connect_accepted_socket(
    loop: Scheduler,
    protocol_factory: Callable[[], P],
    sock: socket.socket,
    *,
    ssl: Ssl,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
) -> tuple[asyncio.Transport, P]:
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    check_tls_arguments(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
    _sock_ops.check_not_ssl(sock)
    return await open_transport(
        loop,
        sock,
        protocol_factory,
        ssl=ssl,
        server_hostname=None,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        server_side=True,
    )
