"""TLS as it is by default, against Mozilla's intermediate profile, by probes as testssl has them.

The profile (https://wiki.mozilla.org/Security/Server_Side_TLS, "Intermediate compatibility"): TLS
1.2 and 1.3; in TLS 1.2 AEAD suites with forward secrecy; X25519, P-256 and P-384; no groups for
Diffie-Hellman below 2048 bits; no session tickets. What is said of clients there, versions and
suites that everybody should offer, holds for ours.
"""

import re
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa

from aws_io_async import AwsIoError, ChannelStream, TlsContext, TlsContextOptions, connect, serve
from aws_io_async._demo_certificate import make_contexts
from tests.certificates import Identity, issue
from tests.cli.commands import environment
from tests.faults._report import Fault
from tests.security import probes
from tests.security.probes import FALLBACK_SCSV, agreed_numbers, agreed_suites, ask, s_client
from tests.tls_messages import ClientHello, answering, fatal
from tests.tls_programs import running

OUTDATED = Fault(
    "Input",
    "a client that wants an outdated version, suite, group or signature of TLS",
    "an alert, and no connection",
)

PROFILE = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
    "DHE-RSA-AES128-GCM-SHA256": 0x009E,
    "DHE-RSA-AES256-GCM-SHA384": 0x009F,
    "DHE-RSA-CHACHA20-POLY1305": 0xCCAA,
}
"""The suites of TLS 1.2, by OpenSSL's names (profile 5.7)."""

TLS_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

