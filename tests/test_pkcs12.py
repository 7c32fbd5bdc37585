"""Certificates and keys from PKCS#12 files."""

import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    KeySerializationEncryption,
    NoEncryption,
    load_pem_private_key,
    pkcs12,
)

from aws_io_async import errors
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_context import TlsContext, TlsContextOptions
from tests.certificates import loaded
from tests.tls_peers import HOST, asking_server, client_of, handshake, trusting

PASSWORD = "pässword"


def store(
    leaf: trustme.LeafCert,
    encryption: KeySerializationEncryption | None = None,
    *,
    with_key: bool = True,
    with_certificate: bool = True,
) -> bytes:
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    issuers = [x509.load_pem_x509_certificate(pem.bytes()) for pem in leaf.cert_chain_pems[1:]]
    return pkcs12.serialize_key_and_certificates(
        b"peer",
        key if with_key else None,
        loaded(leaf) if with_certificate else None,
        issuers or None,
        encryption or BestAvailableEncryption(PASSWORD.encode()),
    )


@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_a_server_with_a_chain(ca: trustme.CA, key_type: trustme.KeyType) -> None:
    leaf = ca.create_child_ca().issue_cert(HOST, key_type=key_type)
    options = TlsContextOptions.server_pkcs12(store(leaf), PASSWORD)
    server = TlsContext(options)
    assert server.server_side
    handshake(client_of(ca), server)


def test_a_client(ca: trustme.CA) -> None:
    data = store(ca.issue_cert("client@peer.example"))
    options = trusting(ca, TlsContextOptions.client_mtls_pkcs12(data, PASSWORD.encode()))
    _, theirs = handshake(TlsContext(options), asking_server(ca, ca))
    assert theirs.peer_certificate is not None


def test_from_paths(ca: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "peer.p12"
    path.write_bytes(store(ca.issue_cert(HOST)))
    server = TlsContext(TlsContextOptions.server_pkcs12_from_path(path, PASSWORD))
    handshake(client_of(ca), server)
    client = TlsContextOptions.client_mtls_pkcs12_from_path(str(path), PASSWORD)
    handshake(TlsContext(trusting(ca, client)), asking_server(ca, ca))


def test_a_file_without_a_password(ca: trustme.CA) -> None:
    data = store(ca.issue_cert(HOST), NoEncryption())
    handshake(client_of(ca), TlsContext(TlsContextOptions.server_pkcs12(data, None)))


@pytest.mark.parametrize("password", ["wrong", "", None])
def test_a_wrong_password(ca: trustme.CA, password: str | None) -> None:
    with pytest.raises(errors.TlsContextError, match=r"PKCS#12.*password") as caught:
        TlsContextOptions.client_mtls_pkcs12(store(ca.issue_cert(HOST)), password)
    assert caught.value.code is ErrorCode.IO_TLS_CTX_ERROR
    assert PASSWORD not in str(caught.value)


def test_damaged_data(ca: trustme.CA) -> None:
    data = store(ca.issue_cert(HOST))
    for damaged in (b"", b"no PKCS#12", data[:-1], data[: len(data) // 2]):
        with pytest.raises(errors.TlsContextError, match="PKCS#12"):
            TlsContextOptions.server_pkcs12(damaged, PASSWORD)


def test_both_a_key_and_its_certificate_are_needed(ca: trustme.CA) -> None:
    leaf = ca.issue_cert(HOST)
    with pytest.raises(errors.TlsContextError, match="no private key"):
        TlsContextOptions.client_mtls_pkcs12(store(leaf, with_key=False), PASSWORD)
    with pytest.raises(errors.TlsContextError, match="no certificate"):
        TlsContextOptions.client_mtls_pkcs12(store(leaf, with_certificate=False), PASSWORD)


def test_the_extra_is_named_if_it_is_missing(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = store(ca.issue_cert(HOST))
    for name in list(sys.modules):
        if name.partition(".")[0] == "cryptography":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"aws-io-async\[pkcs12\]"):
        TlsContextOptions.client_mtls_pkcs12(data, PASSWORD)
