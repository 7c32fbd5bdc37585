"""TLS context options: what they take, what they refuse, and that they keep it to themselves."""

import concurrent.futures
import os
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from aws_io_async import errors
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_context import (
    TlsCipherPreference,
    TlsContext,
    TlsContextOptions,
    TlsMinimumVersion,
)
from tests.certificates import identity, issue
from tests.tls_peers import (
    HOST,
    asking_server,
    client_of,
    handshake,
    server_of,
    trusting,
)

# Certificates and keys


def mtls_context(certificate: bytes, key: bytes) -> TlsContext:
    return TlsContext.client(TlsContextOptions.client_mtls(certificate, key))


def assert_usable(ca: trustme.CA, certificate: bytes, key: bytes) -> None:
    server = TlsContext.server(TlsContextOptions.default_server(certificate, key))
    handshake(client_of(ca), server)


@pytest.fixture
def reencoded(ca: trustme.CA) -> Callable[..., tuple[bytes, bytes]]:
    """An identity with its key in another form."""

    def make(
        key_type: trustme.KeyType,
        form: PrivateFormat,
        encryption: KeySerializationEncryption | None = None,
    ) -> tuple[bytes, bytes]:
        certificate, key = identity(ca.issue_cert(HOST, key_type=key_type))
        loaded = load_pem_private_key(key, None)
        return certificate, loaded.private_bytes(Encoding.PEM, form, encryption or NoEncryption())

    return make


@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_pkcs8_import(
    ca: trustme.CA, reencoded: Callable[..., tuple[bytes, bytes]], key_type: trustme.KeyType
) -> None:
    certificate, key = reencoded(key_type, PrivateFormat.PKCS8)
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert_usable(ca, certificate, key)


def test_ecc_cert_import(ca: trustme.CA, reencoded: Callable[..., tuple[bytes, bytes]]) -> None:
    certificate, key = reencoded(trustme.KeyType.ECDSA, PrivateFormat.TraditionalOpenSSL)
    assert key.startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert_usable(ca, certificate, key)


def test_pkcs1_import(ca: trustme.CA, reencoded: Callable[..., tuple[bytes, bytes]]) -> None:
    certificate, key = reencoded(trustme.KeyType.RSA, PrivateFormat.TraditionalOpenSSL)
    assert key.startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert_usable(ca, certificate, key)


def test_comments_around_certificates_do_not_matter(ca: trustme.CA) -> None:
    certificate, key = identity(ca.issue_cert(HOST))
    noise = "# Zürich\r\n".encode()
    assert_usable(ca, noise + certificate.replace(b"\n", b"\r\n"), noise + key)
    options = TlsContextOptions.default_client()
    options.override_default_trust_store(noise + ca.cert_pem.bytes())
    handshake(TlsContext.client(options), server_of(ca))


def test_concurrent_cert_import(ca: trustme.CA) -> None:
    identities = [identity(ca.issue_cert(HOST)) for _ in range(8)]
    together = threading.Barrier(len(identities))

    def build(certificate: bytes, key: bytes) -> TlsContext:
        together.wait()
        return TlsContext.server(TlsContextOptions.default_server(certificate, key))

    with concurrent.futures.ThreadPoolExecutor(len(identities)) as pool:
        servers = list(pool.map(build, *zip(*identities, strict=True)))
    for server, (certificate, _) in zip(servers, identities, strict=True):
        ours, _ = handshake(client_of(ca), server)
        der = ours.ssl_object.getpeercert(binary_form=True)
        assert der == ssl.PEM_cert_to_DER_cert(certificate.decode())


def test_duplicate_cert_import(ca: trustme.CA) -> None:
    options = TlsContextOptions.default_server(*identity(ca.issue_cert(HOST)))
    first, second = TlsContext.server(options), TlsContext.server(options)
    assert first.ssl_context is not second.ssl_context
    for server in (first, second):
        handshake(client_of(ca), server)


def test_from_paths(ca: trustme.CA, tmp_path: Path) -> None:
    certificate, key = identity(ca.issue_cert(HOST))
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "both.pem").write_bytes(key + certificate)
    both = str(tmp_path / "both.pem")
    for options in (
        TlsContextOptions.default_server_from_path(tmp_path / "cert.pem", tmp_path / "key.pem"),
        TlsContextOptions.default_server_from_path(both, both),
    ):
        handshake(client_of(ca), TlsContext(options))
    client = TlsContextOptions.client_mtls_from_path(tmp_path / "cert.pem", tmp_path / "key.pem")
    handshake(TlsContext(trusting(ca, client)), asking_server(ca, ca))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        TlsContextOptions.client_mtls_from_path(tmp_path / "nowhere.pem", tmp_path / "key.pem")


