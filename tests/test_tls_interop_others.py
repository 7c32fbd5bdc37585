"""TLS in a channel with nginx, GnuTLS and Python's ssl at the other end, in both roles."""

import asyncio
import random
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from aws_io_async.channel import ChannelSlot
from aws_io_async.errors import ErrorCode
from aws_io_async.message_pool import IoMessage
from aws_io_async.tls_context import TlsConnectionOptions
from tests import tls_channels, tls_programs
from tests.tls_channels import (
    App,
    Echo,
    code_of,
    connecting,
    error_of,
    listening,
    openssl_client,
    openssl_server,
    tls_of,
)
from tests.tls_peers import (
    HOST,
    TLS12,
    TLS13,
    asking_server,
    client_of,
    presenting_client,
    server_of,
)
from tests.tls_programs import gnutls_cli, gnutls_serv, gnutls_version, nginx

nothing_left = tls_channels.nothing_left
files = tls_programs.files

NAMES = {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}

versions = pytest.mark.parametrize("version", NAMES, ids=NAMES.values())
"""Of TLS, which the other end insists on."""


# nginx

REPORT = """ssl; ssl_certificate server.pem; ssl_certificate_key server.pem;
    location / { return 200
        "$ssl_protocol $ssl_server_name $ssl_alpn_protocol $ssl_client_verify $ssl_client_s_dn"; }
    location /file { alias file; }"""
"""Tells clients what it knows about them."""

GET = b"GET %b HTTP/1.1\r\nHost: peer.example\r\nConnection: close\r\n\r\n"


async def answer(port: int, options: TlsConnectionOptions, path: bytes = b"/") -> bytes:
    """The body of what nginx answers, before it closes in order."""
    app = App()
    async with connecting(port, options, lambda: [app]) as channel:
        await app.write(GET % path)
        await channel.wait_closed()
        assert channel.error is None
        head, _, body = app.data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        return body


@versions
async def test_a_client_of_nginx(ca: trustme.CA, files: Path, version: ssl.TLSVersion) -> None:
    options = TlsConnectionOptions(client_of(ca), HOST, alpn_list="h3;http/1.1")
    async with nginx(files, f"{REPORT} ssl_protocols {NAMES[version]};") as (_, port):
        body = await answer(port, options)
        assert body.split() == [NAMES[version].encode(), HOST.encode(), b"http/1.1", b"NONE"]


async def test_a_download_from_nginx(ca: trustme.CA, files: Path) -> None:
    data = random.Random(3).randbytes(2_000_000)
    (files / "file").write_bytes(data)
    async with nginx(files, REPORT) as (_, port):
        assert await answer(port, TlsConnectionOptions(client_of(ca), HOST), b"/file") == data


async def test_nginx_wants_a_certificate(ca: trustme.CA, files: Path) -> None:
    asks = f"{REPORT} ssl_verify_client on; ssl_client_certificate ca.pem;"
    async with nginx(files, asks) as (_, port):
        body = await answer(port, TlsConnectionOptions(presenting_client(ca, ca), HOST))
        assert b" SUCCESS OU=Testing cert" in body
        app = App()
        async with connecting(port, client_of(ca), lambda: [app]) as channel:
            await app.write(GET % b"/")
            await channel.wait_closed()  # nginx says so by HTTP
            assert b"400 No required SSL certificate was sent" in app.data


async def test_nginx_refuses_all_our_protocols(ca: trustme.CA, files: Path) -> None:
    options = TlsConnectionOptions(client_of(ca), HOST, alpn_list="mqtt")
    async with nginx(files, REPORT) as (_, port):
        error = await error_of(connecting(port, options).__aenter__())
        assert error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "NO_APPLICATION_PROTOCOL" in str(error)


