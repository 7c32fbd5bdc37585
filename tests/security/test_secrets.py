"""A secret that is sent, or opens a key, and is looked for in all that the library says."""

import asyncio
import base64
import socket as stdlib
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)

from aws_io_async import (
    AwsIoError,
    ChannelStream,
    EventLoopGroup,
    TlsConnectionOptions,
    TlsContext,
    TlsContextOptions,
    connect,
    serve,
)
from aws_io_async.async_stream import AsyncInputStream
from aws_io_async.channel import ChannelHandler, ChannelSlot
from aws_io_async.future import Promise
from aws_io_async.message_pool import IoMessage
from aws_io_async.pipe import open_pipe
from aws_io_async.pkcs11 import LibraryBehavior, Pkcs11Library, key_pem, key_uri
from tests.certificates import identity
from tests.cli import commands
from tests.hsm import Hsm, softhsm
from tests.security.canary import SECRET, Leaks, listening_to_everything, tell_of_each_callback
from tests.socket_tools import connected
from tests.tls_channels import PATIENCE
from tests.tls_peers import HOST, client_of, server_of

MESSAGE = b"a word: " + SECRET


@pytest.fixture
def leaks() -> Iterator[Leaks]:
    with listening_to_everything() as leaks:
        yield leaks
    leaks.check()


@pytest.fixture
async def noisy(leaks: Leaks) -> Leaks:
    """The same, and the running loop tells of each callback."""
    tell_of_each_callback(asyncio.get_running_loop())
    return leaks


class OnPurposeError(Exception):
    """What an application raises."""


# Bytes that pass


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
async def test_no_byte_that_passes_is_logged(noisy: Leaks, ca: trustme.CA, with_tls: bool) -> None:
    async def echo(stream: ChannelStream) -> None:
        async for data in stream:
            await stream.send(data)

    client = TlsConnectionOptions(client_of(ca), HOST)
    async with (
        serve(echo, "127.0.0.1", tls=server_of(ca) if with_tls else None) as listener,
        await connect(
            "127.0.0.1", listener.endpoint.port, tls=client if with_tls else None
        ) as stream,
    ):
        await stream.send(MESSAGE)
        assert await stream.receive(10) == MESSAGE[:10]  # the rest waits
        noisy.add_objects()
        noisy.add_statistics()
        assert await stream.receive() == MESSAGE[10:]
    assert f"{len(MESSAGE)} bytes" in noisy.text  # it is told that there was something


class Failing(asyncio.Protocol):
    """Raises as soon as something comes."""

    def data_received(self, data: bytes) -> None:
        raise OnPurposeError


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
async def test_transports_and_protocols_that_fail(
    noisy: Leaks, ca: trustme.CA, with_tls: bool
) -> None:
    loop = asyncio.get_running_loop()
    context = server_of(ca).ssl_context if with_tls else None
    lost = asyncio.Event()

    class Client(Failing):
        def connection_lost(self, exc: BaseException | None) -> None:
            lost.set()

    server = await loop.create_server(Failing, "127.0.0.1", 0, ssl=context)
    async with server:
        transport, _ = await loop.create_connection(
            Client,
            *server.sockets[0].getsockname()[:2],
            ssl=client_of(ca).ssl_context if with_tls else None,
            server_hostname=HOST if with_tls else None,
        )
        transport.write(MESSAGE * 100_000)  # more than the kernel takes
        noisy.add(repr(transport))
        noisy.add_objects()
        async with asyncio.timeout(PATIENCE):
            await lost.wait()
    assert "OnPurposeError" in noisy.text


class Refusing(ChannelHandler):
    """Raises when something comes."""

    initial_window_size = 1 << 20

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        raise OnPurposeError


async def test_channels_whose_handlers_fail(noisy: Leaks) -> None:
    async def refuse(stream: ChannelStream) -> None:
        stream.channel.append(Refusing())
        noisy.add(repr(IoMessage(MESSAGE)))
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await stream.channel.wait_closed()
            await stream.send(MESSAGE)
        noisy.add_error(caught.value)

    async def receive(stream: ChannelStream) -> None:
        raise OnPurposeError(await stream.receive() == MESSAGE)

    async with (
        serve(receive, "127.0.0.1") as listener,
        await connect("127.0.0.1", listener.endpoint.port) as stream,
    ):
        await stream.send(MESSAGE)
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        noisy.add_objects()
    assert "OnPurposeError" in noisy.text


async def test_sockets_pipes_datagrams_and_streams(noisy: Leaks) -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (client, server):
        await client.write(MESSAGE)
        assert await server.read() == MESSAGE
        noisy.add_objects()
    read_end, write_end = open_pipe()
    async with read_end, write_end:
        await write_end.write(MESSAGE)
        noisy.add_objects()
        assert await read_end.read() == MESSAGE
    async with AsyncInputStream.from_bytes(MESSAGE) as stream:
        noisy.add_objects()
        assert await stream.read() == MESSAGE
    near, far = stdlib.socketpair(stdlib.AF_UNIX, stdlib.SOCK_DGRAM)
    received = asyncio.Event()

    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            received.set()
            raise OnPurposeError

    transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=near)
    far.send(MESSAGE)
    async with asyncio.timeout(PATIENCE):
        await received.wait()
    noisy.add_objects()
    transport.close()
    far.close()
    await asyncio.sleep(0)


@pytest.mark.loops("aws_io_async")
async def test_futures_and_what_they_call(noisy: Leaks) -> None:
    def fail(_: object) -> None:
        raise OnPurposeError

    promise: Promise[bytes] = Promise()
    promise.future.register_callback(fail)
    promise.future.register_event_loop_callback(asyncio.get_running_loop(), fail)
    promise.set_result(MESSAGE)
    noisy.add_objects()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "OnPurposeError" in noisy.text
    assert await promise.future == MESSAGE


