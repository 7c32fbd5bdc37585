"""TLS engines in memory, with OpenSSL itself at the other end of the wire."""

import random
import ssl
from collections.abc import Callable, Iterator

import pytest
import trustme

from aws_io_async._tls_engine import TlsEngine
from aws_io_async._tls_state import TlsState
from tests.tls_peers import HOST, TLS12, TLS13, Peer

Split = Callable[[bytes], Iterator[bytes]]


def record_fault(reason: str) -> str:
    """What OpenSSL calls a fault of a record: from 3.2 on, it only says that it was one."""
    return reason if ssl.OPENSSL_VERSION_INFO < (3, 2) else "RECORD_LAYER_FAILURE"


def server_context(ca: trustme.CA, version: ssl.TLSVersion = TLS13) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = context.maximum_version = version
    ca.issue_cert(HOST).configure_cert(context)
    return context


def client_context(ca: trustme.CA, version: ssl.TLSVersion = TLS13) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    ca.configure_trust(context)
    return context


class Wire:
    """An engine and its peer, and the bytes between them."""

    def __init__(self, engine_context: ssl.SSLContext, peer_context: ssl.SSLContext) -> None:
        server_side = engine_context.protocol is ssl.PROTOCOL_TLS_SERVER
        hostname = None if server_side else HOST
        self.engine = TlsEngine(engine_context, server_side=server_side, server_hostname=hostname)
        self.peer = Peer(peer_context)

    def state(self) -> TlsState:
        return self.engine.state

    def to_engine(self) -> None:
        self.engine.receive_data(self.peer.outgoing.read())

    def to_peer(self) -> None:
        self.peer.incoming.write(self.engine.data_to_send())

    def handshake(self) -> "Wire":
        """Shake hands; what OpenSSL says behind that (session tickets) is read as well."""
        ours = theirs = False
        while not (ours and theirs):
            ours = ours or self.engine.handshake()
            self.to_peer()
            theirs = theirs or self.peer.handshake()
            self.to_engine()
        assert self.engine.read_available() is None
        assert self.peer.read() == b""
        return self


@pytest.fixture(params=[TLS12, TLS13], ids=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return ssl.TLSVersion(request.param)


@pytest.fixture(params=["server", "client"])
def contexts(
    request: pytest.FixtureRequest, ca: trustme.CA, version: ssl.TLSVersion
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The engine's context and the peer's."""
    pair = server_context(ca, version), client_context(ca, version)
    return pair if request.param == "server" else pair[::-1]


@pytest.fixture
def wire(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Wire:
    """A connection whose handshake is done."""
    return Wire(*contexts).handshake()


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def single_bytes(data: bytes) -> Iterator[bytes]:
    for i in range(len(data)):
        yield data[i : i + 1]


def randomly(seed: int) -> Split:
    def split(data: bytes) -> Iterator[bytes]:
        chooser = random.Random(seed)
        while data:
            size = chooser.choice([1, 4, 5, 6, 100, 5000, 20000])
            yield data[:size]
            data = data[size:]

    return split