async def test_nginx_speaks_http_2_if_asked_to(ca: trustme.CA, files: Path) -> None:
    app = App()
    options = TlsConnectionOptions(client_of(ca), HOST, alpn_list="h2;http/1.1")
    async with (
        nginx(files, REPORT.replace("ssl;", "ssl http2;", 1)) as (_, port),
        connecting(port, options, lambda: [app]) as channel,
    ):
        assert tls_of(channel).protocol == "h2"
        settings = b"\0\0\0\x04\0\0\0\0\0"  # a frame of its own kind (RFC 9113, section 6.5)
        await app.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        frame = await app.received(9)
        assert frame[3] == settings[3]


class Web(App):
    """Answers one request."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        super().process_read_message(slot, message)
        if self.data.endswith(b"\r\n\r\n"):
            response = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
            slot.channel.loop.create_task(self._answer(response))

    async def _answer(self, response: bytes) -> None:
        await self.write(response)
        assert self.slot is not None
        self.slot.channel.shutdown()


PROXY = """; location / {{
        proxy_pass https://127.0.0.1:{port}; proxy_ssl_protocols {version};
        proxy_ssl_name peer.example; proxy_ssl_server_name on;
        proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem;
        proxy_ssl_certificate client.pem; proxy_ssl_certificate_key client.pem; }}"""
"""Speaks plain HTTP to us, and HTTPS to a server of ours."""


async def fetched_through(port: int) -> bytes:
    """What nginx answers to plain HTTP, or to HTTP without TLS that asks for a page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET % b"/")
    body = await reader.read()
    writer.close()
    await writer.wait_closed()
    return body


@versions
async def test_nginx_is_the_client(ca: trustme.CA, files: Path, version: ssl.TLSVersion) -> None:
    async with listening(asking_server(ca, ca), lambda: [Web()]) as listener:
        proxy = PROXY.format(port=listener.port, version=NAMES[version])
        async with nginx(files, proxy) as (_, port):
            body = await fetched_through(port)
            assert body.endswith(b"\r\n\r\nsecret")
        (channel,) = listener.channels
        assert await listener.ended() is None
        assert channel.error is None


async def test_nginx_does_not_trust_us(files: Path) -> None:
    stranger = trustme.CA()
    async with listening(server_of(stranger), lambda: [Web()]) as listener:
        proxy = PROXY.format(port=listener.port, version="TLSv1.2")
        async with nginx(files, proxy) as (program, port):
            assert b"502 Bad Gateway" in await fetched_through(port)
            await program.said("upstream SSL certificate verify error")
            await listener.ended()  # it has negotiated first, and then looked


# GnuTLS


@versions
async def test_a_client_of_gnutls(ca: trustme.CA, files: Path, version: ssl.TLSVersion) -> None:
    name = NAMES[version].replace("v", "")
    options = TlsConnectionOptions(presenting_client(ca, ca), HOST, alpn_list="h2;mqtt")
    app = App()
    asks = ["--require-client-cert", "--verify-client-cert"]
    async with (
        gnutls_serv(files, gnutls_version(name), "--alpn=mqtt", *asks) as (server, port),
        connecting(port, options, lambda: [app]) as channel,
    ):
        assert tls_of(channel).protocol == "mqtt"
        assert tls_of(channel).ssl_object.version() == NAMES[version]
        await app.write(b"echo\n")
        assert await app.received(5) == b"echo\n"
        channel.shutdown()
        await channel.wait_closed()
        assert channel.error is None
    await server.said(f"Given server name.*{HOST}")  # what it says is buffered
    await server.said("The certificate is trusted")


