"""httpx and httpcore on channels: the same requests that work without them, and what they add."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from aws_io_async import (
    Channel,
    ClientBootstrap,
    EventLoopGroup,
    HostResolutionConfig,
    HostResolver,
    SocketOptions,
)
from aws_io_async.channel import ChannelState
from aws_io_async.integrations.httpcore import ChannelBackend
from aws_io_async.integrations.httpx import ChannelTransport
from aws_io_async.retry_strategy import BackoffOptions, ExponentialBackoffRetryStrategy
from aws_io_async.statistics import SocketStatistics, TlsStatistics
from tests.applications.test_uvicorn import serving
from tests.applications.traffic import KIB, MIB, blob, digest, pieces
from tests.streams import PATIENCE, port_of, raw_listener, settled

NAME = "service.example"


def client(
    port: int, backend: ChannelBackend | None = None, *, scheme: str = "http", **options: Any
) -> httpx.AsyncClient:
    timeout = options.pop("timeout", PATIENCE)
    transport = ChannelTransport(backend, trust_env=False, **options)
    return httpx.AsyncClient(
        transport=transport, base_url=f"{scheme}://localhost:{port}", timeout=timeout
    )


def channel_of(response: httpx.Response) -> Channel:
    channel = response.extensions["network_stream"].get_extra_info("channel")
    assert isinstance(channel, Channel)
    return channel


@contextlib.contextmanager
def resolver_of(*addresses: str) -> Any:
    """A resolver to which every name has these addresses."""
    config = HostResolutionConfig(impl=lambda host: addresses)
    with HostResolver(config=config) as resolver:
        yield resolver


# Requests


async def test_requests() -> None:
    body = blob(3 * MIB)
    async with serving() as running, client(running.port) as http:
        answer = await http.get("/loop")
        assert answer.json()[2] == "http"
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.post("/digest", content=body)).text == digest(body)


async def test_streams_in_both_directions() -> None:
    sent, got = blob(4 * MIB), bytearray()
    async with (
        serving() as running,
        client(running.port) as http,
        http.stream("POST", "/echo", content=pieces(sent)) as answer,
    ):
        async for chunk in answer.aiter_bytes():
            got += chunk
    assert digest(got) == digest(sent)


async def test_many_requests_at_once() -> None:
    bodies = [blob(10_000, seed) for seed in range(100)]
    limits = httpx.Limits(max_connections=10)
    async with serving() as running, client(running.port, limits=limits) as http:
        answers = await asyncio.gather(*(http.post("/digest", content=body) for body in bodies))
    assert [answer.text for answer in answers] == [digest(body) for body in bodies]


async def test_a_connection_is_kept_and_counts() -> None:
    async with serving() as running, client(running.port) as http:
        first = channel_of(await http.get("/loop"))
        answer = await http.get("/loop")
        channel = channel_of(answer)
        assert channel is first
        (figures,) = channel.statistics()
        assert isinstance(figures, SocketStatistics)
        assert figures.bytes_read > 2 * len(answer.content)
        stream = answer.extensions["network_stream"]
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", running.port)
        assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("something else") is None
        assert not channel.is_closing()
    assert channel.state is ChannelState.SHUT_DOWN


async def test_tls(server_files: dict[str, str], client_tls: ssl.SSLContext) -> None:
    body = blob(2 * MIB)
    async with (
        serving(**server_files) as running,
        client(running.port, scheme="https", verify=client_tls) as http,
    ):
        answer = await http.get("/loop")
        assert answer.json()[2] == "https"
        assert (await http.post("/digest", content=body)).text == digest(body)
        assert digest((await http.post("/echo", content=pieces(body))).content) == digest(body)
        stream = answer.extensions["network_stream"]
        assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        _, figures = channel_of(answer).statistics()
        assert isinstance(figures, TlsStatistics)


@pytest.fixture
def server_files(ca: Any, tmp_path: Path) -> dict[str, str]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}


async def test_a_local_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlocal")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(answer, path), client(0, uds=path) as http:
        assert (await http.get("/")).text == "local"
    async with client(0, uds=f"{path}-nowhere") as http:
        with pytest.raises(httpx.ConnectError, match="socket-nowhere"):
            await http.get("/")


@contextlib.asynccontextmanager
async def proxy(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A proxy that connects to wherever it is told to; its port."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = request.split(b" ", 2)
        assert method == b"CONNECT"
        host, _, port = target.decode().rpartition(":")
        their_reader, their_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(relay(reader, their_writer), relay(their_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", ssl=tls) as server:
        yield port_of(server.sockets[0])


@pytest.mark.parametrize("secure", [False, True], ids=["plain proxy", "proxy over TLS"])
async def test_tls_through_a_proxy(
    secure: bool,
    server_files: dict[str, str],
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    body = blob(MIB)
    async with serving(**server_files) as running, proxy(server_tls if secure else None) as port:
        url = f"{'https' if secure else 'http'}://localhost:{port}"
        via = httpx.Proxy(url, ssl_context=client_tls if secure else None)
        async with client(running.port, scheme="https", verify=client_tls, proxy=via) as http:
            answer = await http.post("/echo", content=pieces(body))
            assert digest(answer.content) == digest(body)
            handlers = [type(slot.handler).__name__ for slot in channel_of(answer).slots()]
            assert handlers.count("TlsChannelHandler") == 1 + secure


async def test_httpcore_alone() -> None:
    async with serving() as running:
        url = f"http://localhost:{running.port}/digest"
        async with httpcore.AsyncConnectionPool(network_backend=ChannelBackend()) as pool:
            answer = await pool.request("POST", url, content=b"abc")
        assert answer.content.decode() == digest(b"abc")


# What channels add


async def test_names_are_the_resolvers() -> None:
    with resolver_of("127.0.0.1") as resolver:
        backend = ChannelBackend(ClientBootstrap(host_resolver=resolver))
        async with serving() as running, client(running.port, backend) as http:
            url = f"http://{NAME}:{running.port}/digest"
            assert (await http.post(url, content=b"abc")).text == digest(b"abc")
        assert resolver.get_host_address_count(NAME) == 1


async def test_an_address_that_fails_is_reported_and_the_next_one_tried() -> None:
    strategy = ExponentialBackoffRetryStrategy(BackoffOptions(max_retries=3, scale_factor=0))
    with resolver_of("127.0.0.2", "127.0.0.1") as resolver:
        backend = ChannelBackend(ClientBootstrap(host_resolver=resolver), retry_strategy=strategy)
        async with serving() as running, client(running.port, backend) as http:
            for _ in range(3):
                url = f"http://{NAME}:{running.port}/loop"
                answer = await http.get(url, headers={"Connection": "close"})
                assert answer.status_code == 200
        assert resolver.get_host_address_count(NAME) == 1


async def test_channels_on_loops_of_their_own() -> None:
    body = blob(MIB)
    async with EventLoopGroup(2) as group:
        backend = ChannelBackend(ClientBootstrap(group))
        async with serving() as running, client(running.port, backend) as http:
            answers = await asyncio.gather(
                *(http.post("/echo", content=pieces(body)) for _ in range(4))
            )
            assert [digest(answer.content) for answer in answers] == [digest(body)] * 4
            assert all(channel_of(answer).loop in list(group) for answer in answers)


async def test_tls_on_loops_of_their_own(
    server_files: dict[str, str], client_tls: ssl.SSLContext
) -> None:
    async with EventLoopGroup(1) as group:
        backend = ChannelBackend(ClientBootstrap(group))
        async with (
            serving(**server_files) as running,
            client(running.port, backend, scheme="https", verify=client_tls) as http,
        ):
            assert (await http.post("/digest", content=b"abc")).text == digest(b"abc")


async def test_an_answer_that_is_not_read_is_held_back() -> None:
    async with raw_listener() as listener:
        backend = ChannelBackend(window=64 * KIB)
        async with client(port_of(listener), backend) as http:
            request = asyncio.ensure_future(http.send(http.build_request("GET", "/"), stream=True))
            loop = asyncio.get_running_loop()
            peer, _ = await loop.sock_accept(listener)
            with peer:
                peer.setblocking(False)
                await loop.sock_recv(peer, 65536)
                body = blob(32 * MIB)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                sending = asyncio.ensure_future(loop.sock_sendall(peer, head + body))
                answer = await request
                channel = channel_of(answer)
                taken = await settled(lambda: _read_by(channel))
                assert taken <= 128 * KIB  # the window, and what httpcore has in hand
                assert digest(await answer.aread()) == digest(body)
                await sending


def _read_by(channel: Channel) -> int:
    figures = channel.statistics()[0]
    assert isinstance(figures, SocketStatistics)
    return figures.bytes_read


# What goes wrong


async def test_nobody_listens() -> None:
    async with raw_listener() as listener:
        port = port_of(listener)
    async with client(port) as http:
        with pytest.raises(httpx.ConnectError, match="AWS_IO_SOCKET_CONNECTION_REFUSED"):
            await http.get("/")


async def test_no_such_name() -> None:
    def fail(host: str) -> Sequence[str]:
        raise OSError("no DNS today")

    with HostResolver(config=HostResolutionConfig(impl=fail)) as resolver:
        backend = ChannelBackend(ClientBootstrap(host_resolver=resolver))
        async with client(1, backend) as http:
            with pytest.raises(httpx.ConnectError, match="no DNS today"):
                await http.get(f"http://{NAME}/")


async def test_a_connect_timeout() -> None:
    release = asyncio.Event()

    async def hang(host: str) -> Sequence[str]:
        await release.wait()
        return []

    with HostResolver(config=HostResolutionConfig(impl=hang)) as resolver:
        backend = ChannelBackend(ClientBootstrap(host_resolver=resolver))
        async with client(1, backend, timeout=0.1) as http:
            with pytest.raises(httpx.ConnectTimeout):
                await http.get(f"http://{NAME}/")


async def test_a_server_that_is_not_trusted(server_files: dict[str, str]) -> None:
    async with serving(**server_files) as running, client(running.port, scheme="https") as http:
        with pytest.raises(httpx.ConnectError, match="unable to get local issuer certificate"):
            await http.get("/loop")


async def test_a_name_that_is_not_in_the_certificate(
    server_files: dict[str, str], client_tls: ssl.SSLContext
) -> None:
    async with serving(**server_files) as running, client(running.port, verify=client_tls) as http:
        with pytest.raises(httpx.ConnectError, match=r"not valid for '127\.0\.0\.1'"):
            await http.get(f"https://127.0.0.1:{running.port}/loop")


async def test_a_handshake_that_does_not_come_to_an_end() -> None:
    async with (
        raw_listener() as listener,
        client(port_of(listener), scheme="https", timeout=0.2) as http,
    ):
        with pytest.raises(httpx.ConnectTimeout):
            await http.get("/")


async def test_a_read_timeout() -> None:
    async with serving() as running, client(running.port) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/slow", timeout=0.1)
        running.app.release.set()
        assert (await http.get("/loop")).status_code == 200


async def test_a_write_timeout() -> None:
    async with raw_listener() as listener, client(port_of(listener)) as http:
        with pytest.raises(httpx.WriteTimeout):
            await http.post("/", content=blob(32 * MIB), timeout=httpx.Timeout(5, write=0.2))


async def test_a_cancelled_request_leaves_nothing() -> None:
    async with serving() as running, client(running.port) as http:
        request = asyncio.ensure_future(http.get("/slow"))
        await running.app.arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        running.app.release.set()
        assert (await http.get("/loop")).status_code == 200


async def test_an_answer_that_is_given_up_leaves_the_server_well() -> None:
    async with serving() as running, client(running.port) as http:
        async with http.stream("POST", "/echo", content=pieces(blob(2 * MIB))) as answer:
            async for _ in answer.aiter_bytes():
                break
        channel = channel_of(answer)
        assert channel.state is ChannelState.SHUT_DOWN
        assert (await http.get("/loop")).status_code == 200


@contextlib.asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[int]:
    """A server that answers each connection with the next of these, and ends it; its port."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield port_of(server.sockets[0])


