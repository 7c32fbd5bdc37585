"""TLS in a channel: versions, ciphers and groups that are agreed on, and that are not.

aws-c-io connects to badssl.com for most of these. Here the servers are local: OpenSSL at its most
lenient, and for what even that has not any more, one that writes its messages by hand.
"""

import ssl

import pytest
import trustme

from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.tls_context import (
    TlsCipherPreference,
    TlsConnectionOptions,
    TlsContext,
    TlsContextOptions,
    TlsMinimumVersion,
)
from tests import tls_channels
from tests.certificates import Identity, identity
from tests.tls_channels import connecting, error_of, lenient_server
from tests.tls_messages import (
    DHE_RSA_WITH_AES_128_GCM_SHA256,
    HANDSHAKE_FAILURE,
    ILLEGAL_PARAMETER,
    RSA_WITH_NULL_SHA256,
    RSA_WITH_RC4_128_MD5,
    RSA_WITH_RC4_128_SHA,
    ClientHello,
    HandMadeServer,
    answering,
    fatal,
)
from tests.tls_peers import HOST, TLS12, TLS13, asking_server, client_of, trusting
from tests.tls_verdicts import accepted, refused

nothing_left = tls_channels.nothing_left

TLS10, TLS11 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

OLD = pytest.mark.skipif(not (ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1), reason="this OpenSSL is modern")
ANCIENT = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")


@pytest.fixture(scope="module")
def rsa(ca: trustme.CA) -> Identity:
    """An identity that all ciphers can make use of."""
    return identity(ca.issue_cert(HOST, key_type=trustme.KeyType.RSA))


def at_least(ca: trustme.CA, version: TlsMinimumVersion) -> TlsContextOptions:
    options = trusting(ca)
    options.set_minimum_tls_version(version)
    return options


async def no_agreement(options: TlsContextOptions, server: TlsContext) -> AwsIoError:
    """Both sides fail to negotiate; returns the server's error, which says what is missing."""
    ours, theirs = await refused(options, server)
    assert ours.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
    assert theirs.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
    assert f"server name '{HOST}'" in str(ours)
    return theirs


# Versions


async def test_tls_client_channel_negotiation_success_tls12(ca: trustme.CA, rsa: Identity) -> None:
    assert await accepted(trusting(ca), lenient_server(rsa, TLS12)) == "TLSv1.2"


async def test_tls_client_channel_negotiation_success_mtls_tls13(ca: trustme.CA) -> None:
    mqtt = "x-amzn-mqtt-ca"
    device = identity(ca.issue_cert("device@peer.example"))
    options = trusting(ca, TlsContextOptions.client_mtls(*device))
    options.set_minimum_tls_version(TlsMinimumVersion.TLSv1_3)
    server = asking_server(ca, ca).with_alpn(mqtt)
    assert await accepted(options, server, mqtt) == "TLSv1.3"


async def test_tls_client_channel_negotiation_failure_tls13_to_tls12_server(
    ca: trustme.CA, rsa: Identity
) -> None:
    options = at_least(ca, TlsMinimumVersion.TLSv1_3)
    error = await no_agreement(options, lenient_server(rsa, TLS12))
    assert "UNSUPPORTED_PROTOCOL" in str(error)


@OLD
@ANCIENT
async def test_tls_client_channel_negotiation_error_legacy_crypto_tls10(
    ca: trustme.CA, rsa: Identity
) -> None:
    server = lenient_server(rsa, TLS10)
    await no_agreement(at_least(ca, TlsMinimumVersion.TLSv1_2), server)
    await no_agreement(trusting(ca), server)  # nor by default


@OLD
@ANCIENT
async def test_tls_client_channel_negotiation_override_legacy_crypto_tls10(
    ca: trustme.CA, rsa: Identity
) -> None:
    options = at_least(ca, TlsMinimumVersion.TLSv1)
    assert await accepted(options, lenient_server(rsa, TLS10)) == "TLSv1"


@OLD
@ANCIENT
async def test_tls_client_channel_negotiation_success_legacy_crypto_tls11(
    ca: trustme.CA, rsa: Identity
) -> None:
    # By default in aws-c-io; here, as with all that RFC 8996 deprecates, if one asks for it.
    options = at_least(ca, TlsMinimumVersion.TLSv1_1)
    assert await accepted(options, lenient_server(rsa, TLS11)) == "TLSv1.1"
    await no_agreement(trusting(ca), lenient_server(rsa, TLS11))


@OLD
@ANCIENT
async def test_tls_client_channel_negotiation_error_override_legacy_crypto_tls11(
    ca: trustme.CA, rsa: Identity
) -> None:
    options = at_least(ca, TlsMinimumVersion.TLSv1_2)
    await no_agreement(options, lenient_server(rsa, TLS11))


@OLD
@ANCIENT
async def test_a_server_refuses_old_clients(ca: trustme.CA, rsa: Identity) -> None:
    # A client that has nothing newer: aws-c-io's servers count on s2n's defaults for that.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = TLS11
    old = TlsConnectionOptions(TlsContext.from_ssl_context(context), HOST)
    server = TlsContext.server(TlsContextOptions.default_server(*rsa))
    async with tls_channels.listening(server) as listener:
        error = await error_of(connecting(listener, old).__aenter__())
        assert error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "PROTOCOL_VERSION" in str(error)
        assert "UNSUPPORTED_PROTOCOL" in str(await listener.failed())


