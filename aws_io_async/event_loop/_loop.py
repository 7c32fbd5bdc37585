"""`EventLoop`: asyncio's whole interface, each method handing over to the module it belongs to."""

import asyncio
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from selectors import BaseSelector
from typing import Any, TypeVar, TypeVarTuple, Unpack

from . import (
    _connect,
    _connect_lookup,
    _datagram,
    _listen,
    _names,
    _pipes,
    _sendfile,
    _sock_ops,
    _subprocess,
    _tls_transport,
)
from ._crt_loop import Clock, CrtLoop
from ._server import Server
from ._signals import SignalHandlers
from ._watchers import Watcher

Ts = TypeVarTuple("Ts")
P = TypeVar("P", bound=asyncio.BaseProtocol)
S = TypeVar("S", bound=asyncio.SubprocessProtocol)


WatchedFiles = dict[int, tuple[object, Watcher]]
"""What the application watches in one direction; as in asyncio, a file object is kept alive."""

CLEANUP_SOCKET = sys.version_info >= (3, 13)
"""Whether a Unix server removes its file when it closes: this Python's own default."""


class EventLoop(CrtLoop):
    """An asyncio event loop in pure Python, on epoll or kqueue, and aws-c-io's event loop as well.

    Takes the place of `asyncio.SelectorEventLoop`, with the arguments and the semantics of the
    newest Python's on every supported one. `selector` is one of the `selectors` module, by default
    the platform's best, and belongs to the loop from then on. `clock` is for tests: a function
    that returns nanoseconds, which `time()`, timers and tasks go by.

    Thread: `call_soon_threadsafe`, `stop`, `is_running`, `is_closed`, `get_debug`, `time` and
    `statistics` may be called from any, those that aws-c-io has as each says; the others from the
    one that runs the loop only.
    Fork: a child must not touch the loops of its parent, and gets a RuntimeError that says so.
    """

    def __init__(self, selector: BaseSelector | None = None, clock: Clock | None = None) -> None:
        super().__init__(selector, clock)
        self._name_threads = _names.NameThreads(self)
        self._signals = SignalHandlers(self)
        self._read_files: WatchedFiles = {}
        self._write_files: WatchedFiles = {}
        self._host_resolver: _connect_lookup.HostResolver | None = None

    def close(self) -> None:
        if not self.is_closed() and not self.is_running():
            self._signals.close()
            self._name_threads.close()
            self._forget_files()
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        """A closed loop is freed with the last reference to it: its parts do not count."""
        part: Any
        for part in (
            self._executor,
            self._async_generators,
            self._tasks,
            self._subscriptions,
            self._own_thread,
            self._name_threads,
            self._signals,
        ):
            part._loop = weakref.proxy(self)

    def _disown(self) -> None:
        super()._disown()
        self._forget_files()
        self._signals.disown()

    # Descriptors and signals

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        number = self._free_fd(fd)
        self._read_files[number] = fd, self._add_reader(number, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        return self._remove_reader(*self._watched(self._read_files, fd))

    def add_writer(self, fd: Any, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        number = self._free_fd(fd)
        self._write_files[number] = fd, self._add_writer(number, callback, *args)

    def remove_writer(self, fd: Any) -> bool:
        return self._remove_writer(*self._watched(self._write_files, fd))

    def _watched(self, files: WatchedFiles, fileobj: Any) -> tuple[int, Watcher | None]:
        """What to stop watching. One that was closed has no fd any more, but is in `files`."""
        try:
            fd = self._free_fd(fileobj)
        except ValueError:
            for fd, (watched, watcher) in files.items():
                if watched is fileobj:
                    del files[fd]
                    return fd, watcher  # and no other: the number may be somebody else's now
            raise
        files.pop(fd, None)
        return fd, None

    def _forget_files(self) -> None:
        self._read_files.clear()
        self._write_files.clear()

    def add_signal_handler(
        self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts
    ) -> None:
        self._check_closed()
        self._signals.add(sig, callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._signals.remove(sig)

    # Names

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        return await _names.getaddrinfo(
            self, self._name_threads, host, port, family, type, proto, flags
        )

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        return await _names.getnameinfo(self._name_threads, sockaddr, flags)

    def set_host_resolver(self, resolver: _connect_lookup.HostResolver | None) -> None:
        """Have `create_connection` look up names by `resolver`; None: by `getaddrinfo`, as ever.

        A connection is then tried to the addresses of `resolve_candidates`, and those that cannot
        be connected to are recorded with the resolver. `getaddrinfo`, and all else that takes
        names, stays as it is. The resolver stays the caller's. Raises TypeError for what is none.
        """
        self._host_resolver = _connect_lookup.checked_resolver(resolver)

    def get_host_resolver(self) -> _connect_lookup.HostResolver | None:
        """What was set; None for `getaddrinfo`."""
        return self._host_resolver

    # Connections

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        host: Any = None,
        port: Any = None,
        *,
        ssl: _connect.Ssl = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket.socket | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[asyncio.Transport, P]:
        return await _connect.create_connection(
            self,
            protocol_factory,
            host,
            port,
            ssl=ssl,
            family=family,
            proto=proto,
            flags=flags,
            sock=sock,
            local_addr=local_addr,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            happy_eyeballs_delay=happy_eyeballs_delay,
            first_family_count=interleave,
            all_errors=all_errors,
            resolver=self._host_resolver,
        )

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], P],
        path: Any = None,
        *,
        ssl: _connect.Ssl = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, P]:
        return await _connect.create_unix_connection(
            self,
            protocol_factory,
            path,
            ssl=ssl,
            sock=sock,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], P],
        sock: socket.socket,
        *,
        ssl: _connect.Ssl = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, P]:
        return await _connect.connect_accepted_socket(
            self,
            protocol_factory,
            sock,
            ssl=ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def start_tls(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        return await _tls_transport.start_tls(
            self,
            transport,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def create_server(  # type: ignore[override]  # typeshed has overloads by argument
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: Any = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Server:
        return await _listen.create_server(
            self,
            protocol_factory,
            host,
            port,
            family=family,
            flags=flags,
            sock=sock,
            backlog=backlog,
            ssl=ssl,
            reuse_address=reuse_address,
            reuse_port=reuse_port,
            keep_alive=keep_alive,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            start_serving=start_serving,
        )

    async def create_unix_server(  # type: ignore[override]  # Server is no subclass of asyncio's
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: Any = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = CLEANUP_SOCKET,
    ) -> Server:
        return await _listen.create_unix_server(
            self,
            protocol_factory,
            path,
            sock=sock,
            backlog=backlog,
            ssl=ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            start_serving=start_serving,
            cleanup_socket=cleanup_socket,
        )

    async def create_datagram_endpoint(  # type: ignore[override]  # reuse_address is gone from asyncio
        self,
        protocol_factory: Callable[[], P],
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]:
        return await _datagram.create_datagram_endpoint(
            self,
            protocol_factory,
            local_addr,
            remote_addr,
            family=family,
            proto=proto,
            flags=flags,
            reuse_port=reuse_port,
            allow_broadcast=allow_broadcast,
            sock=sock,
        )

    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        return await _sendfile.sendfile(self, transport, file, offset, count, fallback)

    # Sockets of the caller's own

    sock_recv = _sock_ops.recv
    sock_recv_into = _sock_ops.recv_into
    sock_recvfrom = _sock_ops.recvfrom
    sock_recvfrom_into = _sock_ops.recvfrom_into
    sock_sendall = _sock_ops.sendall
    sock_sendto = _sock_ops.sendto
    sock_connect = _sock_ops.connect
    sock_accept = _sock_ops.accept

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        return await _sendfile.sock_sendfile(self, sock, file, offset, count, bool(fallback))

    # Pipes and subprocesses

    async def connect_read_pipe(
        self, protocol_factory: Callable[[], P], pipe: Any
    ) -> tuple[asyncio.ReadTransport, P]:
        return await _pipes.connect_read_pipe(self, protocol_factory, pipe)

    async def connect_write_pipe(
        self, protocol_factory: Callable[[], P], pipe: Any
    ) -> tuple[asyncio.WriteTransport, P]:
        return await _pipes.connect_write_pipe(self, protocol_factory, pipe)

    async def subprocess_exec(  # type: ignore[override]  # typeshed wants Literals for the refused
        self,
        protocol_factory: Callable[[], S],
        program: Any,
        *args: Any,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = False,
        bufsize: int = 0,
        encoding: str | None = None,
        errors: str | None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, S]:
        _subprocess.check_exec_options(
            shell=shell,
            universal_newlines=universal_newlines,
            bufsize=bufsize,
            text=text,
            encoding=encoding,
            errors=errors,
        )
        return await _subprocess.spawn(
            self,
            protocol_factory,
            (program, *args),
            shell=False,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            **kwargs,
        )

    async def subprocess_shell(  # type: ignore[override]  # typeshed wants Literals for the refused
        self,
        protocol_factory: Callable[[], S],
        cmd: Any,
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = True,
        bufsize: int = 0,
        encoding: str | None = None,
        errors: str | None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, S]:
        _subprocess.check_shell_options(
            cmd,
            shell=shell,
            universal_newlines=universal_newlines,
            bufsize=bufsize,
            text=text,
            encoding=encoding,
            errors=errors,
        )
        return await _subprocess.spawn(
            self,
            protocol_factory,
            cmd,
            shell=True,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            **kwargs,
        )
