"""Both ends of TLS connections in memory."""

import ssl

import trustme

from aws_io_async._tls_engine import TlsEngine
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions
from tests.certificates import identity

HOST = "peer.example"

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def server_of(ca: trustme.CA, *names: str) -> TlsContext:
    """A server with a certificate for `names`, by default HOST."""
    leaf = ca.issue_cert(*(names or [HOST]))
    return TlsContext.server(TlsContextOptions.default_server(*identity(leaf)))


def asking_server(ca: trustme.CA, clients: trustme.CA) -> TlsContext:
    """A server that admits clients with a certificate of `clients` only."""
    options = trusting(clients, TlsContextOptions.default_server(*identity(ca.issue_cert(HOST))))
    options.set_verify_peer(True)
    return TlsContext.server(options)


def trusting(ca: trustme.CA, options: TlsContextOptions | None = None) -> TlsContextOptions:
    """Options, by default those of a client, that trust `ca` alone."""
    options = options or TlsContextOptions.default_client()
    options.override_default_trust_store(ca.cert_pem.bytes())
    return options


def client_of(ca: trustme.CA) -> TlsContext:
    """A client that trusts `ca` alone."""
    return TlsContext.client(trusting(ca))


def presenting_client(ca: trustme.CA, issuer: trustme.CA) -> TlsContext:
    """A client that trusts `ca` alone, and has a certificate of `issuer`."""
    leaf = issuer.issue_cert("client@peer.example")
    return TlsContext.client(trusting(ca, TlsContextOptions.client_mtls(*identity(leaf))))


def handshake(
    client: TlsContext | TlsConnectionOptions, server: TlsContext
) -> tuple[TlsEngine, TlsEngine]:
    """Shake hands; returns the client's end and the server's. Raises what the first to fail did."""
    options = TlsConnectionOptions(client, HOST) if isinstance(client, TlsContext) else client
    context = options.effective_context.ssl_context
    ours = TlsEngine(context, server_side=False, server_hostname=options.server_name)
    theirs = TlsEngine(server.ssl_context, server_side=True)
    done = False
    while not done:
        done = ours.handshake()
        theirs.receive_data(ours.data_to_send())
        done = theirs.handshake() and done
        ours.receive_data(theirs.data_to_send())
    return ours, theirs


class Peer:
    """The other side: an SSLObject, used as the ssl module's documentation has it.

    `name` is the server's name that a client asks for.
    """

    def __init__(self, context: ssl.SSLContext, name: str | None = HOST) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_side = context.protocol is ssl.PROTOCOL_TLS_SERVER
        self.ssl = context.wrap_bio(
            self.incoming, self.outgoing, server_side, None if server_side else name
        )

    def handshake(self) -> bool:
        """Go on with the handshake; says whether it is finished."""
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self, ciphertext: bytes = b"") -> bytes:
        """All plaintext that has come."""
        self.incoming.write(ciphertext)
        data = b""
        try:
            while chunk := self.ssl.read(1 << 20):
                data += chunk
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return data

    def write(self, data: bytes) -> bytes:
        """The ciphertext of one record for each 16 KiB of data."""
        self.ssl.write(data)
        return self.outgoing.read()

    def say_close(self) -> None:
        """Have close_notify in `outgoing`."""
        try:
            self.ssl.unwrap()
        except ssl.SSLWantReadError:
            pass

    def close(self) -> bytes:
        """The ciphertext of close_notify."""
        self.say_close()
        return self.outgoing.read()

    def has_been_closed(self, ciphertext: bytes) -> bool:
        """Whether the ciphertext ends in close_notify."""
        self.incoming.write(ciphertext)
        try:
            while self.ssl.read(1 << 20):
                pass
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            return True
        return True


def openssl_client_hello() -> bytes:
    """What a client of the ssl module says first."""
    peer = Peer(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    peer.handshake()
    return peer.outgoing.read()
