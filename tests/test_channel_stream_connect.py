"""`connect`: what it gives, what it refuses, and what is left when it does not succeed."""

import asyncio
import ssl

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from aws_io_async.channel_stream import connect
from aws_io_async.errors import ErrorCode
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests import channels
from tests.bootstraps import knowing
from tests.serving import client_of_server, echo
from tests.socket_tools import black_hole, raises
from tests.streams import LOOPBACK, give_up, port_of, raw_listener, received, tls_of, until
from tests.tls_peers import HOST, client_of, server_of

no_tasks_left = channels.no_tasks_left


async def test_a_name_is_looked_up() -> None:
    with knowing(**{HOST: [LOOPBACK]}) as resolver:
        async with (
            raw_listener() as listener,
            await connect(HOST, port_of(listener), host_resolver=resolver) as stream,
        ):
            assert stream.extra(SocketAttribute.remote_address) == (LOOPBACK, port_of(listener))


async def test_a_peer_that_has_ended_its_side_already() -> None:
    """The other side goes on."""
    async with raw_listener() as listener:
        stream = await connect(LOOPBACK, port_of(listener))
        peer, _ = listener.accept()
        with peer:
            peer.send(b"only this")
            peer.shutdown(1)
            assert b"".join([data async for data in stream]) == b"only this"
            await stream.send(b"heard")
            assert peer.recv(100) == b"heard"
        await stream.aclose()


# What does not succeed


async def test_refused() -> None:
    async with raw_listener() as listener:
        port = port_of(listener)
    with raises(ErrorCode.IO_SOCKET_CONNECTION_REFUSED, f"{LOOPBACK}:{port}"):
        await connect(LOOPBACK, port)


async def test_a_name_that_does_not_resolve() -> None:
    with knowing() as resolver, pytest.raises(OSError, match=r"nobody\.example"):
        await connect("nobody.example", 80, host_resolver=resolver)


@pytest.mark.parametrize("host", ["", "two words", "a" * 64 + ".example", "a\0b"])
async def test_what_is_no_name(host: str) -> None:
    with raises(ErrorCode.IO_DNS_INVALID_NAME):
        await connect(host, 80)


async def test_nobody_answers() -> None:
    options = SocketOptions(connect_timeout=0.05)
    with black_hole() as endpoint, raises(ErrorCode.IO_SOCKET_TIMEOUT):
        await connect(endpoint.address, endpoint.port, socket_options=options)


async def test_timeouts_of_asyncio_and_anyio() -> None:
    with black_hole() as endpoint:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await connect(endpoint.address, endpoint.port)
        with pytest.raises(TimeoutError), anyio.fail_after(0.02):
            await connect(endpoint.address, endpoint.port)
        with anyio.move_on_after(0.02) as scope:
            await connect(endpoint.address, endpoint.port)
        assert scope.cancelled_caught


async def test_a_peer_that_does_not_speak_tls(ca: trustme.CA) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, LOOPBACK) as server:
        port = port_of(server.sockets[0])
        with raises(ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE, f"{LOOPBACK}:{port}"):
            await connect(LOOPBACK, port, tls=client_of(ca))
        await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_peer_that_leaves_instead_of_speaking_tls(ca: trustme.CA) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(leave, LOOPBACK) as server:
        with pytest.raises(OSError, match=LOOPBACK):
            await connect(LOOPBACK, port_of(server.sockets[0]), tls=client_of(ca))
        await until(lambda: len(asyncio.all_tasks()) == 1)


# TLS


async def test_the_peer_must_be_the_host_that_was_named(ca: trustme.CA) -> None:
    """Unless the options name another."""
    async with await asyncio.start_server(
        lambda reader, writer: writer.close(), LOOPBACK, ssl=server_of(ca).ssl_context
    ) as server:
        port = port_of(server.sockets[0])
        with raises(ErrorCode.IO_TLS_HOST_NAME_MISMATCH):
            await connect(LOOPBACK, port, tls=client_of(ca))
        async with await connect(LOOPBACK, port, tls=TlsConnectionOptions(client_of(ca), HOST)):
            pass


async def test_by_default_the_systems_authorities_are_trusted(ca: trustme.CA) -> None:
    """Which do not know the tests'."""
    async with await asyncio.start_server(
        lambda reader, writer: writer.close(), LOOPBACK, ssl=server_of(ca, LOOPBACK).ssl_context
    ) as server:
        with raises(ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE):
            await connect(LOOPBACK, port_of(server.sockets[0]), tls=True)


async def test_without_tls() -> None:
    async with raw_listener() as listener:
        for tls in None, False:
            async with await connect(LOOPBACK, port_of(listener), tls=tls) as stream:
                assert stream.extra(TLSAttribute.tls_version, None) is None


# Cancellation


@pytest.mark.parametrize("threads", [False, True], ids=["here", "threads"])
async def test_it_is_cancelled_at_each_turn(ca: trustme.CA, threads: bool) -> None:
    """Nothing is left: see the checks that follow each test."""
    security = tls_of(ca)
    async with client_of_server(echo, security) as client:
        port = client.extra(SocketAttribute.remote_port)
        async with EventLoopGroup(1) as group:
            for count in range(40):
                await give_up(
                    connect(
                        LOOPBACK,
                        port,
                        tls=security.client,
                        event_loop_group=group if threads else None,
                    ),
                    count,
                )
        await client.send(b"well")
        assert await received(client, 4) == b"well"


# Arguments


BAD: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"host": None}, TypeError, "host must be a str"),
    ({"host": b"127.0.0.1"}, TypeError, "host must be a str"),
    ({"port": "80"}, TypeError, "port must be an int, not '80'"),
    ({"port": 80.5}, TypeError, "port must be an int, not 80.5"),
    ({"port": 0}, ValueError, "port 0"),
    ({"port": -1}, ValueError, "port -1"),
    ({"port": 65536}, ValueError, "port 65536"),
    ({"window": 0}, ValueError, "window must be positive"),
    ({"window": "1"}, TypeError, "window must be an int, not '1'"),
    ({"tls": "yes"}, TypeError, "tls must be a TlsContext"),
    ({"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, OSError, "PROTOCOL_TLS_SERVER"),
    ({"event_loop_group": 3}, TypeError, "must be an EventLoopGroup"),
    ({"socket_options": {}}, TypeError, "must be SocketOptions"),
]


@pytest.mark.parametrize(("arguments", "kind", "text"), BAD, ids=lambda value: str(value)[:30])
async def test_what_cannot_be(
    arguments: dict[str, object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        await connect(**{"host": LOOPBACK, "port": 1, **arguments})  # type: ignore[arg-type]  # on purpose


async def test_a_servers_context(ca: trustme.CA) -> None:
    with raises(ErrorCode.IO_TLS_CTX_ERROR, "a client's is needed"):
        await connect(LOOPBACK, 1, tls=server_of(ca))


async def test_a_local_socket_has_no_name_to_verify() -> None:
    options = SocketOptions(domain=SocketDomain.LOCAL)
    with raises(ErrorCode.IO_TLS_CTX_ERROR, "no name that a certificate could have"):
        await connect("/nowhere", socket_options=options, tls=TlsContext.client())
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        await connect("/nowhere", socket_options=options)
