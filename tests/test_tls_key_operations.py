"""Handshakes of clients whose private key is elsewhere: somebody is asked for each signature."""

import gc
import ssl
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from aws_io_async import _openssl_keys
from aws_io_async._tls_engine import TlsEngine
from aws_io_async.errors import AwsIoError, Code, CommonErrorCode, ErrorCode
from aws_io_async.tls_context import TlsContext, TlsContextOptions, TlsMinimumVersion
from aws_io_async.tls_key_operations import (
    CustomKeyOpHandler,
    TlsHashAlgorithm,
    TlsKeyOperation,
    TlsKeyOperationType,
    TlsSignatureAlgorithm,
)
from tests.certificates import identity, issue
from tests.tls_channels import connecting, listening
from tests.tls_peers import HOST, asking_server, handshake, trusting

KINDS = list(trustme.KeyType)


class Signer(CustomKeyOpHandler):
    """Has the key here, and signs as it is asked to."""

    def __init__(self, private_key: bytes) -> None:
        self.key = load_pem_private_key(private_key, None)
        self.operations: list[TlsKeyOperation] = []
        self.threads: set[int] = set()

    def perform_operation(self, operation: TlsKeyOperation) -> None:
        self.operations.append(operation)
        self.threads.add(threading.get_ident())
        operation.complete(self.signature(operation))

    def signature(self, operation: TlsKeyOperation) -> bytes:
        assert operation.type is TlsKeyOperationType.SIGN
        assert len(operation.input) == operation.digest_algorithm.digest_size
        algorithm = utils.Prehashed(getattr(hashes, operation.digest_algorithm.name)())
        if operation.signature_algorithm is TlsSignatureAlgorithm.RSA:
            assert isinstance(self.key, rsa.RSAPrivateKey)
            return self.key.sign(operation.input, padding.PKCS1v15(), algorithm)
        assert isinstance(self.key, ec.EllipticCurvePrivateKey)
        return self.key.sign(operation.input, ec.ECDSA(algorithm))


class Refuser(Signer):
    """Fails in one way or another."""

    def __init__(self, private_key: bytes, how: str) -> None:
        super().__init__(private_key)
        self.how = how

    def perform_operation(self, operation: TlsKeyOperation) -> None:
        match self.how:
            case "raises":
                raise ZeroDivisionError("no token")
            case "completes with an error":
                operation.complete_with_error(ZeroDivisionError("no token"))
            case "returns":
                pass
            case "too long":
                operation.complete(bytes(10_000))
            case "empty":
                operation.complete(b"")
            case "wrong":
                operation.complete(bytes(reversed(self.signature(operation))))


def leaf(ca: trustme.CA, kind: trustme.KeyType) -> tuple[bytes, bytes]:
    return identity(ca.issue_cert("client.example", key_type=kind))


def client_options(
    ca: trustme.CA, certificate: bytes, handler: CustomKeyOpHandler
) -> TlsContextOptions:
    options = TlsContextOptions.client_mtls_with_custom_key_operations(handler, certificate)
    return trusting(ca, options)


def client(ca: trustme.CA, kind: trustme.KeyType) -> tuple[TlsContext, Signer]:
    certificate, private_key = leaf(ca, kind)
    signer = Signer(private_key)
    return TlsContext.client(client_options(ca, certificate, signer)), signer


def code_raised(options: TlsContextOptions) -> tuple[Code, str]:
    with pytest.raises(AwsIoError) as caught:
        TlsContext.client(options)
    return caught.value.code, caught.value.detail


# Handshakes


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_sees_the_certificate(ca: trustme.CA, kind: trustme.KeyType) -> None:
    context, signer = client(ca, kind)
    server = asking_server(ca, ca)
    for number in (1, 2):
        _, theirs = handshake(context, server)
        assert theirs.peer_certificate is not None
        assert theirs.peer_certificate["subjectAltName"] == (("DNS", "client.example"),)
        assert len(signer.operations) == number
    algorithm = {trustme.KeyType.RSA: "RSA", trustme.KeyType.ECDSA: "ECDSA"}[kind]
    assert str(signer.operations[0].signature_algorithm) == algorithm
    assert theirs.version == ("TLSv1.2" if kind is trustme.KeyType.RSA else "TLSv1.3")