@versions
async def test_a_server_for_gnutls(ca: trustme.CA, files: Path, version: ssl.TLSVersion) -> None:
    name = NAMES[version].replace("v", "")
    certificate = ["--x509certfile=client.pem", "--x509keyfile=client.pem"]
    async with (
        listening(asking_server(ca, ca).with_alpn("mqtt;h2"), lambda: [Echo()]) as listener,
        gnutls_cli(files, listener.port, gnutls_version(name), "--alpn=h2", *certificate) as client,
    ):
        channel = await listener.accepted()
        assert tls_of(channel).protocol == "h2"
        assert tls_of(channel).server_name == HOST
        assert tls_of(channel).ssl_object.version() == NAMES[version]
        await client.said("Handshake was completed")
        await client.say(b"hello\n")
        await client.said(r"\nhello\n")
        client.say_no_more()
        assert await client.ended() == 0
        assert await listener.ended() is None


async def test_gnutls_wants_new_keys(ca: trustme.CA, files: Path) -> None:
    async with (
        listening(server_of(ca), lambda: [Echo()]) as listener,
        gnutls_cli(files, listener.port, gnutls_version("TLS1.3"), "--inline-commands") as client,
    ):
        channel = await listener.accepted()
        await client.say(b"^rekey^\n")
        await client.say(b"with new keys\n")
        await client.said(r"\nwith new keys\n")
        assert channel.error is None
    await client.said("Rekey was completed")


async def test_gnutls_does_not_trust_us(files: Path) -> None:
    async with (
        listening(server_of(trustme.CA())) as listener,
        gnutls_cli(files, listener.port) as client,
    ):
        await client.said("The certificate is NOT trusted")
        assert await client.ended() != 0
        assert isinstance(await listener.failed(), OSError)


# Python's ssl, blocking, on a thread


def serve_one(listener: socket.socket, context: ssl.SSLContext) -> bytes:
    """Answer one line by the client's, in capitals; returns what it says after that."""
    plain, _ = listener.accept()
    plain.settimeout(30)
    with context.wrap_socket(plain, True, suppress_ragged_eofs=False) as connection:
        line = connection.recv(100)
        connection.sendall(line.upper())
        rest = connection.recv(100)
        return line + rest


@versions
async def test_a_client_of_python(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    app = App()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        serving = asyncio.create_task(
            asyncio.to_thread(serve_one, listener, openssl_server(ca, version))
        )
        async with connecting(listener.getsockname()[1], client_of(ca), lambda: [app]) as channel:
            assert tls_of(channel).ssl_object.version() == NAMES[version]
            await app.write(b"shout\n")
            assert await app.received(6) == b"SHOUT\n"
            channel.shutdown()
            await channel.wait_closed()
            assert channel.error is None
            assert await serving == b"shout\n"


def exchange(port: int, context: ssl.SSLContext, data: bytes) -> bytes:
    """Send so much, and read until as much has come back; then say farewell, and wait for the
    server's."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    with context.wrap_socket(plain, server_hostname=HOST, suppress_ragged_eofs=False) as connection:
        connection.sendall(data)
        received = b""
        while len(received) < len(data):
            received += connection.recv(1 << 16)
        connection.unwrap().close()
        return received


@versions
async def test_a_server_for_python(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    data = random.Random(4).randbytes(100_000)
    async with listening(server_of(ca), lambda: [Echo()]) as listener:
        context = openssl_client(ca, version)
        assert await asyncio.to_thread(exchange, listener.port, context, data) == data
        assert await listener.ended() is None


# asyncio's streams, on the same loop


@versions
async def test_a_client_of_streams(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await reader.read()
        writer.close()

    app = App()
    context = openssl_server(ca, version)
    async with await asyncio.start_server(shout, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        async with connecting(port, client_of(ca), lambda: [app]) as channel:
            await app.write(b"shout\n")
            assert await app.received(6) == b"SHOUT\n"
            channel.shutdown()
            await channel.wait_closed()
            assert channel.error is None


@versions
async def test_a_server_for_streams(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    async with listening(server_of(ca), lambda: [Echo()]) as listener:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", listener.port, ssl=openssl_client(ca, version), server_hostname=HOST
        )
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        assert code_of(await listener.ended()) in (None, ErrorCode.IO_SOCKET_CLOSED)
