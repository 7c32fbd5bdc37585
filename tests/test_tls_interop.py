"""TLS in a channel with OpenSSL's own programs at the other end, in both roles."""

import asyncio
import random
from pathlib import Path

import pytest
import trustme

from aws_io_async.channel import ChannelDirection, ChannelSlot
from aws_io_async.errors import ErrorCode
from aws_io_async.message_pool import IoMessage
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests import tls_channels, tls_programs
from tests.tls_channels import (
    App,
    Echo,
    code_of,
    connecting,
    error_of,
    listening,
    tls_of,
)
from tests.tls_peers import HOST, asking_server, client_of, presenting_client, server_of
from tests.tls_programs import s_client, s_server

nothing_left = tls_channels.nothing_left
files = tls_programs.files

VERSIONS = {"tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}

versions = pytest.mark.parametrize("version", VERSIONS)


# openssl s_server


@versions
async def test_a_client_of_openssl(ca: trustme.CA, files: Path, version: str) -> None:
    app = App()
    options = TlsConnectionOptions(client_of(ca), HOST, alpn_list="mqtt;h2")
    async with (
        s_server(files, f"-{version} -alpn h2,http/1.1") as (server, port),
        connecting(port, options, lambda: [app]) as channel,
    ):
        tls = tls_of(channel)
        assert tls.ssl_object.version() == VERSIONS[version]
        assert tls.protocol == "h2"
        await app.write(b"what have you got?\n")
        await server.said(r"what have you got\?\n")
        await server.say(b"nothing\n")
        assert await app.received(8) == b"nothing\n"
        channel.shutdown()
        await channel.wait_closed()
        assert channel.error is None
        await server.said("CONNECTION CLOSED")
        assert await server.ended() == 0
        assert b"unexpected eof" not in server.output


@versions
async def test_openssl_is_killed(ca: trustme.CA, files: Path, version: str) -> None:
    app = App()
    async with (
        s_server(files, f"-{version}") as (server, port),
        connecting(port, client_of(ca), lambda: [app]) as channel,
    ):
        await server.say(b"half a sent\n")
        await app.received(12)
        server.kill()
        await channel.wait_closed()
        assert code_of(channel.error) is ErrorCode.IO_SOCKET_CLOSED


@versions
async def test_a_download_from_openssl(ca: trustme.CA, files: Path, version: str) -> None:
    # It fills its records to half of what they may hold, and ends the connection in order.
    data = random.Random(1).randbytes(2_000_000)
    (files / "file").write_bytes(data)
    app = App()
    async with (
        s_server(files, f"-{version} -HTTP -max_send_frag 8192") as (_, port),
        connecting(port, client_of(ca), lambda: [app]) as channel,
    ):
        await app.write(b"GET /file HTTP/1.0\r\n\r\n")
        await channel.wait_closed()
        assert channel.error is None
        assert app.data == data


async def test_openssl_wants_a_certificate(ca: trustme.CA, files: Path) -> None:
    options = TlsConnectionOptions(presenting_client(ca, ca), HOST)
    app = App()
    async with (
        s_server(files, "-Verify 1 -verify_return_error") as (server, port),
        connecting(port, options, lambda: [app]) as channel,
    ):
        await server.say(b"welcome\n")
        assert await app.received(8) == b"welcome\n"
        await server.said("Client certificate")
        assert channel.error is None


async def test_openssl_refuses_who_has_none(ca: trustme.CA, files: Path) -> None:
    client = client_of(ca)
    async with s_server(files, "-tls1_2 -Verify 1") as (_, port):
        error = await error_of(connecting(port, client).__aenter__())
        assert error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "ALERT_HANDSHAKE_FAILURE" in str(error)
    async with (
        s_server(files, "-tls1_3 -Verify 1") as (_, port),
        connecting(port, client, lambda: [App()]) as channel,  # the server looks later
    ):
        await channel.wait_closed()
        assert code_of(channel.error) is ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED
        assert "CERTIFICATE_REQUIRED" in str(channel.error)


async def test_openssl_refuses_all_our_protocols(ca: trustme.CA, files: Path) -> None:
    options = TlsConnectionOptions(client_of(ca), HOST, alpn_list="mqtt")
    async with s_server(files, "-alpn h2") as (_, port):
        error = await error_of(connecting(port, options).__aenter__())
        assert error.code is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "NO_APPLICATION_PROTOCOL" in str(error)


async def test_openssl_presents_a_certificate_of_a_stranger(files: Path) -> None:
    async with s_server(files, "") as (server, port):
        error = await error_of(connecting(port, client_of(trustme.CA())).__aenter__())
        assert error.code is ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE
        await server.said("unknown ca")


@pytest.mark.parametrize(("version", "command"), [("tls1_2", b"r\n"), ("tls1_3", b"K\n")])
async def test_openssl_asks_for_new_keys(
    ca: trustme.CA, files: Path, version: str, command: bytes
) -> None:
    app = App()
    async with (
        s_server(files, f"-{version}") as (server, port),
        connecting(port, client_of(ca), lambda: [app]) as channel,
    ):
        await server.say(b"with old keys\n")
        await app.received(14)
        await server.say(command)
        await app.write(b"with which keys?\n")
        await server.said(r"with which keys\?")
        await server.say(b"with new ones\n")
        assert await app.received(28) == b"with old keys\nwith new ones\n"
        await app.write(b"all right\n")
        await server.said("all right")
        assert channel.error is None


# openssl s_client


@versions
async def test_a_server_for_openssl(ca: trustme.CA, files: Path, version: str) -> None:
    app = App()
    server = server_of(ca).with_alpn("h2;http/1.1")
    async with (
        listening(server, lambda: [app]) as listener,
        s_client(files, listener.port, f"-{version} -alpn mqtt,h2") as client,
    ):
        channel = await listener.accepted()
        assert tls_of(channel).ssl_object.version() == VERSIONS[version]
        assert tls_of(channel).server_name == HOST
        assert tls_of(channel).protocol == "h2"
        await client.said("ALPN protocol: h2")
        await client.said(r"Verify return code: 0 \(ok\)")
        await client.say(b"what have you got?\n")
        assert await app.received(19) == b"what have you got?\n"
        await app.write(b"nothing\n")
        await client.said(r"nothing\n")
        await client.say(b"Q\n")
        assert await client.ended() == 0
        assert await listener.ended() is None


@versions
async def test_openssl_learns_that_the_server_closes(
    ca: trustme.CA, files: Path, version: str
) -> None:
    async with (
        listening(server_of(ca), lambda: [App()]) as listener,
        s_client(files, listener.port, f"-{version}") as client,
    ):
        channel = await listener.accepted()
        channel.shutdown()
        assert await listener.ended() is None
        assert await client.ended() == 0
        assert b"\nclosed\n" in client.output  # close_notify; else it speaks of an unexpected eof


@versions
@pytest.mark.parametrize("window", [1 << 30, 1000])
async def test_an_echo_for_openssl(ca: trustme.CA, files: Path, version: str, window: int) -> None:
    data = random.Random(2).randbytes(300_000)
    async with (
        listening(
            server_of(ca), lambda: [Echo(window)], enable_read_back_pressure=True
        ) as listener,
        s_client(files, listener.port, f"-{version} -quiet -max_send_frag 1000") as client,
    ):
        sending = asyncio.create_task(client.say(data))
        await client.said("verify return:1\ndepth=0 .*\nverify return:1\n")
        while data not in client.output:
            await client.said_so_much(len(client.output) + 1)
        await sending


async def test_openssl_presents_a_certificate(ca: trustme.CA, files: Path) -> None:
    app = App()
    async with (
        listening(asking_server(ca, ca), lambda: [app]) as listener,
        s_client(files, listener.port, "-cert client.pem -key client.pem") as client,
    ):
        channel = await listener.accepted()
        certificate = tls_of(channel).ssl_object.getpeercert()
        assert certificate is not None
        assert ("email", "client@example") in certificate["subjectAltName"]
        await client.say(b"it is me\n")
        await app.received(9)


@versions
async def test_openssl_has_no_certificate(ca: trustme.CA, files: Path, version: str) -> None:
    async with (
        listening(asking_server(ca, ca)) as listener,
        s_client(files, listener.port, f"-{version}") as client,
    ):
        error = await listener.failed()
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(error)
        await client.said("alert (certificate required|handshake failure)")


async def test_openssl_trusts_somebody_else(files: Path) -> None:
    async with (
        listening(server_of(trustme.CA())) as listener,
        s_client(files, listener.port, "") as client,
    ):
        assert code_of(await listener.failed()) is ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN
        await client.said("unable to get local issuer certificate")


async def test_openssl_resumes_a_session(ca: trustme.CA, files: Path) -> None:
    async with (
        listening(server_of(ca), lambda: [App()]) as listener,
        s_client(files, listener.port, "-tls1_2 -reconnect") as client,
    ):
        for count in range(1, 7):
            channel = await listener.accepted(count)
            assert bool(tls_of(channel).ssl_object.session_reused) is (count > 1)
        await client.say(b"Q\n")
        await client.ended()
        assert client.output.count(b"Reused, TLSv1.2") == 5


@pytest.mark.parametrize(("version", "command"), [("tls1_2", b"R\n"), ("tls1_3", b"K\n")])
async def test_openssl_wants_new_keys_of_the_server(
    ca: trustme.CA, files: Path, version: str, command: bytes
) -> None:
    app = App()
    async with (
        listening(server_of(ca), lambda: [app]) as listener,
        s_client(files, listener.port, f"-{version}") as client,
    ):
        channel = await listener.accepted()
        await client.say(b"with old keys\n")
        await app.received(14)
        await client.say(command)
        await client.said("RENEGOTIATING|KEYUPDATE")
        if version == "tls1_3":
            await client.say(b"with new keys\n")
            assert await app.received(28) == b"with old keys\nwith new keys\n"
            await app.write(b"with mine, too\n")
            await client.said("with mine, too")
            assert channel.error is None
        else:
            await client.said("no renegotiation")


# STARTTLS


class Mail(App):
    """As much of SMTP as it takes to start TLS, and an echo from then on."""

    def __init__(self, tls: TlsContext) -> None:
        super().__init__()
        self._tls = tls
        self.secret = b""
        self._says = {
            b"EHLO": b"250-mail.example\r\n250 STARTTLS\r\n",
            b"STARTTLS": b"220 go ahead\r\n",
        }

    def greet(self) -> None:
        self._send(b"220 mail.example ESMTP\r\n")

    def _send(self, text: bytes) -> None:
        assert self.slot is not None
        self.slot.send_message(IoMessage(text), ChannelDirection.WRITE)

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        super().process_read_message(slot, message)
        line = bytes(message.data)
        if not self._says:
            self._send(line)
            return
        word = line.split()[0]
        self._send(self._says.pop(word))
        if word == b"STARTTLS":
            self._says.clear()
            assert slot.left is not None
            tls_slot = slot.channel.new_slot()
            slot.insert_left(tls_slot)
            tls_slot.set_handler(TlsChannelHandler.server(TlsConnectionOptions(self._tls)))


@versions
async def test_openssl_starts_tls_in_a_running_channel(
    ca: trustme.CA, files: Path, version: str
) -> None:
    mail = Mail(server_of(ca))
    async with (
        listening(None, lambda: [mail]) as listener,
        s_client(files, listener.port, f"-{version} -starttls smtp") as client,
    ):
        await listener.accepted()
        mail.greet()
        await client.say(b"in confidence\n")
        await client.said("in confidence\n")
        assert mail.data.endswith(b"STARTTLS\r\nin confidence\n")
        await client.say(b"Q\n")
        assert await listener.ended() is None