async def test_a_server_that_ends_in_the_middle() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    async with answering(half, b"") as port, client(port) as http:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message"):
            await http.get("/")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await http.get("/")


async def test_a_body_that_the_end_of_the_connection_ends() -> None:
    async with answering(b"HTTP/1.0 200 OK\r\n\r\nall") as port, client(port) as http:
        assert (await http.get("/")).text == "all"


async def test_a_reset_connection() -> None:
    async with raw_listener() as listener, client(port_of(listener)) as http:
        request = asyncio.ensure_future(http.get("/"))
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(listener)
        peer.setblocking(False)
        await loop.sock_recv(peer, 65536)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(httpx.ReadError, match="AWS_IO_SOCKET_CLOSED"):
            await request


async def test_an_idle_connection_that_the_server_ended_is_not_used() -> None:
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"  # it does not say that it will end
    async with answering(*[kept] * 20) as port, client(port) as http:
        channels = set()
        for _ in range(20):
            answer = await http.get("/")
            assert answer.text == "ok"
            channels.add(channel_of(answer))
            await asyncio.sleep(0.005)
        assert len(channels) == 20


async def test_a_local_address_is_refused() -> None:
    async with client(1, local_address="127.0.0.1") as http:
        with pytest.raises(NotImplementedError, match="network_interface_name"):
            await http.get("/")


async def test_socket_options() -> None:
    option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    backend = ChannelBackend(socket_options=SocketOptions(tcp_nodelay=False))
    async with serving() as running, client(running.port, backend, socket_options=[option]) as http:
        answer = await http.get("/loop")
        sock = answer.extensions["network_stream"].get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