OF_THE_PROFILE = {"X25519", "P-256", "P-384"}
STRONGER = {"X448", "P-521", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"}
"""What OpenSSL has besides, and Python cannot take away: none has less than 112 bits."""
WEAK = {"secp192r1", "secp224r1", "sect163k1", "sect233r1", "secp160r1", "brainpoolP256r1"}

ours = pytest.mark.loops("aws_io_async")  # what OpenSSL agrees to is the same on every loop
KINDS = ["EC", "RSA", "demo", "echo"]


async def listen(stream: ChannelStream) -> None:
    async for _ in stream:
        pass


@asynccontextmanager
async def echo_command(folder: Path) -> AsyncIterator[int]:
    """`aws-io-async echo --tls`, as anybody would start it."""
    command = ["-m", "aws_io_async", "echo", "--tls", "--ca-out", str(folder / "ca.pem")]
    async with running(sys.executable, *command, env=environment()) as echo:
        yield int((await echo.said(r"port (\d+)"))[1])


@asynccontextmanager
async def server(kind: str, ca: trustme.CA, folder: Path) -> AsyncIterator[int]:
    """A server with the defaults, with a certificate of that kind; its port."""
    if kind == "echo":
        async with echo_command(folder) as port:
            yield port
        return
    if kind == "demo":
        context, _ = make_contexts()
    else:
        context = TlsContext(TlsContextOptions.default_server(*certificate(ca, kind)))
    async with serve(listen, "127.0.0.1", tls=context) as listener:
        yield listener.endpoint.port


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def certificate(ca: trustme.CA, kind: str) -> Identity:
    return issue(ca, "localhost", key=rsa_key() if kind == "RSA" else None)


# Versions


@ours
@pytest.mark.parametrize("kind", ["EC", "demo", "echo"])
async def test_servers_agree_on_tls_1_2_and_1_3_alone(
    ca: trustme.CA, tmp_path: Path, kind: str
) -> None:
    lenient = "-cipher ALL:@SECLEVEL=0"
    async with server(kind, ca, tmp_path) as port:
        assert (await s_client(port, "")).version == "TLSv1.3"
        for option, version in ("tls1_3", "TLSv1.3"), ("tls1_2", "TLSv1.2"):
            assert (await s_client(port, f"-{option}")).version == version
        for option in "tls1", "tls1_1":
            answer = await s_client(port, f"-{option} {lenient}")
            assert answer.version is None
            assert "alert protocol version" in answer.output
            OUTDATED.seen("an alert")
        ssl_3 = probes.hello(range(0x100), b"\x03\x00")
        for hello in ssl_3, probes.hello_of_ssl_2():
            assert str(await ask(port, hello)).startswith("alert")
            OUTDATED.seen("an alert")


@ours
async def test_a_downgrade_is_noticed(ca: trustme.CA, tmp_path: Path) -> None:
    """By RFC 7507, for clients that try again with less after a failure."""
    async with server("EC", ca, tmp_path) as port:
        answer = await s_client(port, "-tls1_2 -fallback_scsv")
        assert answer.version is None
        assert "inappropriate fallback" in answer.output
        OUTDATED.seen("an alert")


# Suites


@ours
@pytest.mark.parametrize("kind", KINDS)
async def test_suites_of_tls_1_2_are_those_of_the_profile(
    ca: trustme.CA, tmp_path: Path, kind: str
) -> None:
    signature = "RSA" if kind == "RSA" else "ECDSA"
    async with server(kind, ca, tmp_path) as port:
        agreed = await agreed_suites(port)
        assert agreed == {name for name in PROFILE if name.startswith(f"ECDHE-{signature}")}
        OUTDATED.seen("an alert", len(await probes.suites_of_openssl("tls1_2")) - len(agreed))


@ours
async def test_of_all_suites_that_have_a_number(ca: trustme.CA, tmp_path: Path) -> None:
    """Null, export, anonymous, RC4, 3DES, CBC, static RSA, PSK …: all in one, and by hand."""
    async with server("RSA", ca, tmp_path) as port:
        agreed = await agreed_numbers(port, left_out=[FALLBACK_SCSV])
        assert agreed == {PROFILE[name] for name in PROFILE if name.startswith("ECDHE-RSA")}
        OUTDATED.seen("an alert", (1 << 16) - len(agreed))


OUTDATED_SUITES = [
    "AES128-SHA",
    "AES256-GCM-SHA384",
    "ADH-AES128-SHA",
    "AECDH-AES256-SHA",
    "CAMELLIA128-SHA",
    "DHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-RSA-NULL-SHA",
    "NULL-SHA256",
    "PSK-AES128-GCM-SHA256",
    "SRP-RSA-AES-128-CBC-SHA",
]


@ours
async def test_outdated_suites_one_at_a_time(ca: trustme.CA, tmp_path: Path) -> None:
    async with server("RSA", ca, tmp_path) as port:
        for suite in set(OUTDATED_SUITES) & set(await probes.suites_of_openssl("tls1_2")):
            answer = await s_client(port, f"-tls1_2 -cipher {suite}:@SECLEVEL=0")
            assert answer.suite is None
            assert "handshake failure" in answer.output
            OUTDATED.seen("an alert")


@ours
async def test_suites_of_tls_1_3(ca: trustme.CA, tmp_path: Path) -> None:
    weak = ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]
    async with server("EC", ca, tmp_path) as port:
        for suite in sorted(TLS_1_3):
            assert (await s_client(port, f"-tls1_3 -ciphersuites {suite}")).suite == suite
        answer = await s_client(port, f"-tls1_3 -ciphersuites {':'.join(weak)}")
        assert answer.suite is None
        OUTDATED.seen("an alert")


# Groups and signatures


@ours
@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
async def test_groups(ca: trustme.CA, tmp_path: Path, version: str) -> None:
    async with server("RSA", ca, tmp_path) as port:
        for group in sorted(OF_THE_PROFILE):
            assert (await s_client(port, f"-{version} -groups {group}")).suite, group
        for group in sorted(WEAK):
            answer = await s_client(port, f"-{version} -cipher ALL:@SECLEVEL=0 -groups {group}")
            assert answer.suite is None, group
            OUTDATED.seen("an alert" if "alert" in answer.output else "not to be had in TLS 1.3")
        # With none of these there would be others: no group is weaker than the profile allows.
        others = sorted(STRONGER if version == "tls1_3" else {"X448", "P-521"})
        for group in others:
            answer = await s_client(port, f"-{version} -groups {group}")
            temporary = re.search(r"Server Temp Key: .*, (\d+) bits", answer.output)
            assert temporary is None or int(temporary[1]) >= 253, group


