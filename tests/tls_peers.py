"""Both ends of TLS connections in memory."""

import trustme

from aws_io_async._tls_engine import TlsEngine
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions
from tests.certificates import identity

HOST = "peer.example"


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
