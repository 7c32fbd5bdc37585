"""Both ends of TLS connections in memory, and the certificates that they present."""

import datetime

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from aws_io_async._tls_engine import TlsEngine
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions

HOST = "peer.example"
DAY = datetime.timedelta(days=1)


# Contexts


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


# Certificates


def identity(leaf: trustme.LeafCert) -> tuple[bytes, bytes]:
    """Certificate chain and private key, as `client_mtls` and `default_server` take them."""
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()


def loaded(leaf: trustme.LeafCert) -> x509.Certificate:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())


def authority(ca: trustme.CA) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The authority's own certificate, and the key that it signs with."""
    key = load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(ca.cert_pem.bytes()), key


def leaf_with(ca: trustme.CA, extension: x509.ExtensionType) -> tuple[bytes, bytes]:
    """Certificate and key of HOST, with an extension that trustme would not make."""
    issuer, issuer_key = authority(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=True)
        .add_extension(extension, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def revocation_list(
    ca: trustme.CA, *revoked: trustme.LeafCert, issued_days_ago: float = 1
) -> x509.CertificateRevocationList:
    """A list of `ca`'s, good for two days from when it was issued."""
    issuer, key = authority(ca)
    issued = datetime.datetime.now(datetime.UTC) - DAY * issued_days_ago
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(issued)
        .next_update(issued + DAY * 2)
    )
    for leaf in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(loaded(leaf).serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(issued).build())
    return builder.sign(key, hashes.SHA256())