# Ciphers


async def test_tls_client_channel_negotiation_success_mozilla_modern(
    ca: trustme.CA, rsa: Identity
) -> None:
    # What badssl.com calls modern: TLS 1.2 with forward secrecy and authenticated encryption.
    modern = "ECDHE+AESGCM:ECDHE+CHACHA20"
    assert await accepted(trusting(ca), lenient_server(rsa, TLS12, modern)) == "TLSv1.2"


async def test_no_shared_cipher(ca: trustme.CA, rsa: Identity) -> None:
    options = trusting(ca)
    options.set_tls_cipher_preference(TlsCipherPreference.TLSV1_2_2025_07)
    error = await no_agreement(options, lenient_server(rsa, TLS12, "CHACHA20"))
    assert "NO_SHARED_CIPHER" in str(error)


async def never_agrees_on(ca: trustme.CA, suite: int, insists: str) -> None:
    """A client does not offer the suite. To a server that insists on it, it objects so."""
    server = HandMadeServer(ca, HOST)

    def answer(hello: ClientHello) -> bytes:
        return server.flight(hello, suite) if insists else fatal(HANDSHAKE_FAILURE)

    async with answering(answer) as conversation:
        error = await error_of(connecting(conversation.port, client_of(ca)).__aenter__())
        assert error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert (insists or "HANDSHAKE_FAILURE") in str(error)
        assert suite not in (await conversation.hello).cipher_suites
        reaction = await conversation.reaction
        assert reaction == (fatal(ILLEGAL_PARAMETER) if insists else b"")


@pytest.mark.parametrize("insists", ["", "UNKNOWN_CIPHER_RETURNED"])
async def test_tls_client_channel_negotiation_error_broken_crypto_rc4(
    ca: trustme.CA, insists: str
) -> None:
    await never_agrees_on(ca, RSA_WITH_RC4_128_SHA, insists)


@pytest.mark.parametrize("insists", ["", "UNKNOWN_CIPHER_RETURNED"])
async def test_tls_client_channel_negotiation_error_broken_crypto_rc4_md5(
    ca: trustme.CA, insists: str
) -> None:
    await never_agrees_on(ca, RSA_WITH_RC4_128_MD5, insists)


@pytest.mark.parametrize("insists", ["", "WRONG_CIPHER_RETURNED"])
async def test_tls_client_channel_negotiation_error_broken_crypto_null(
    ca: trustme.CA, insists: str
) -> None:
    await never_agrees_on(ca, RSA_WITH_NULL_SHA256, insists)


async def test_ciphers_that_encrypt_nothing_are_for_nobody(ca: trustme.CA, rsa: Identity) -> None:
    error = await no_agreement(trusting(ca), lenient_server(rsa, TLS12, "eNULL"))
    assert "NO_SHARED_CIPHER" in str(error)


# Groups

SAFE_PRIMES = {
    480: 0xE2FC6F17987FA615AC91270CBFBB15E70CBF6B2AFF05FFE012A9351785E95D04A3A8AEED18F46B2EA27BC74258E63D34421020996E977D8E22933EF7,  # noqa: E501
    512: 0xCA9E5FBD3A8EDBC73849C523683DEF29261AEB27BA0D0D8E85BE0A40593B808DE4151F631340D88C2318EDF929CF7ECCF5BE4D4A3AA08200FB0A3E5EDA9871FF,  # noqa: E501
}


async def refuses_a_group(ca: trustme.CA, bits: int, objection: str) -> None:
    """A client does not exchange keys by Diffie-Hellman with a prime of so few bits."""
    server = HandMadeServer(ca, HOST, prime=SAFE_PRIMES[bits])
    suite = DHE_RSA_WITH_AES_128_GCM_SHA256
    async with answering(lambda hello: server.flight(hello, suite)) as conversation:
        error = await error_of(connecting(conversation.port, client_of(ca)).__aenter__())
        assert error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert objection in str(error)
        assert suite in (await conversation.hello).cipher_suites
        alert = ILLEGAL_PARAMETER if objection == "BAD_DH_VALUE" else HANDSHAKE_FAILURE
        assert await conversation.reaction == fatal(alert)


async def test_tls_client_channel_negotiation_error_broken_crypto_dh480(ca: trustme.CA) -> None:
    await refuses_a_group(ca, 480, "BAD_DH_VALUE")


async def test_tls_client_channel_negotiation_error_broken_crypto_dh512(ca: trustme.CA) -> None:
    await refuses_a_group(ca, 512, "DH_KEY_TOO_SMALL")


async def test_an_elliptic_curve_that_the_client_did_not_expect(
    ca: trustme.CA, rsa: Identity
) -> None:
    # In TLS 1.3 the client has to say its hello again, with another key.
    server = lenient_server(rsa, TLS13)
    server.ssl_context.set_ecdh_curve("secp521r1")
    assert await accepted(trusting(ca), server) == "TLSv1.3"


async def test_no_shared_group(ca: trustme.CA, rsa: Identity) -> None:
    options = trusting(ca)
    options.set_tls_cipher_preference(TlsCipherPreference.TLSV1_2_2025_07)  # P-256 only
    server = lenient_server(rsa, TLS13)
    server.ssl_context.set_ecdh_curve("secp521r1")
    error = await no_agreement(options, server)
    assert "NO_SUITABLE_KEY_SHARE" in str(error)