def test_between_threads(leaks: Leaks) -> None:
    async def echo(stream: ChannelStream) -> None:
        async for data in stream:
            await stream.send(data)

    async def main() -> None:
        async with (
            serve(echo, "127.0.0.1", event_loop_group=group) as listener,
            await connect("127.0.0.1", listener.endpoint.port, event_loop_group=group) as stream,
        ):
            await stream.send(MESSAGE)
            assert await stream.receive() == MESSAGE
            leaks.add_objects()

    with EventLoopGroup(2) as group:
        for loop in group:
            tell_of_each_callback(loop)
        asyncio.run(main(), debug=True)


def test_the_command_line_traces_no_byte_that_passes() -> None:
    with commands.running("echo", "--tls") as echo:
        trying = echo.line_with("--ca").split()
        host, port, ca = trying[-4], trying[-3], trying[-1]
        done = commands.run(
            "connect", "--trace", "--ca", ca, "--wait", "1", host, port, input=MESSAGE
        )
        assert SECRET.decode() in done.stdout  # that is the peer's answer
        _, said, errors = echo.end()
    leaks = Leaks()
    for text in done.stderr, said, errors:
        leaks.add(text)
    assert "ClientHello" in leaks.text.replace("_", "").title().replace(
        "Clienthello", "ClientHello"
    )
    leaks.check()


# What opens keys


def parts_of(key: bytes) -> list[bytes]:
    """Pieces of a private key in PEM: the first whole line, and its secret number."""
    loaded = load_pem_private_key(key, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    secret = loaded.private_numbers().private_value
    return [key.splitlines()[1], f"{secret}".encode(), f"{secret:x}".encode()]


def attempt(leaks: Leaks, function: Callable[..., object], *args: object) -> None:
    """Add what it fails with, as that is told, or what it returns, as that is shown."""
    try:
        result = function(*args)
        leaks.add(repr(result))
        if isinstance(result, TlsContextOptions):
            leaks.add(repr(result.settings))
            leaks.add(repr(TlsContext(result)))
    except (AwsIoError, ValueError, TypeError) as exc:
        leaks.add_error(exc)
    leaks.add_objects()


def test_private_keys(leaks: Leaks, ca: trustme.CA, tmp_path: Path) -> None:
    certificate, key = identity(ca.issue_cert(HOST))
    other_certificate, _ = identity(ca.issue_cert(HOST))
    damaged = key.replace(b"END", b"DNE")
    path = tmp_path / "server.pem"
    path.write_bytes(certificate + key)
    for make in TlsContextOptions.client_mtls, TlsContextOptions.default_server:
        for first, second in (
            (certificate, key),
            (other_certificate, key),
            (key, key),
            (key, certificate),
            (certificate, damaged),
            (certificate, key[: len(key) // 2]),
            (certificate, b"noise " + key.replace(b"-----BEGIN", b"BEGIN")),
        ):
            attempt(leaks, make, first, second)
    attempt(leaks, TlsContextOptions.default_server_from_path, path, path)
    attempt(leaks, TlsContextOptions.client_mtls_pkcs12, key, key)
    leaks.check(*parts_of(key))


def test_passwords_of_pkcs_12(leaks: Leaks, ca: trustme.CA) -> None:
    certificate, key = identity(ca.issue_cert(HOST))
    loaded = x509.load_pem_x509_certificate(certificate)
    private = load_pem_private_key(key, None)
    protection = BestAvailableEncryption(SECRET)
    data = pkcs12.serialize_key_and_certificates(b"it", private, loaded, None, protection)  # type: ignore[arg-type] # an EC key
    for make in TlsContextOptions.client_mtls_pkcs12, TlsContextOptions.server_pkcs12:
        for content, password in (
            (data, SECRET),
            (data, SECRET.decode()),
            (data, SECRET + b"!"),
            (data[:-10], SECRET),
            (SECRET, SECRET),
        ):
            attempt(leaks, make, content, password)
    leaks.check(SECRET, *parts_of(key))


def test_pins_of_tokens(leaks: Leaks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = "4711" + SECRET.decode()[:12]
    hsm = Hsm(softhsm(), tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.configuration))
    hsm.init_token("token", pin, "so-" + pin)
    hsm.import_key("token", pin, rsa.generate_private_key(65537, 2048), "key", "01")
    with Pkcs11Library(hsm.module, LibraryBehavior.STRICT_INITIALIZE_FINALIZE) as library:
        for attempted in pin + "!", pin, pin:
            session = library.open_session(library.find_slot(token_label="token"))
            with session:
                attempt(leaks, session.login, attempted)
                attempt(leaks, session.find_private_key, "key")
                attempt(leaks, session.find_private_key, "no such key")
    leaks.check(pin.encode())


def test_pins_in_uris_of_keys(leaks: Leaks) -> None:
    """They are in the text that is asked for, and in no message about it."""
    pin = SECRET.decode()
    uri = key_uri("key", pin=pin)
    assert f"pin-value={pin}" in uri
    assert "PKCS#11 PROVIDER URI" in key_pem(uri)
    for wrong in uri.upper(), f" {uri}", uri.replace("pkcs11:", ""):
        with pytest.raises(ValueError) as caught:
            key_pem(wrong)
        leaks.add_error(caught.value)
    leaks.check()


def test_the_check_finds_what_is_told() -> None:
    """In each form, in any place: else nothing above would mean a thing."""
    encoded = base64.b64encode(MESSAGE).decode()
    for text in repr(MESSAGE), MESSAGE.hex(), f"{list(MESSAGE)}", encoded:
        leaks = Leaks()
        leaks.add_error(ValueError(text))
        with pytest.raises(AssertionError, match="it was told"):
            leaks.check()
