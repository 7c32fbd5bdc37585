"""Real servers for the commands to talk to: threads with blocking sockets, and openssl."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.certificates import Identity

Serve = Callable[[socket.socket], object]
"""What is done with one connection, which is closed afterwards."""


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


@contextmanager
def serving(
    serve: Serve = echo,
    tls: ssl.SSLContext | None = None,
    address: tuple[str, int] = ("127.0.0.1", 0),
) -> Iterator[int]:
    """A server, one connection after the other; yields its port."""
    listener = socket.create_server(address)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the end
                return
            with connection:
                connection.settimeout(30)
                try:
                    if tls is None:
                        serve(connection)
                    else:
                        with tls.wrap_socket(connection, server_side=True) as secured:
                            serve(secured)
                            secured.unwrap().close()
                except OSError:
                    pass  # the client has gone, or has not liked what it saw

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    """With a certificate for localhost, or for other names."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*(names or ["localhost"])).configure_cert(context)
    return context


def context_of(identity: Identity, folder: Path) -> ssl.SSLContext:
    """With a certificate that is not trustme's."""
    file = folder / "identity.pem"
    file.write_bytes(b"".join(identity))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def authority_file(ca: trustme.CA, folder: Path) -> Path:
    """What clients trust the authority by."""
    path = folder / "ca.pem"
    path.write_bytes(ca.cert_pem.bytes())
    return path