@ours
@pytest.mark.parametrize(("kind", "sha1"), [("RSA", "RSA+SHA1"), ("EC", "ECDSA+SHA1")])
async def test_nothing_is_signed_with_sha_1(
    ca: trustme.CA, tmp_path: Path, kind: str, sha1: str
) -> None:
    async with server(kind, ca, tmp_path) as port:
        answer = await s_client(port, f"-tls1_2 -cipher ALL:@SECLEVEL=0 -sigalgs {sha1}")
        assert answer.suite is None
        OUTDATED.seen("an alert")


# What comes along


@ours
@pytest.mark.parametrize("kind", ["EC", "demo", "echo"])
async def test_no_compression_and_no_tickets(ca: trustme.CA, tmp_path: Path, kind: str) -> None:
    async with server(kind, ca, tmp_path) as port:
        for version in "tls1_2", "tls1_3":
            answer = await s_client(port, f"-{version} -comp")
            assert answer.suite is not None
            assert "Compression: NONE" in answer.output
            assert "TLS session ticket:" not in answer.output
            if version == "tls1_2":
                assert "Secure Renegotiation IS supported" in answer.output


@ours
async def test_a_command_s_certificate_is_of_the_profile(ca: trustme.CA, tmp_path: Path) -> None:
    """Elliptic, or RSA of 2048 bits at least; signed with SHA-256 or better."""
    for kind in "demo", "echo":
        async with server(kind, ca, tmp_path) as port:
            answer = await s_client(port, "")
            assert "Server public key is 256 bit" in answer.output
            assert "Peer signing digest: SHA256" in answer.output


def test_no_tickets_of_tls_1_3_either(ca: trustme.CA) -> None:
    """They come after the handshake, when the openssl command may have hung up."""
    options = TlsContextOptions.default_server(*certificate(ca, "EC"))
    assert TlsContext(options).ssl_context.num_tickets == 0


# Clients


@ours
@pytest.mark.parametrize("kind", ["connect", "command"])
async def test_what_clients_offer(ca: trustme.CA, kind: str) -> None:
    protocol_version = fatal(70)
    async with answering(lambda _: protocol_version) as conversation:
        port = conversation.port
        if kind == "connect":
            with pytest.raises(AwsIoError):
                await connect("127.0.0.1", port, tls=True)
        else:
            command = ["-m", "aws_io_async", "connect", "--tls", "127.0.0.1", f"{port}"]
            async with running(sys.executable, *command, env=environment()) as client:
                await client.ended()
        assert_offer(await conversation.hello)


def assert_offer(hello: ClientHello) -> None:
    """Versions, suites and groups: nothing that a server of the profile would be ashamed of."""
    supported_versions, signature_algorithms = hello.extensions[43], hello.extensions[13]
    assert supported_versions[1:] == b"\x03\x04\x03\x03"
    assert set(PROFILE.values()) <= {*hello.cipher_suites, 0xCCAA}
    old = {0xC023, 0xC024, 0xC027, 0xC028, 0x0067, 0x006B}  # CBC with SHA-2, but forward secrecy
    scsv, tls_1_3 = 0x00FF, {0x1301, 0x1302, 0x1303}
    assert {*hello.cipher_suites} <= {*PROFILE.values()} | tls_1_3 | old | {scsv}
    assert hello.groups[0] in (0x11EC, 29)  # X25519, with ML-KEM if there is
    assert {23, 24, 29} <= {*hello.groups}
    assert min(hello.groups) >= 23
    sha1, md5 = 2, 1
    hashes_signed = signature_algorithms[2::2]
    assert not {md5, sha1} & {*hashes_signed}


def test_the_context_that_the_loop_makes_of_true() -> None:
    """`create_connection(ssl=True)`: Python's own, which verifies."""
    from aws_io_async.event_loop._tls_arguments import default_context

    context = default_context(server_side=False, server_hostname="localhost")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.create_default_context().minimum_version
    assert context.options & ssl.OP_NO_COMPRESSION
