"""TLS clients whose private key is in a token: SoftHSM2 signs the handshake."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from aws_io_async.channel import Channel
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.pkcs11 import LibraryBehavior, Pkcs11Library, client_mtls_options
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import TlsContext
from tests.certificates import identity
from tests.hsm import Hsm, softhsm
from tests.tls_channels import App, connecting, listening
from tests.tls_peers import asking_server, handshake, trusting

pytest.importorskip("pkcs11", reason="the extra pkcs11 is not installed")

STRICT = LibraryBehavior.STRICT_INITIALIZE_FINALIZE
TOKEN, KEY, PIN, SO_PIN = "my-test-token", "my-test-key", "0000", "1111"


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hsm:
    hsm = Hsm(softhsm(), tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.configuration))
    hsm.init_token(TOKEN, PIN, SO_PIN)
    return hsm


@pytest.fixture
def ec_certificate(hsm: Hsm, ca: trustme.CA) -> bytes:
    return with_key(hsm, ca, trustme.KeyType.ECDSA)


@pytest.fixture
def library(hsm: Hsm, ec_certificate: bytes) -> Iterator[Pkcs11Library]:
    with Pkcs11Library(hsm.module, STRICT) as library:
        yield library


def with_key(hsm: Hsm, ca: trustme.CA, kind: trustme.KeyType) -> bytes:
    """A certificate whose key is in the token alone."""
    certificate, private_key = identity(ca.issue_cert("client.example", key_type=kind))
    hsm.import_key(TOKEN, PIN, load_pem_private_key(private_key, None), KEY, "AA")
    return certificate


async def check_negotiation(hsm: Hsm, ca: trustme.CA, kind: trustme.KeyType) -> None:
    """A server that asks for certificates has the client's, and data passes both ways."""
    certificate = with_key(hsm, ca, kind)
    with Pkcs11Library(hsm.module, STRICT) as library:
        options = client_mtls_options(
            library, certificate, pin=PIN, token_label=TOKEN, key_label=KEY
        )
        context, apps = TlsContext.client(trusting(ca, options)), [App(), App()]
        async with (
            listening(asking_server(ca, ca), lambda: apps[:1]) as server,
            connecting(server, context, lambda: apps[1:]),
        ):
            tls = tls_of(await server.accepted())
            await apps[1].write(b"this is the client")
            assert await apps[0].received(18) == b"this is the client"
            await apps[0].write(b"and this the server")
            assert await apps[1].received(19) == b"and this the server"
            assert tls.version() == ("TLSv1.2" if kind is trustme.KeyType.RSA else "TLSv1.3")
            peer = tls.getpeercert()
    assert peer is not None
    assert peer["subjectAltName"] == (("DNS", "client.example"),)


def tls_of(channel: Channel) -> ssl.SSLObject:
    (found,) = [s.handler for s in channel.slots() if isinstance(s.handler, TlsChannelHandler)]
    return found.ssl_object


async def test_pkcs11_tls_rsa_negotiation_succeeds(hsm: Hsm, ca: trustme.CA) -> None:
    await check_negotiation(hsm, ca, trustme.KeyType.RSA)


async def test_pkcs11_tls_ec_negotiation_succeeds(hsm: Hsm, ca: trustme.CA) -> None:
    await check_negotiation(hsm, ca, trustme.KeyType.ECDSA)


def test_the_only_key_of_the_only_slot(
    library: Pkcs11Library, ca: trustme.CA, ec_certificate: bytes
) -> None:
    slot = library.find_slot(token_label=TOKEN)
    options = client_mtls_options(library, ec_certificate, pin=PIN, slot_id=slot)
    _, theirs = handshake(TlsContext.client(trusting(ca, options)), asking_server(ca, ca))
    assert theirs.peer_certificate is not None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"pin": "1234"}, ErrorCode.ERROR_PKCS11_CKR_PIN_INCORRECT),
        ({"token_label": "another"}, ErrorCode.ERROR_PKCS11_TOKEN_NOT_FOUND),
        ({"key_label": "another"}, ErrorCode.ERROR_PKCS11_KEY_NOT_FOUND),
    ],
)
def test_what_cannot_be_found_is_told_at_once(
    library: Pkcs11Library, ec_certificate: bytes, changes: dict[str, str], code: ErrorCode
) -> None:
    wanted = {"pin": PIN, "token_label": TOKEN, "key_label": KEY, **changes}
    with pytest.raises(AwsIoError) as caught:
        client_mtls_options(library, ec_certificate, **wanted)  # type: ignore[arg-type] # all are str
    assert caught.value.code is code


def test_a_library_that_was_closed_fails_the_handshake(
    hsm: Hsm, ca: trustme.CA, ec_certificate: bytes
) -> None:
    with Pkcs11Library(hsm.module, STRICT) as library:
        options = client_mtls_options(library, ec_certificate, pin=PIN, token_label=TOKEN)
        context = TlsContext.client(trusting(ca, options))
    with pytest.raises(ssl.SSLError) as caught:
        handshake(context, asking_server(ca, ca))
    cause = caught.value.__cause__
    assert isinstance(cause, AwsIoError)
    assert cause.code is ErrorCode.ERROR_PKCS11_CKR_CRYPTOKI_NOT_INITIALIZED


def test_the_key_of_another_certificate_is_noticed_by_the_server(
    library: Pkcs11Library, ca: trustme.CA
) -> None:
    other, _ = identity(ca.issue_cert("other.example"))
    options = client_mtls_options(library, other, pin=PIN, token_label=TOKEN)
    with pytest.raises(ssl.SSLError):
        handshake(TlsContext.client(trusting(ca, options)), asking_server(ca, ca))
