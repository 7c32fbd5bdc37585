"""TLS in a channel: which certificates of a server are refused, and with what words.

aws-c-io connects to badssl.com and to AWS for these. Here the servers are local, their certificates
are made, and where aws-c-io counts on the system's trust store, the environment names it.
"""

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from aws_io_async import errors
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions
from tests import tls_channels
from tests.certificates import (
    EXPIRED,
    FOR_CLIENTS,
    FOR_SERVERS,
    TOMORROW,
    Identity,
    identity,
    issue,
    revocation_list,
)
from tests.tls_channels import (
    App,
    code_of,
    connecting,
    lenient_server,
    listening,
)
from tests.tls_peers import HOST, asking_server, trusting
from tests.tls_verdicts import HTTP, accepted, refused

nothing_left = tls_channels.nothing_left


@pytest.fixture(autouse=True)
def system_store(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts `ca`, and nobody else."""
    ca.cert_pem.write_to_path(tmp_path / "system.pem")
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "folder"))


def default_client() -> TlsContextOptions:
    """A client with the system's trust store."""
    return TlsContextOptions.default_client()


def unverifying_client() -> TlsContextOptions:
    options = default_client()
    options.set_verify_peer(False)
    return options


async def verdict(
    options: TlsContextOptions, server: TlsContext, code: ErrorCode, verify_code: int, words: str
) -> None:
    """The client refuses the server for this reason, and both are told so."""
    error, theirs = await refused(options, server)
    assert error.code is code
    assert isinstance(error, errors.TlsCertificateError)
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert error.verify_code == verify_code
    assert words in error.verify_message
    assert f"{error.verify_message} (OpenSSL verify code {verify_code})" in str(error)
    assert f"server name '{HOST}'" in str(error)
    assert isinstance(theirs, errors.TlsAlertError)


async def expired(options: TlsContextOptions, server: TlsContext) -> None:
    code = ErrorCode.IO_TLS_CERTIFICATE_EXPIRED
    await verdict(options, server, code, 10, "certificate has expired")


async def mismatched(options: TlsContextOptions, server: TlsContext) -> None:
    code = ErrorCode.IO_TLS_HOST_NAME_MISMATCH
    await verdict(options, server, code, 62, f"Hostname mismatch, {_NOT_VALID} '{HOST}'")


_NOT_VALID = "certificate is not valid for"


async def untrusted(options: TlsContextOptions, server: TlsContext, verify_code: int) -> None:
    words = {18: "self-signed certificate", 20: "unable to get local issuer certificate"}
    code = ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE
    await verdict(options, server, code, verify_code, words[verify_code])


# Times


async def test_tls_client_channel_negotiation_error_expired(ca: trustme.CA) -> None:
    await expired(default_client(), lenient_server(issue(ca, HOST, valid=EXPIRED)))


async def test_tls_client_channel_negotiation_no_verify_expired(ca: trustme.CA) -> None:
    await accepted(unverifying_client(), lenient_server(issue(ca, HOST, valid=EXPIRED)))


async def test_a_certificate_for_tomorrow(ca: trustme.CA) -> None:
    server = lenient_server(issue(ca, HOST, valid=TOMORROW))
    code = ErrorCode.IO_TLS_CERTIFICATE_NOT_YET_VALID
    await verdict(default_client(), server, code, 9, "certificate is not yet valid")


# Names


async def test_tls_client_channel_negotiation_error_wrong_host(ca: trustme.CA) -> None:
    await mismatched(default_client(), lenient_server(issue(ca, "other.example")))


async def test_tls_client_channel_negotiation_error_wrong_host_with_ca_override() -> None:
    own = trustme.CA()
    await mismatched(trusting(own), lenient_server(issue(own, "other.example")))


async def test_tls_client_channel_negotiation_no_verify_wrong_host(ca: trustme.CA) -> None:
    await accepted(unverifying_client(), lenient_server(issue(ca, "other.example")))


async def test_tls_client_channel_negotiation_error_no_subject(ca: trustme.CA) -> None:
    await mismatched(default_client(), lenient_server(issue(ca)))


async def test_tls_client_channel_negotiation_success_no_verify_no_subject(ca: trustme.CA) -> None:
    await accepted(unverifying_client(), lenient_server(issue(ca)))


NAMELESS = "Nameless Inc."


async def test_tls_client_channel_negotiation_error_no_common_name(ca: trustme.CA) -> None:
    await mismatched(default_client(), lenient_server(issue(ca, organization=NAMELESS)))


async def test_tls_client_channel_negotiation_success_no_verify_no_common_name(
    ca: trustme.CA,
) -> None:
    await accepted(unverifying_client(), lenient_server(issue(ca, organization=NAMELESS)))


async def test_alternative_names_are_enough(ca: trustme.CA) -> None:
    await accepted(default_client(), lenient_server(issue(ca, "other.example", HOST)))
    await accepted(default_client(), lenient_server(issue(ca, HOST, organization=NAMELESS)))
    await mismatched(default_client(), lenient_server(issue(ca, "*.peer.example")))


async def test_a_common_name_does_not_count(ca: trustme.CA) -> None:
    await mismatched(default_client(), lenient_server(issue(ca, common_name=HOST)))
    await mismatched(default_client(), lenient_server(issue(ca, "other.example", common_name=HOST)))


# Authorities


async def test_tls_client_channel_negotiation_success(ca: trustme.CA) -> None:
    server = TlsContext.server(TlsContextOptions.default_server(*issue(ca, HOST)))
    assert await accepted(default_client(), server.with_alpn(HTTP)) == "TLSv1.3"


async def test_tls_client_channel_no_verify(ca: trustme.CA) -> None:
    await accepted(unverifying_client(), lenient_server(issue(ca, HOST)))


async def test_tls_client_channel_negotiation_error_self_signed() -> None:
    await untrusted(default_client(), lenient_server(issue(None, HOST)), 18)


async def test_tls_client_channel_negotiation_no_verify_self_signed() -> None:
    await accepted(unverifying_client(), lenient_server(issue(None, HOST)))


async def test_tls_client_channel_negotiation_error_untrusted_root() -> None:
    await untrusted(default_client(), lenient_server(issue(trustme.CA(), HOST)), 20)


async def test_tls_client_channel_negotiation_no_verify_untrusted_root() -> None:
    await accepted(unverifying_client(), lenient_server(issue(trustme.CA(), HOST)))


async def test_tls_client_channel_negotiation_error_untrusted_root_due_to_ca_override(
    ca: trustme.CA,
) -> None:
    server = lenient_server(issue(ca, HOST))
    await accepted(default_client(), server)
    await untrusted(trusting(trustme.CA()), server, 20)


def incomplete(ca: trustme.CA) -> TlsContext:
    """A server that keeps the intermediate certificate of its authority to itself."""
    chain, key = identity(ca.create_child_ca().issue_cert(HOST))
    end = b"-----END CERTIFICATE-----\n"
    return lenient_server((chain.partition(end)[0] + end, key))


async def test_tls_client_channel_negotiation_success_no_verify_incomplete_chain(
    ca: trustme.CA,
) -> None:
    await accepted(unverifying_client(), incomplete(ca))


async def test_an_incomplete_chain(ca: trustme.CA) -> None:
    await untrusted(default_client(), incomplete(ca), 20)


async def test_a_server_whose_certificate_is_for_clients(ca: trustme.CA) -> None:
    server = lenient_server(issue(ca, HOST, extensions=[FOR_CLIENTS]))
    code = ErrorCode.IO_TLS_BAD_CERTIFICATE
    await verdict(default_client(), server, code, 26, "unsuitable certificate purpose")


# Revocation


async def test_tls_client_channel_negotiation_error_revoked(ca: trustme.CA) -> None:
    options, server = revoked(ca)
    code = ErrorCode.IO_TLS_PEER_CERTIFICATE_REVOKED
    await verdict(options, server, code, 23, "certificate revoked")


async def test_tls_client_channel_negotiation_revoked_no_check(ca: trustme.CA) -> None:
    options, server = revoked(ca)
    options.set_no_certificate_revocation(True)
    await accepted(options, server)


def revoked(ca: trustme.CA) -> tuple[TlsContextOptions, TlsContext]:
    """A client that knows that the server's certificate has been revoked, and the server."""
    leaf, options = ca.issue_cert(HOST), default_client()
    revoking = revocation_list(ca, leaf).public_bytes(Encoding.PEM)
    options.add_certificate_revocation_list(revoking)
    return options, lenient_server(identity(leaf))


# Keys and signatures


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@pytest.mark.parametrize("hash", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
async def test_tls_client_channel_negotiation_success_sha256(
    ca: trustme.CA, hash: hashes.HashAlgorithm
) -> None:
    await accepted(default_client(), lenient_server(issue(ca, HOST, hash=hash)))


async def test_tls_client_channel_negotiation_success_rsa2048(ca: trustme.CA) -> None:
    await accepted(default_client(), lenient_server(issue(ca, HOST, key=rsa_key(2048))))


async def test_tls_client_channel_negotiation_success_ecc256(ca: trustme.CA) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    await accepted(default_client(), lenient_server(issue(ca, HOST, key=key)))


async def test_tls_client_channel_negotiation_success_ecc384(ca: trustme.CA) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    await accepted(default_client(), lenient_server(issue(ca, HOST, key=key)))


async def test_a_weak_key(ca: trustme.CA) -> None:
    server = lenient_server(issue(ca, HOST, key=rsa_key(1024)))
    code = ErrorCode.IO_TLS_BAD_CERTIFICATE
    await verdict(default_client(), server, code, 66, "EE certificate key too weak")


async def test_a_weak_signature(ca: trustme.CA, tmp_path: Path) -> None:
    server = lenient_server(signed_by_sha1(ca, tmp_path))
    code = ErrorCode.IO_TLS_BAD_CERTIFICATE
    await verdict(default_client(), server, code, 68, "CA signature digest algorithm too weak")


def signed_by_sha1(ca: trustme.CA, folder: Path) -> Identity:
    """What the cryptography package does not do any more."""
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("the openssl command makes this certificate")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    ca.private_key_pem.write_to_path(folder / "ca.key")
    request = f"{command} req -x509 -sha1 -CA ca.pem -CAkey ca.key -newkey rsa:2048 -noenc"
    names = ["-subj", "/", "-addext", f"subjectAltName=critical,DNS:{HOST}"]
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    done = subprocess.run([*request.split(), *names, *files], cwd=folder, capture_output=True)
    if done.returncode:
        pytest.skip(f"the openssl command does not make this certificate: {done.stderr!r}")
    return (folder / "certificate.pem").read_bytes(), (folder / "key.pem").read_bytes()


# A system's store with authorities, which on macOS is a keychain


async def test_tls_client_channel_negotiation_success_mtls_from_keychain(ca: trustme.CA) -> None:
    options = TlsContextOptions.client_mtls(*identity(ca.issue_cert("device@peer.example")))
    assert await accepted(options, asking_server(ca, ca).with_alpn(HTTP)) == "TLSv1.3"


async def test_tls_client_channel_negotiation_failure_mtls_untrusted_server_from_keychain(
    ca: trustme.CA,
) -> None:
    options = TlsContextOptions.client_mtls(*identity(ca.issue_cert("device@peer.example")))
    await untrusted(options, asking_server(trustme.CA(), ca), 20)


# The client's certificate

REFUSED_CLIENTS: dict[str, tuple[Callable[[trustme.CA], Identity], ErrorCode, str]] = {
    "expired": (
        lambda ca: issue(ca, HOST, valid=EXPIRED),
        ErrorCode.IO_TLS_CERTIFICATE_EXPIRED,
        "certificate has expired (OpenSSL verify code 10)",
    ),
    "self-signed": (
        lambda _: issue(None, HOST),
        ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,
        "self-signed certificate (OpenSSL verify code 18)",
    ),
    "of a stranger": (
        lambda _: issue(trustme.CA(), HOST),
        ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,
        "unable to get local issuer certificate (OpenSSL verify code 20)",
    ),
    "for servers": (
        lambda ca: issue(ca, HOST, extensions=[FOR_SERVERS]),
        ErrorCode.IO_TLS_BAD_CERTIFICATE,
        "unsuitable certificate purpose (OpenSSL verify code 26)",
    ),
}


@pytest.mark.parametrize("which", REFUSED_CLIENTS)
async def test_a_clients_certificate_that_is_refused(ca: trustme.CA, which: str) -> None:
    certificate, code, words = REFUSED_CLIENTS[which]
    options = TlsContextOptions.client_mtls(*certificate(ca))
    told: list[BaseException] = []
    client = TlsConnectionOptions(
        TlsContext.client(options), HOST, on_error=lambda _handler, _slot, error: told.append(error)
    )
    async with (
        listening(asking_server(ca, ca)) as listener,
        # In TLS 1.3 the client is done before the server has looked at its certificate.
        connecting(listener, client, lambda: [App()]) as channel,
    ):
        failed = await listener.failed()
        assert code_of(failed) is code
        assert words in str(failed)
        await channel.wait_closed()
        assert isinstance(channel.error, errors.TlsAlertError)
        assert told == [channel.error]


async def test_a_client_without_a_certificate(ca: trustme.CA) -> None:
    client = TlsConnectionOptions(TlsContext.client(), HOST)
    async with (
        listening(asking_server(ca, ca)) as listener,
        connecting(listener, client, lambda: [App()]) as channel,
    ):
        failed = await listener.failed()
        assert code_of(failed) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(failed)
        await channel.wait_closed()
        assert "CERTIFICATE_REQUIRED" in str(channel.error)
