"""Echo servers with no event loop: epoll, sockets, and as little between them as Python allows.

What they reach is the most that a loop in Python could. They answer messages that are small enough
for one read and one write; the rest of one that is not is sent when there is room.
"""

import select
import socket
import ssl
from collections.abc import Callable

from ._serve_asyncio import READ, listening, server_context

EVENTS = 1024
WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Handlers = dict[int, Callable[[], None]]


def echo(poller: "select.epoll", handlers: Handlers, sock: socket.socket) -> Callable[[], None]:
    """What does the work of a connection when something has happened to it."""
    fd, recv, send, unsent = sock.fileno(), sock.recv, sock.send, bytearray()

    def close() -> None:
        poller.unregister(fd)
        del handlers[fd]
        sock.close()

    def flush() -> None:
        del unsent[: send(unsent)]
        poller.modify(fd, select.EPOLLIN | (select.EPOLLOUT if unsent else 0))

    def happened() -> None:
        try:
            if unsent:
                flush()
                return
            data = recv(READ)
            if not data:
                close()
                return
            try:
                sent = send(data)
            except WAITS:
                sent = 0
            if sent < len(data):
                unsent.extend(data[sent:])
                flush()
        except WAITS:
            pass
        except OSError:
            close()

    return happened


def serve_tcp(listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    poller, handlers = select.epoll(), Handlers()

    def accept() -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:  # reading makes the handshake
            sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        handlers[sock.fileno()] = echo(poller, handlers, sock)
        poller.register(sock.fileno(), select.EPOLLIN)

    handlers[listener.fileno()] = accept
    poller.register(listener.fileno(), select.EPOLLIN)
    poll = poller.poll
    while True:
        for fd, _ in poll(-1, EVENTS):
            handlers[fd]()


def serve_udp(sock: socket.socket) -> None:
    poller = select.epoll()
    poller.register(sock.fileno(), select.EPOLLIN)
    while True:
        poller.poll()
        data, address = sock.recvfrom(READ)
        sock.sendto(data, address)


def main(interface: str, certificate: str = "") -> None:
    if not hasattr(select, "epoll"):
        raise NotImplementedError("this system has no epoll")
    tls = server_context(certificate) if certificate else None
    datagrams = interface == "datagram"
    sock = listening(socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    print(sock.getsockname()[1], flush=True)
    if datagrams:
        serve_udp(sock)
    serve_tcp(sock, tls)
