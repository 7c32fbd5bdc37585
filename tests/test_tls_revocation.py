"""Certificate revocation lists of a TLS context."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding

from aws_io_async import errors
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_context import TlsContext, TlsContextOptions
from tests.certificates import identity, revocation_list
from tests.tls_peers import HOST, handshake, trusting


@pytest.fixture(scope="module")
def good(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert(HOST)


@pytest.fixture(scope="module")
def bad(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert(HOST)


def server_with(leaf: trustme.LeafCert) -> TlsContext:
    return TlsContext(TlsContextOptions.default_server(*identity(leaf)))


def refusal(client: TlsContextOptions, server: TlsContext) -> errors.AwsIoError:
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        handshake(TlsContext.client(client), server)
    return errors.translate(caught.value)


def test_without_a_list_nothing_is_revoked(ca: trustme.CA, bad: trustme.LeafCert) -> None:
    handshake(TlsContext.client(trusting(ca)), server_with(bad))


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_revoked_certificate_is_refused_and_others_are_not(
    ca: trustme.CA, good: trustme.LeafCert, bad: trustme.LeafCert, encoding: Encoding
) -> None:
    options = trusting(ca)
    options.add_certificate_revocation_list(revocation_list(ca, bad).public_bytes(encoding))
    error = refusal(options, server_with(bad))
    assert error.code is ErrorCode.IO_TLS_PEER_CERTIFICATE_REVOKED
    handshake(TlsContext.client(options), server_with(good))


def test_a_list_may_be_in_a_file(ca: trustme.CA, bad: trustme.LeafCert, tmp_path: Path) -> None:
    path = tmp_path / "ca.crl"
    path.write_bytes(revocation_list(ca, bad).public_bytes(Encoding.DER))
    options = trusting(ca)
    options.add_certificate_revocation_list_from_path(path)
    path.unlink()
    refusal(options, server_with(bad))


def test_lists_can_be_ignored(ca: trustme.CA, bad: trustme.LeafCert) -> None:
    options = trusting(ca)
    options.add_certificate_revocation_list(revocation_list(ca, bad).public_bytes(Encoding.PEM))
    options.set_no_certificate_revocation(True)
    handshake(TlsContext.client(options), server_with(bad))


def test_every_authority_needs_a_list_as_soon_as_one_has_one(
    ca: trustme.CA, good: trustme.LeafCert
) -> None:
    other = trustme.CA()
    options = TlsContextOptions.default_client()
    options.override_default_trust_store(ca.cert_pem.bytes() + other.cert_pem.bytes())
    options.add_certificate_revocation_list(revocation_list(other).public_bytes(Encoding.PEM))
    assert "unable to get certificate CRL" in str(refusal(options, server_with(good)))
    both = options.copy()
    both.add_certificate_revocation_list(revocation_list(ca).public_bytes(Encoding.PEM))
    handshake(TlsContext.client(both), server_with(good))
    handshake(TlsContext.client(both), server_with(other.issue_cert(HOST)))


def test_a_list_that_has_expired_vouches_for_nobody(ca: trustme.CA, good: trustme.LeafCert) -> None:
    options = trusting(ca)
    old = revocation_list(ca, issued_days_ago=3)
    options.add_certificate_revocation_list(old.public_bytes(Encoding.PEM))
    assert "CRL has expired" in str(refusal(options, server_with(good)))


def test_certificates_of_intermediate_authorities_are_not_looked_up(ca: trustme.CA) -> None:
    child = ca.create_child_ca()
    options = trusting(ca)
    options.add_certificate_revocation_list(revocation_list(child).public_bytes(Encoding.PEM))
    handshake(TlsContext.client(options), server_with(child.issue_cert(HOST)))


def test_servers_refuse_revoked_clients(ca: trustme.CA, good: trustme.LeafCert) -> None:
    revoked, valid = ca.issue_cert("a@peer.example"), ca.issue_cert("b@peer.example")
    options = trusting(ca, TlsContextOptions.default_server(*identity(good)))
    options.set_verify_peer(True)
    options.add_certificate_revocation_list(revocation_list(ca, revoked).public_bytes(Encoding.PEM))
    server = TlsContext(options)
    handshake(TlsContext(trusting(ca, TlsContextOptions.client_mtls(*identity(valid)))), server)
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        handshake(
            TlsContext(trusting(ca, TlsContextOptions.client_mtls(*identity(revoked)))), server
        )


def test_what_is_no_list_is_refused(ca: trustme.CA) -> None:
    options = trusting(ca)
    with pytest.raises(errors.FileValidationError, match="revocation list: none among CERTIFICATE"):
        options.add_certificate_revocation_list(ca.cert_pem.bytes())
    options.add_certificate_revocation_list(b"neither PEM nor DER")
    with pytest.raises(errors.TlsContextError, match="revocation list"):
        TlsContext.client(options)
