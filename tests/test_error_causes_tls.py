"""What OpenSSL raises, translated into the library's errors: handshakes in memory that fail."""

import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from aws_io_async import errors
from aws_io_async.errors import ErrorCode

HOST = "causes.example"


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


class Side:
    """One side of a handshake in memory, and the error that it ended with."""

    def __init__(self, context: ssl.SSLContext, host: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_side = host is None
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_side, host)
        self.cause: ssl.SSLError | None = None

    def do(self, step: Callable[[], object]) -> None:
        try:
            step()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self.cause = self.cause or exc

    def read(self) -> None:
        self.do(lambda: self.ssl.read(1))

    def receive(self, data: bytes) -> None:
        self.incoming.write(data)
        self.do(self.ssl.do_handshake)

    @property
    def error(self) -> errors.TlsError:
        assert self.cause is not None
        error = errors.translate(self.cause, f"{HOST}:443")
        assert isinstance(error, errors.TlsError)
        assert errors.is_tls_error(error.code)
        assert error.__cause__ is self.cause
        assert error.detail.startswith(f"{HOST}:443: ")
        return error


def shake_hands(
    client: ssl.SSLContext, server: ssl.SSLContext, host: str = HOST
) -> tuple[Side, Side]:
    """Both sides, once neither has anything more to say."""
    sides = Side(client, host), Side(server, None)
    for _ in range(4):
        for side, other in (sides, sides[::-1]):
            side.do(side.ssl.do_handshake)
            other.incoming.write(side.outgoing.read())
    for side in sides:
        side.read()
    return sides


def assert_refused(side: Side, code: ErrorCode, verify_code: int) -> None:
    error = side.error
    assert error.code is code
    assert isinstance(error, errors.TlsCertificateError)
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert isinstance(side.cause, ssl.SSLCertVerificationError)
    assert error.verify_code == verify_code
    assert error.verify_message == side.cause.verify_message
    assert f"{error.verify_message} (OpenSSL verify code {verify_code})" in str(error)
    assert error.reason == "CERTIFICATE_VERIFY_FAILED"


def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """A server that shows the certificate of a CA as its own."""
    own = trustme.CA()
    own.cert_pem.write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


def revoke(ca: trustme.CA, certificate: trustme.LeafCert) -> str:
    """A revocation list of the CA's that names the certificate, as PEM."""
    parent = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    leaf = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    now = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    revoked = x509.RevokedCertificateBuilder().serial_number(leaf.serial_number)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(parent.subject)
        .last_update(now)
        .next_update(now + datetime.timedelta(days=36500))
        .add_revoked_certificate(revoked.revocation_date(now).build())
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type] # trustme's keys are for signing


class TestCertificates:
    def test_of_an_unknown_issuer(self, ca: trustme.CA) -> None:
        server = server_context(ca.issue_cert(HOST))
        client, peer = shake_hands(client_context(trustme.CA()), server)
        assert_refused(client, ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE, 20)
        assert peer.error.code is ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN

    def test_self_signed(self, ca: trustme.CA, tmp_path: Path) -> None:
        client, _ = shake_hands(client_context(ca), self_signed(tmp_path))
        assert_refused(client, ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE, 18)

    def test_expired(self, ca: trustme.CA) -> None:
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        server = server_context(ca.issue_cert(HOST, not_after=past))
        client, peer = shake_hands(client_context(ca), server)
        assert_refused(client, ErrorCode.IO_TLS_CERTIFICATE_EXPIRED, 10)
        assert peer.error.code is ErrorCode.IO_TLS_PEER_CERTIFICATE_EXPIRED

    def test_not_yet_valid(self, ca: trustme.CA) -> None:
        future = datetime.datetime(2990, 1, 1, tzinfo=datetime.UTC)
        later = future + datetime.timedelta(days=1)
        server = server_context(ca.issue_cert(HOST, not_before=future, not_after=later))
        client, _ = shake_hands(client_context(ca), server)
        assert_refused(client, ErrorCode.IO_TLS_CERTIFICATE_NOT_YET_VALID, 9)

    def test_revoked(self, ca: trustme.CA) -> None:
        certificate = ca.issue_cert(HOST)
        context = client_context(ca)
        context.load_verify_locations(cadata=ca.cert_pem.bytes().decode())
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        with trustme.Blob(revoke(ca, certificate).encode()).tempfile() as path:
            context.load_verify_locations(path)
        client, peer = shake_hands(context, server_context(certificate))
        assert_refused(client, ErrorCode.IO_TLS_PEER_CERTIFICATE_REVOKED, 23)
        assert peer.error.code is ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED

    @pytest.mark.parametrize(("host", "number"), [("other.example", 62), ("127.0.0.1", 64)])
    def test_of_another_host(self, ca: trustme.CA, host: str, number: int) -> None:
        server = server_context(ca.issue_cert(HOST))
        client, peer = shake_hands(client_context(ca), server, host)
        assert_refused(client, ErrorCode.IO_TLS_HOST_NAME_MISMATCH, number)
        assert host in str(client.error)
        assert peer.error.code is ErrorCode.IO_TLS_BAD_PEER_CERTIFICATE
        assert isinstance(peer.error, errors.TlsAlertError)
        assert not isinstance(peer.error, ssl.SSLCertVerificationError)

    def test_of_a_client_with_an_unknown_issuer(self, ca: trustme.CA) -> None:
        server, context = server_context(ca.issue_cert(HOST)), client_context(ca)
        server.verify_mode = ssl.CERT_REQUIRED
        trustme.CA().issue_cert("client").configure_cert(context)
        client, peer = shake_hands(context, server)
        assert client.error.code is ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN
        assert_refused(peer, ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE, 20)

    def test_that_a_client_has_not(self, ca: trustme.CA) -> None:
        server = server_context(ca.issue_cert(HOST))
        server.verify_mode = ssl.CERT_REQUIRED
        client, peer = shake_hands(client_context(ca), server)
        assert client.error.code is ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED
        assert peer.error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert peer.error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


