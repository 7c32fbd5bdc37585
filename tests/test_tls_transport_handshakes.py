"""TLS on the loops: handshakes that fail."""

import asyncio
import gc
import socket
import ssl
import weakref
from typing import Any

import pytest
import trustme

from aws_io_async.event_loop._tls_transport import TlsProtocol
from tests import tls_transports
from tests.recorders import Recorder
from tests.tls_transports import HOST, Contexts, Far, catch, connecting, nonblocking_pair

server_context = tls_transports.server_context
client_context = tls_transports.client_context
contexts = tls_transports.contexts
reported = tls_transports.reported


# Handshakes that fail


async def test_a_certificate_that_is_refused(
    client_context: ssl.SSLContext, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(other)
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        far = Far(far_sock, other)
        task = connecting(protocol, near, client_context)
        handshake = asyncio.ensure_future(far.handshake())
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await task
        assert caught.value.verify_code in (18, 19, 20)
        assert caught.value.verify_message
        await asyncio.wait([handshake])
        handshake.exception()
    assert protocol.events == []
    assert reported == []


@pytest.mark.loops("aws_io_async")  # asyncio from Python 3.14 on
@pytest.mark.parametrize("how", ["create_connection", "start_tls"])
async def test_a_failed_handshake_is_freed_without_the_garbage_collector(
    client_context: ssl.SSLContext, how: str
) -> None:
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(other)
    loop = asyncio.get_running_loop()
    protocol = asyncio.Protocol()  # which keeps no error
    near, far_sock = nonblocking_pair()

    async def connect() -> None:
        if how == "create_connection":
            await connecting(protocol, near, client_context)
            return
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        await loop.start_tls(transport, protocol, client_context, server_hostname=HOST)

    async def fail() -> "weakref.ref[ssl.SSLCertVerificationError]":
        handshake = asyncio.ensure_future(Far(far_sock, other).handshake())
        error = None
        try:
            await connect()
        except ssl.SSLCertVerificationError as exc:
            error = weakref.ref(exc)
        await asyncio.wait([handshake])
        handshake.exception()
        assert error is not None
        return error

    gc.collect()
    gc.disable()
    try:
        with far_sock:
            error = await fail()
        assert error() is None
    finally:
        gc.enable()


@pytest.mark.loops("aws_io_async")  # the others close without a word
async def test_the_peer_is_told_why_its_certificate_is_refused(
    client_context: ssl.SSLContext,
) -> None:
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(other)
    near, far_sock = nonblocking_pair()
    with far_sock:
        far = Far(far_sock, other)
        task = connecting(Recorder(), near, client_context)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert unknown ca"):
            await far.handshake()
        with pytest.raises(ssl.SSLCertVerificationError):
            await task


async def test_the_default_context_checks_certificates(server_context: ssl.SSLContext) -> None:
    near, far_sock = nonblocking_pair()
    with far_sock:
        far = Far(far_sock, server_context)
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(
            loop.create_connection(Recorder, sock=near, ssl=True, server_hostname=HOST)
        )
        handshake = asyncio.ensure_future(far.handshake())
        with pytest.raises(ssl.SSLCertVerificationError):
            await task
        await asyncio.wait([handshake])
        handshake.exception()


async def test_a_handshake_that_takes_too_long(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        with pytest.raises(ConnectionAbortedError) as caught:
            await connecting(protocol, near, contexts[0], ssl_handshake_timeout=0.1)
        assert str(caught.value) == (
            "SSL handshake is taking longer than 0.1 seconds: aborting the connection"
        )
        await Far(far_sock, contexts[1]).ciphertext_to_end()
    assert protocol.events == []


async def test_a_peer_that_leaves_in_the_handshake(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        task = connecting(protocol, near, contexts[0])
        await asyncio.sleep(0)
        far_sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            await task
        await Far(far_sock, contexts[1]).ciphertext_to_end()
    assert protocol.events == []


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop leaves the socket open
async def test_a_peer_that_resets_in_the_handshake(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        task = connecting(protocol, near, contexts[0])
        await asyncio.sleep(0)
        Far(far_sock, contexts[1]).reset()
        with pytest.raises(ConnectionError):
            await task
    assert protocol.events == []


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x80" * 100])
async def test_a_peer_that_does_not_speak_tls(
    contexts: Contexts, garbage: bytes, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        far_sock.send(garbage)
        with pytest.raises(ssl.SSLError):
            await connecting(protocol, near, contexts[0])
        await Far(far_sock, contexts[1]).ciphertext_to_end()
    assert protocol.events == []
    assert reported == []


async def test_a_cancelled_connect_leaves_nothing(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        task = connecting(protocol, near, contexts[0])
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await Far(far_sock, contexts[1]).ciphertext_to_end()
        await asyncio.sleep(0)
    assert protocol.events == []


async def test_a_server_outlives_bad_clients(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    reported: list[dict[str, Any]],
) -> None:
    catch(reported)
    loop = asyncio.get_running_loop()
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context)
    address = server.sockets[0].getsockname()
    for manner in ("garbage", "leave", "reset", "good"):
        sock = socket.socket()
        with sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            far = Far(sock, client_context)
            if manner == "garbage":
                await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\n\r\n")
                await far.ciphertext_to_end()
            elif manner == "leave":
                sock.shutdown(socket.SHUT_WR)
                await far.ciphertext_to_end()
            elif manner == "reset":
                far.reset()
            else:
                await far.handshake()
                await far.send(b"good")
                assert await protocols[-1].received(4) == b"good"
                await far.close_notify()
                assert await far.to_end() == b""
    await protocols[-1].has("lost")
    assert all(protocol.events == [] for protocol in protocols[:-1])
    assert reported == []
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("seconds", [0, -1])
async def test_timeouts_are_positive(contexts: Contexts, option: str, seconds: float) -> None:
    near, far = nonblocking_pair()
    with near, far, pytest.raises(ValueError, match=f"{option} should be a positive number, got"):
        await connecting(Recorder(), near, contexts[0], **{option: seconds})


@pytest.mark.loops("aws_io_async")  # for the others this is another class
async def test_a_server_needs_a_context() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="Server side SSL needs a valid SSLContext"):
        TlsProtocol(loop, Recorder(), True, None, server_side=True)