def test_with_tls_1_2_too(ca: trustme.CA) -> None:
    context, signer = client(ca, trustme.KeyType.ECDSA)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(server)
    ca.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    _, theirs = handshake(context, TlsContext.from_ssl_context(server, server_side=True))
    assert theirs.version == "TLSv1.2"
    assert len(signer.operations) == 1


def test_a_server_that_does_not_ask_is_not_signed_for(ca: trustme.CA) -> None:
    context, signer = client(ca, trustme.KeyType.ECDSA)
    server = TlsContext.server(TlsContextOptions.default_server(*identity(ca.issue_cert(HOST))))
    handshake(context, server)
    assert signer.operations == []


def test_contexts_with_other_protocols_and_contexts_that_share_a_handler(ca: trustme.CA) -> None:
    certificate, private_key = leaf(ca, trustme.KeyType.ECDSA)
    signer, server = Signer(private_key), asking_server(ca, ca)
    options = client_options(ca, certificate, signer)
    first, second = TlsContext.client(options), TlsContext.client(options.copy())
    for context in (first, first.with_alpn("h2"), second):
        handshake(context, server)
    del first
    gc.collect()
    handshake(second, server)
    assert len(signer.operations) == 4


def test_from_many_threads(ca: trustme.CA) -> None:
    context, signer = client(ca, trustme.KeyType.RSA)
    server = asking_server(ca, ca)
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda _: handshake(context, server), range(40)))
    assert all(theirs.peer_certificate for _, theirs in ends)
    assert len(signer.operations) == 40


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_kept_once_the_contexts_are_gone(ca: trustme.CA, kind: trustme.KeyType) -> None:
    gc.collect()
    before = dict(_openssl_keys._handlers)
    context, signer = client(ca, kind)
    gone = weakref.ref(signer)
    ends = handshake(context, asking_server(ca, ca))
    del context, signer
    gc.collect()
    assert gone() is not None  # the connection has the context
    del ends
    gc.collect()
    assert gone() is None
    assert _openssl_keys._handlers == before


async def test_channels(ca: trustme.CA) -> None:
    context, signer = client(ca, trustme.KeyType.ECDSA)
    async with listening(asking_server(ca, ca)) as server, connecting(server, context):
        pass
    assert signer.threads == {threading.get_ident()}


# Failures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raises", ZeroDivisionError),
        ("completes with an error", ZeroDivisionError),
        ("returns", AwsIoError),
        ("too long", AwsIoError),
        ("empty", AwsIoError),
    ],
)
def test_what_the_handler_fails_with_is_the_cause(
    ca: trustme.CA, kind: trustme.KeyType, how: str, cause: type[BaseException]
) -> None:
    certificate, private_key = leaf(ca, kind)
    context = TlsContext.client(client_options(ca, certificate, Refuser(private_key, how)))
    server = asking_server(ca, ca)
    with pytest.raises(ssl.SSLError) as caught:
        handshake(context, server)
    assert isinstance(caught.value.__cause__, cause)
    with pytest.raises(ssl.SSLError) as caught:  # and not of the next failure, which is another
        handshake(client(trustme.CA(), kind)[0], server)
    assert caught.value.__cause__ is None


def test_a_wrong_signature_is_refused_by_the_server(ca: trustme.CA) -> None:
    certificate, private_key = leaf(ca, trustme.KeyType.RSA)
    context = TlsContext.client(client_options(ca, certificate, Refuser(private_key, "wrong")))
    with pytest.raises(ssl.SSLError):
        handshake(context, asking_server(ca, ca))


def test_an_rsa_key_and_a_server_with_tls_1_3_only(ca: trustme.CA) -> None:
    context, _ = client(ca, trustme.KeyType.RSA)
    options = trusting(ca, TlsContextOptions.default_server(*identity(ca.issue_cert(HOST))))
    options.set_minimum_tls_version(TlsMinimumVersion.TLSv1_3)
    with pytest.raises(ssl.SSLError, match="PROTOCOL"):
        handshake(context, TlsContext.server(options))