def test_a_key_of_another_certificate_is_refused(ca: trustme.CA) -> None:
    certificate, _ = identity(ca.issue_cert(HOST))
    _, key = identity(ca.issue_cert(HOST))
    with pytest.raises(errors.TlsContextError, match="private key") as caught:
        mtls_context(certificate, key)
    assert caught.value.code is ErrorCode.IO_TLS_CTX_ERROR
    assert caught.value.reason == "KEY_VALUES_MISMATCH"


def test_a_weak_key_is_refused(ca: trustme.CA) -> None:
    weak = issue(ca, HOST, key=rsa.generate_private_key(65537, 1024))
    with pytest.raises(errors.TlsContextError, match="EE_KEY_TOO_SMALL"):
        mtls_context(*weak)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused(
    reencoded: Callable[..., tuple[bytes, bytes]], form: PrivateFormat
) -> None:
    certificate, key = reencoded(trustme.KeyType.ECDSA, form, BestAvailableEncryption(b"secret"))
    refusal = errors.FileValidationError, errors.PemMalformedError  # the old form is no base64
    with pytest.raises(refusal, match=r"private key.*(decrypt|encrypted)"):
        TlsContextOptions.client_mtls(certificate, key)


def test_what_is_no_pem_is_refused_at_once(ca: trustme.CA) -> None:
    certificate, key = identity(ca.issue_cert(HOST))
    with pytest.raises(errors.PemMalformedError, match="certificate"):
        TlsContextOptions.client_mtls(b"no certificate", key)
    with pytest.raises(errors.FileValidationError, match="private key: none among CERTIFICATE"):
        TlsContextOptions.default_server(certificate, certificate)
    with pytest.raises(TypeError, match="certificate must be bytes, got str"):
        TlsContextOptions.client_mtls(certificate.decode(), key)  # type: ignore[arg-type] # refused


def test_pem_that_holds_no_certificate_is_refused(ca: trustme.CA) -> None:
    _, key = identity(ca.issue_cert(HOST))
    junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(errors.TlsContextError, match="certificate and private key"):
        mtls_context(junk, key)
    options = TlsContextOptions.default_client()
    options.override_default_trust_store(junk)
    with pytest.raises(errors.TlsContextError, match="trust store"):
        TlsContext(options)


def test_keys_are_never_in_a_file_with_a_name(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = identity(ca.issue_cert(HOST))
    other_certificate, _ = identity(ca.issue_cert(HOST))
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, certfile: str, keyfile: str) -> None:
        modes.extend(os.stat(path).st_mode & 0o777 for path in (certfile, keyfile))
        assert os.listdir(tmp_path) == []
        load(self, certfile, keyfile)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # What FrozenSSLContext wraps was looked up when it was defined: watch its own method.
    monkeypatch.setattr("aws_io_async._ssl_context.FrozenSSLContext.load_cert_chain", spy)
    mtls_context(certificate, key)
    with pytest.raises(errors.TlsContextError):
        mtls_context(other_certificate, key)
    assert modes == [0o600] * 4
    assert os.listdir(tmp_path) == []


def test_nothing_shows_a_key(ca: trustme.CA) -> None:
    certificate, key = identity(ca.issue_cert(HOST))
    options = TlsContextOptions.client_mtls(certificate, key)
    body = key.splitlines()[1].decode()
    other_certificate, _ = identity(ca.issue_cert(HOST))
    with pytest.raises(errors.TlsContextError) as caught:
        mtls_context(other_certificate, key)
    shown = f"{options!r} {options.settings!r} {TlsContext(options)!r} {caught.value!r}"
    assert "TlsContextOptions of a client with certificate" in shown
    assert body not in shown


# Frozen


SETTERS: list[Callable[[TlsContextOptions], Any]] = [
    lambda options: options.set_verify_peer(False),
    lambda options: options.set_alpn_list("h2"),
    lambda options: options.set_no_certificate_revocation(True),
    lambda options: options.set_minimum_tls_version(TlsMinimumVersion.TLSv1_3),
    lambda options: options.set_tls_cipher_preference(TlsCipherPreference.SYSTEM_DEFAULT),
    lambda options: options.add_certificate_revocation_list(b"0"),
    lambda options: options.override_default_trust_store_from_path(ca_path="/"),
]


@pytest.mark.parametrize("setter", SETTERS)
def test_options_are_frozen_once_a_context_was_built(
    ca: trustme.CA, setter: Callable[[TlsContextOptions], Any]
) -> None:
    options = trusting(ca)
    copy = options.copy()
    TlsContext.client(options)
    with pytest.raises(errors.InvalidStateError, match=r"copy\(\)"):
        setter(options)
    setter(copy)
    setter(options.copy())


def test_options_that_failed_can_be_put_right(ca: trustme.CA) -> None:
    options = TlsContextOptions.default_client()
    with pytest.raises(errors.TlsContextError):
        TlsContext.server(options)
    options.override_default_trust_store(ca.cert_pem.bytes())
    handshake(TlsContext.client(options), server_of(ca))
