"""The registrations of one filter of a queue."""

import array
import errno
import fcntl
import os
import select
import socket
import stat
import termios
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.kqueue_emulation._kevent import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_DISABLE,
    EV_DISPATCH,
    EV_ENABLE,
    EV_EOF,
    EV_ONESHOT,
    FILTER_READ,
    Kevent,
)

# The module as it is, for `installed` may take epoll away from it.
platform_select: Any = types.SimpleNamespace(**vars(select))

_REPORTED_FLAGS = EV_ADD | EV_ENABLE | EV_ONESHOT | EV_CLEAR | EV_DISPATCH


@contextmanager
def _borrowed_socket(fd: int) -> Iterator[socket.socket]:
    """A socket object over `fd` that leaves `fd` open and its mode as it was."""
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_UNIX, kind, 0, fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def _is_connected(fd: int) -> bool:
    with _borrowed_socket(fd) as sock:
        try:
            sock.getpeername()
        except OSError:
            return False
        return True


def _count(fd: int, request: int) -> int:
    number = array.array("i", [0])
    fcntl.ioctl(fd, request, number)
    return number[0]


@dataclass(slots=True)
class _Registration:
    fd: int
    file: tuple[int, int]  # device and inode: what `fd` stood for when it was registered
    mode: int
    connected: bool = True  # a socket's
    flags: int = 0
    udata: int = 0
    enabled: bool = True
    last_size: int = 0  # of a regular file under EV_CLEAR: the `data` of the last event

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_socket(self) -> bool:
        return stat.S_ISSOCK(self.mode)

    @classmethod
    def of(cls, fd: int) -> "_Registration":
        """Raises OSError (EBADF)."""
        try:
            status = os.fstat(fd)
        except OverflowError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
        return cls(fd, (status.st_dev, status.st_ino), status.st_mode)

    def is_alive(self) -> bool:
        try:
            status = os.fstat(self.fd)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.file

    def bytes_to_read(self) -> int:
        try:
            if self.is_file:
                return os.fstat(self.fd).st_size - os.lseek(self.fd, 0, os.SEEK_CUR)
            return _count(self.fd, termios.FIONREAD)
        except OSError:
            return 1

    def space_to_write(self) -> int:
        try:
            if self.is_socket:
                with _borrowed_socket(self.fd) as sock:
                    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                return max(size - _count(self.fd, termios.TIOCOUTQ), 0)
            size = fcntl.fcntl(self.fd, fcntl.F_GETPIPE_SZ)
            return max(size - _count(self.fd, termios.FIONREAD), 0)
        except OSError:
            return 1


class Filter:
    """One filter of a queue: an epoll whose entries are the registrations of this filter."""

    def __init__(self, number: int) -> None:
        self._number = number
        read = platform_select.EPOLLIN | platform_select.EPOLLRDHUP
        self._mask = read if number == FILTER_READ else platform_select.EPOLLOUT
        self._known: dict[int, _Registration] = {}
        self._files: set[int] = set()
        self.epoll = platform_select.epoll()

    def has_files(self) -> bool:
        return bool(self._files)

    def change(self, change: Kevent) -> None:
        """Apply one entry of a changelist. Raises OSError (EBADF, ENOENT, EINVAL)."""
        found = _Registration.of(change.ident)
        known = self._known.get(found.fd)
        if known is not None and known.file != found.file:
            self._forget(known)
            known = None
        if known is None and (change.flags & EV_DELETE or not change.flags & EV_ADD):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if change.flags & EV_DELETE:
            assert known is not None
            self._remove(known)
            return
        if known is None and found.is_socket:
            found.connected = _is_connected(found.fd)
        registration = known or found
        registration.udata = change.udata
        if change.flags & EV_ADD:
            registration.flags = change.flags & _REPORTED_FLAGS
            registration.last_size = 0
        if change.flags & EV_DISABLE:
            registration.enabled = False
        elif change.flags & (EV_ADD | EV_ENABLE):
            registration.enabled = True
        if change.flags & EV_ADD:
            self._enter(registration)
        elif registration.enabled:
            self._arm(registration)

    def events(self, room: int) -> list[Kevent]:
        """Up to `room` events, at least 1, that are there now."""
        found: list[Kevent] = []
        for fd, mask in self.epoll.poll(0, min(room, len(self._known) + 1)):
            registration = self._known.get(fd)
            if registration is None:
                continue
            if not registration.is_alive():
                self._forget(registration)
            elif registration.enabled:
                found.append(self._report(registration, mask))
        return found + self._file_events(room - len(found))

    def _file_events(self, room: int) -> list[Kevent]:
        found: list[Kevent] = []
        for registration in [self._known[fd] for fd in self._files]:
            if not registration.is_alive():
                self._forget(registration)
            elif registration.enabled and len(found) < room:
                size = registration.bytes_to_read()
                if size and size != registration.last_size:
                    registration.last_size = size if registration.flags & EV_CLEAR else 0
                    found.append(self._report(registration, 0))
        return found

    def _report(self, registration: _Registration, mask: int) -> Kevent:
        reading = self._number == FILTER_READ
        data = registration.bytes_to_read() if reading else registration.space_to_write()
        flags, fflags = registration.flags, 0
        if registration.is_socket:
            ends = platform_select.EPOLLHUP | (platform_select.EPOLLRDHUP if reading else 0)
        else:
            ends = platform_select.EPOLLHUP | platform_select.EPOLLERR
        if mask & ends:
            flags |= EV_EOF
            if registration.is_socket and mask & platform_select.EPOLLERR:
                fflags = errno.ECONNRESET if registration.connected else errno.ECONNREFUSED
        elif not mask & platform_select.EPOLLERR:
            registration.connected = True
        self._follow_up(registration)
        return Kevent(registration.fd, self._number, flags, fflags, data, registration.udata)

    def _follow_up(self, registration: _Registration) -> None:
        try:
            if registration.flags & EV_ONESHOT:
                self._remove(registration)
            elif registration.flags & EV_DISPATCH:
                registration.enabled = False
            elif not registration.flags & EV_CLEAR:
                self._arm(registration)
        except OSError:  # another thread has closed it in the meantime
            self._forget(registration)

    def _enter(self, registration: _Registration) -> None:
        fd = registration.fd
        if registration.is_file:
            if self._number != FILTER_READ:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._files.add(fd)
        else:
            try:
                self.epoll.register(fd, self._mask_of(registration))
            except FileExistsError:
                self.epoll.modify(fd, self._mask_of(registration))
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ELOOP):  # cannot be polled
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
                raise
        self._known[fd] = registration

    def _arm(self, registration: _Registration) -> None:
        if not registration.is_file:
            try:
                self.epoll.modify(registration.fd, self._mask_of(registration))
            except OSError:
                self._forget(registration)
                raise

    def _mask_of(self, registration: _Registration) -> int:
        edge = registration.flags & EV_CLEAR
        once = platform_select.EPOLLET if edge else platform_select.EPOLLONESHOT
        return int(self._mask | once)

    def _remove(self, registration: _Registration) -> None:
        self._forget(registration)
        if not registration.is_file:
            self.epoll.unregister(registration.fd)

    def _forget(self, registration: _Registration) -> None:
        self._known.pop(registration.fd, None)
        self._files.discard(registration.fd)