def test_an_rsa_key_and_a_client_that_insists_on_tls_1_3(ca: trustme.CA) -> None:
    certificate, private_key = leaf(ca, trustme.KeyType.RSA)
    options = client_options(ca, certificate, Signer(private_key))
    options.set_minimum_tls_version(TlsMinimumVersion.TLSv1_3)
    code, detail = code_raised(options)
    assert code is ErrorCode.IO_TLS_VERSION_UNSUPPORTED
    assert "use an EC key" in detail


def test_a_certificate_with_another_kind_of_key(ca: trustme.CA) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    certificate, _ = issue(ca, key=other)  # type: ignore[arg-type] # the point
    _, private_key = leaf(ca, trustme.KeyType.RSA)
    code, detail = code_raised(client_options(ca, certificate, Signer(private_key)))
    assert code is ErrorCode.IO_TLS_CTX_ERROR
    assert "neither RSA nor EC" in detail


def test_a_damaged_certificate_says_what_openssl_says(ca: trustme.CA) -> None:
    _, private_key = leaf(ca, trustme.KeyType.RSA)
    damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    code, detail = code_raised(client_options(ca, damaged, Signer(private_key)))
    assert code is ErrorCode.IO_TLS_CTX_ERROR
    assert detail.startswith("certificate: error:")


def test_a_python_that_was_not_looked_at(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openssl_keys, "NEWEST_PYTHON", (3, 10))
    certificate, private_key = leaf(ca, trustme.KeyType.RSA)
    code, _ = code_raised(client_options(ca, certificate, Signer(private_key)))
    assert code is CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED


def test_what_is_no_handler_is_refused(ca: trustme.CA) -> None:
    certificate, private_key = leaf(ca, trustme.KeyType.RSA)
    with pytest.raises(TypeError, match="CustomKeyOpHandler"):
        TlsContextOptions.client_mtls_with_custom_key_operations(
            private_key,  # type: ignore[arg-type]  # the point
            certificate,
        )


# Operations


def operation() -> TlsKeyOperation:
    return TlsKeyOperation(bytes(32), TlsHashAlgorithm.SHA256, TlsSignatureAlgorithm.ECDSA)


def test_an_operation_is_completed_once() -> None:
    done, failed = operation(), operation()
    done.complete(b"signature")
    failed.complete_with_error(OSError())
    for each in (done, failed):
        assert each.is_complete
        with pytest.raises(RuntimeError, match="done once"):
            each.complete(b"another")
        with pytest.raises(RuntimeError, match="done once"):
            each.complete_with_error(OSError())
    with pytest.raises(TypeError, match="an exception is needed"):
        operation().complete_with_error("failed")  # type: ignore[arg-type]  # the point


def test_names_are_those_of_aws_c_io() -> None:
    assert [str(each) for each in TlsHashAlgorithm] == [
        "SHA1",
        "SHA224",
        "SHA256",
        "SHA384",
        "SHA512",
    ]
    assert [str(each) for each in TlsSignatureAlgorithm] == ["RSA", "ECDSA"]
    assert [str(each) for each in TlsKeyOperationType] == ["SIGN", "DECRYPT"]
    assert repr(operation()) == "<TlsKeyOperation SIGN SHA256 ECDSA>"


def test_the_engine_keeps_the_cause(ca: trustme.CA) -> None:
    certificate, private_key = leaf(ca, trustme.KeyType.ECDSA)
    context = TlsContext.client(client_options(ca, certificate, Refuser(private_key, "raises")))
    ours = TlsEngine(context.ssl_context, server_side=False, server_hostname=HOST)
    theirs = TlsEngine(asking_server(ca, ca).ssl_context, server_side=True)
    with pytest.raises(ssl.SSLError):
        while True:
            ours.handshake()
            theirs.receive_data(ours.data_to_send())
            theirs.handshake()
            ours.receive_data(theirs.data_to_send())
    assert ours.error is not None
    assert isinstance(ours.error.__cause__, ZeroDivisionError)