class TestHandshakes:
    def test_without_a_common_version(self, ca: trustme.CA) -> None:
        server, context = server_context(ca.issue_cert(HOST)), client_context(ca)
        server.maximum_version = ssl.TLSVersion.TLSv1_2
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        client, peer = shake_hands(context, server)
        assert client.error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert peer.error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert peer.error.reason == "UNSUPPORTED_PROTOCOL"
        assert "UNSUPPORTED_PROTOCOL" in str(peer.error)

    def test_without_a_common_cipher(self, ca: trustme.CA) -> None:
        server, context = server_context(ca.issue_cert(HOST)), client_context(ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        server.set_ciphers("ECDHE+AES128")
        context.set_ciphers("ECDHE+AES256")
        client, peer = shake_hands(context, server)
        assert client.error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert peer.error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert peer.error.reason == "NO_SHARED_CIPHER"

    def test_with_a_peer_that_speaks_http(self, ca: trustme.CA) -> None:
        server = Side(server_context(ca.issue_cert(HOST)), None)
        server.receive(b"GET / HTTP/1.1\r\nHost: causes.example\r\n\r\n")
        assert server.error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert server.error.reason == "HTTP_REQUEST"
        client = Side(client_context(ca), HOST)
        client.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert client.error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert client.error.reason == "WRONG_VERSION_NUMBER"
        assert client.error.verify_code == 0

    @pytest.mark.parametrize(
        ("alert", "code"),
        [
            (10, ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED),  # unexpected_message
            (40, ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE),  # handshake_failure
            (42, ErrorCode.IO_TLS_BAD_PEER_CERTIFICATE),
            (44, ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED),  # certificate_revoked
            (45, ErrorCode.IO_TLS_PEER_CERTIFICATE_EXPIRED),
            (46, ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN),
            (48, ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN),  # unknown_ca
            (70, ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE),  # protocol_version
            (112, ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE),  # unrecognized_name
            (120, ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE),  # no_application_protocol
        ],
    )
    def test_that_an_alert_ends(self, ca: trustme.CA, alert: int, code: ErrorCode) -> None:
        client = Side(client_context(ca), HOST)
        client.do(client.ssl.do_handshake)
        client.receive(bytes([0x15, 3, 3, 0, 2, 2, alert]))  # a fatal alert, RFC 8446, 6
        assert client.error.code is code
        assert client.error.reason.startswith(("TLSV1_", "SSLV3_"))

    def test_an_alert_is_named_even_if_python_does_not_know_it(self, ca: trustme.CA) -> None:
        client = Side(client_context(ca), HOST)
        client.do(client.ssl.do_handshake)
        client.receive(bytes([0x15, 3, 3, 0, 2, 2, 120]))
        assert client.error.reason == "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"

    def test_that_the_network_ends(self, ca: trustme.CA) -> None:
        client = Side(client_context(ca), HOST)
        client.do(client.ssl.do_handshake)
        client.incoming.write_eof()
        client.do(client.ssl.do_handshake)
        assert client.error.code is ErrorCode.IO_TLS_CLOSED_ABORT
        assert isinstance(client.error, ssl.SSLEOFError)


class TestTlsConnections:
    def test_closed_by_the_peer(self, ca: trustme.CA) -> None:
        client = Side(client_context(ca), HOST)
        client.do(client.ssl.do_handshake)
        client.receive(bytes([0x15, 3, 3, 0, 2, 1, 0]))  # close_notify
        assert client.error.code is ErrorCode.IO_TLS_CLOSED_GRACEFUL
        assert isinstance(client.error, ssl.SSLZeroReturnError)

    def test_nothing_to_read_yet(self, ca: trustme.CA) -> None:
        client, _ = shake_hands(client_context(ca), server_context(ca.issue_cert(HOST)))
        with pytest.raises(ssl.SSLWantReadError) as caught:
            client.ssl.read(1)
        assert errors.translate(caught.value).code is ErrorCode.IO_READ_WOULD_BLOCK

    def test_a_record_that_was_tampered_with(self, ca: trustme.CA) -> None:
        client, peer = shake_hands(client_context(ca), server_context(ca.issue_cert(HOST)))
        peer.ssl.write(b"secret")
        record = bytearray(peer.outgoing.read())
        record[-1] ^= 1
        client.incoming.write(record)
        client.read()
        assert client.cause is not None
        error = errors.translate(client.cause, fallback=ErrorCode.IO_TLS_ERROR_READ_FAILURE)
        assert error.code is ErrorCode.IO_TLS_ERROR_READ_FAILURE

    def test_a_context_without_a_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "empty.pem").write_text("nothing\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for load in (context.load_verify_locations, context.load_cert_chain):
            with pytest.raises(ssl.SSLError) as caught:
                load(tmp_path / "empty.pem")
            error = errors.translate(caught.value, "empty.pem")
            assert error.code is ErrorCode.IO_TLS_CTX_ERROR
            assert isinstance(error, ValueError)

    def test_a_context_with_another_key(self, ca: trustme.CA, tmp_path: Path) -> None:
        ca.issue_cert(HOST).cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        ca.issue_cert(HOST).private_key_pem.write_to_path(tmp_path / "key.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pytest.raises(ssl.SSLError) as caught:
            context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        assert errors.translate(caught.value).code is ErrorCode.IO_TLS_CTX_ERROR
