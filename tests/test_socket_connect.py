"""How sockets get addresses and connections: bind, listen, accept, connect, and what goes wrong."""

import asyncio
import os
import socket as stdlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aws_io_async.errors import AwsIoError, CommonErrorCode, ErrorCode
from aws_io_async.socket import (
    Socket,
    SocketDomain,
    SocketEndpoint,
    SocketOptions,
    SocketState,
    SocketType,
)
from tests import loops
from tests.socket_tools import (
    LOOPBACK,
    black_hole,
    connected,
    is_open,
    is_watched,
    listening,
    local_endpoint,
    raises,
    state,
    turns,
)

IPV4, IPV6, LOCAL, VSOCK = SocketDomain
DGRAM = SocketOptions(type=SocketType.DGRAM)
HERE = SocketEndpoint("127.0.0.1")
PATIENT = SocketOptions(connect_timeout=3600)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root becomes somebody who may not bind to port 80, for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def may_anybody_bind_to_port_80() -> bool:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return first.exists() and int(first.read_text()) <= 80


# Binding


@pytest.mark.parametrize("domain", [IPV4, IPV6])
async def test_bind_on_zero_port_tcp_ipv4(domain: SocketDomain) -> None:
    async with Socket(SocketOptions(domain=domain)) as sock:
        with raises(ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE):
            sock.get_bound_address()
        sock.bind(SocketEndpoint(LOOPBACK[domain], 0))
        assert state(sock) is SocketState.BOUND
        bound = sock.get_bound_address()
        assert bound.address == LOOPBACK[domain]
        assert bound.port > 0
        sock.listen()
        assert sock.get_bound_address() == bound == sock.local_endpoint


async def test_bind_on_zero_port_udp_ipv4() -> None:
    async with Socket(DGRAM) as sock:
        with raises(ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE):
            sock.get_bound_address()
        sock.bind(HERE)
        bound = sock.get_bound_address()
        assert bound.address == "127.0.0.1"
        assert bound.port > 0
        assert sock.get_bound_address() == bound


async def test_bind_of_a_vsock_socket() -> None:
    try:
        sock = Socket(SocketOptions(domain=VSOCK))
    except AwsIoError as exc:
        pytest.skip(str(exc))
    async with sock:
        sock.bind(SocketEndpoint("-1", 0xFFFF_FFFF))
        bound = sock.get_bound_address()
        assert bound.address == "4294967295"
        assert 0 < bound.port < 0xFFFF_FFFF


async def test_incoming_duplicate_tcp_bind_errors() -> None:
    async with await listening() as listener, Socket() as second:
        address = listener.get_bound_address()
        with raises(ErrorCode.IO_SOCKET_ADDRESS_IN_USE, match=str(address)):
            second.bind(address)
        assert state(second) is SocketState.ERROR
        with raises(ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE):
            second.bind(HERE)


@pytest.mark.skipif(may_anybody_bind_to_port_80(), reason="port 80 is not privileged here")
async def test_incoming_tcp_sock_errors() -> None:
    async with Socket() as sock:
        with unprivileged(), raises(CommonErrorCode.ERROR_NO_PERMISSION, match="127.0.0.1:80"):
            sock.bind(SocketEndpoint("127.0.0.1", 80))


async def test_incoming_udp_sock_errors() -> None:
    async with Socket(DGRAM) as sock:
        with raises(ErrorCode.IO_SOCKET_INVALID_ADDRESS, match="127.0"):
            sock.bind(SocketEndpoint("127.0", 80))
        assert state(sock) is SocketState.INIT
        with raises(ErrorCode.IO_SOCKET_INVALID_ADDRESS, match="192.0.2.1"):
            sock.bind(SocketEndpoint("192.0.2.1", 8080))  # not one of this machine's


# Listening and accepting


async def test_accepted_sockets_know_their_ends() -> None:
    options = SocketOptions(tcp_nodelay=True, keep_alive=True)
    async with connected(options) as (client, server):
        assert client.remote_endpoint == server.local_endpoint
        assert server.remote_endpoint == client.local_endpoint == client.get_bound_address()
        assert server.options is options
        assert server.loop is None
        with stdlib.socket(fileno=stdlib.dup(server.fileno())) as same:
            assert same.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)
            assert same.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE)
        assert not os.get_blocking(server.fileno())


async def test_local_socket_pipe_connected_race() -> None:
    """A connection that comes before anybody accepts is accepted later."""
    options = SocketOptions(domain=LOCAL)
    with local_endpoint() as endpoint:
        async with await listening(options, endpoint) as listener, Socket(options) as client:
            await client.connect(endpoint)
            async with await listener.accept() as server:
                assert server.options.domain is LOCAL
                assert server.remote_endpoint == endpoint == client.remote_endpoint
                assert client.local_endpoint is None
                await client.write(b"abc")
                assert await server.read() == b"abc"


async def test_connections_by_iteration_until_the_listener_is_closed() -> None:
    async with await listening() as listener:
        address = listener.get_bound_address()
        accepted: asyncio.Queue[Socket] = asyncio.Queue()

        async def serve() -> None:
            async for connection in listener:
                accepted.put_nowait(connection)

        serving = asyncio.create_task(serve())
        for _ in range(3):
            async with Socket() as client:
                await client.connect(address)
                async with await accepted.get() as server:
                    assert server.remote_endpoint == client.local_endpoint
        listener.close()
        await serving
        async for _ in listener:
            pytest.fail("it is closed")


async def test_cleanup_in_accept_doesnt_explode() -> None:
    """A listener that is closed by the one who accepts leaves the connection alone."""
    async with await listening() as listener, Socket() as client:
        connecting = asyncio.create_task(client.connect(listener.get_bound_address()))
        accepted = []
        async for connection in listener:
            accepted.append(connection)
            listener.close()
        await connecting
        async with accepted[0] as server:
            assert server.options.domain is client.options.domain
            await client.write(b"abc")
            assert await server.read() == b"abc"


@pytest.mark.parametrize("later", range(6))
async def test_a_cancelled_accept_loses_no_connection(later: int) -> None:
    async with await listening() as listener, Socket() as client:
        accepting = asyncio.create_task(listener.accept())
        await turns()
        with stdlib.socket() as plain:
            plain.setblocking(False)
            address = listener.get_bound_address()
            plain.connect_ex((address.address, address.port))
            await turns(later)
            accepting.cancel()
            await asyncio.wait([accepting])
            assert not is_watched(listener.fileno())
            server = await listener.accept() if accepting.cancelled() else accepting.result()
            async with server:
                assert server.remote_endpoint == SocketEndpoint(*plain.getsockname())
        assert state(client) is SocketState.INIT


async def test_accept_out_of_descriptors_raises_and_leaves_the_connection() -> None:
    resource = pytest.importorskip("resource")
    async with await listening() as listener, Socket() as client:
        await client.connect(listener.get_bound_address())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with raises(CommonErrorCode.ERROR_MAX_FDS_EXCEEDED):
                await listener.accept()
            with raises(CommonErrorCode.ERROR_MAX_FDS_EXCEEDED):
                Socket()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with await listener.accept() as server:
            assert server.remote_endpoint == client.local_endpoint


async def test_datagram_sockets_do_not_listen() -> None:
    async with Socket(DGRAM) as sock:
        sock.bind(HERE)
        with raises(ErrorCode.IO_SOCKET_INVALID_OPERATION_FOR_TYPE):
            sock.listen()
        with raises(ErrorCode.IO_SOCKET_INVALID_OPERATION_FOR_TYPE):
            await sock.accept()
        assert state(sock) is SocketState.RECEIVING


# Connecting


async def test_connect_timeout() -> None:
    with black_hole() as nowhere:
        async with Socket(SocketOptions(connect_timeout=0.05)) as sock:
            with raises(ErrorCode.IO_SOCKET_TIMEOUT, match=f"{nowhere}: no answer in 0.05 s"):
                await sock.connect(nowhere)
            assert not is_open(sock)
    with black_hole() as nowhere:
        async with Socket(SocketOptions(connect_timeout=0.05)) as sock:
            with pytest.raises(TimeoutError):
                await sock.connect(nowhere)


@pytest.mark.parametrize("factory", loops.FACTORIES.values(), ids=loops.FACTORIES)
def test_connect_timeout_cancelation(factory: loops.Factory) -> None:
    """A loop that ends takes the attempts that wait with it."""
    sock = Socket(PATIENT)
    attempts = []

    async def main() -> None:
        attempts.append(asyncio.create_task(sock.connect(nowhere)))
        await turns()
        assert state(sock) is SocketState.CONNECTING

    with black_hole() as nowhere, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert attempts[0].cancelled()
    assert not is_open(sock)


async def test_a_cancelled_connect_closes_the_socket_and_leaves_nothing_behind() -> None:
    with black_hole() as nowhere:
        async with Socket(PATIENT) as sock:
            fd = sock.fileno()
            connecting = asyncio.create_task(sock.connect(nowhere))
            await turns()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert not is_open(sock)
            assert not is_watched(fd)


async def test_a_timeout_around_connect_stays_the_callers() -> None:
    with black_hole() as nowhere:
        async with Socket(PATIENT) as sock:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.05):
                    await sock.connect(nowhere)
            assert not isinstance(caught.value, AwsIoError)
            assert not is_open(sock)


async def test_cleanup_before_connect_or_timeout_doesnt_explode() -> None:
    with black_hole() as nowhere:
        async with Socket(PATIENT) as sock:
            fd = sock.fileno()
            connecting = asyncio.create_task(sock.connect(nowhere))
            await turns()
            sock.close()
            assert not is_watched(fd)
            with raises(ErrorCode.IO_SOCKET_CLOSED, match=str(nowhere)):
                await connecting


async def test_outgoing_local_sock_errors() -> None:
    options = SocketOptions(domain=LOCAL)
    async with Socket(options) as sock:
        with raises(CommonErrorCode.ERROR_FILE_INVALID_PATH):
            await sock.connect(SocketEndpoint(""))
        assert state(sock) is SocketState.INIT
        with local_endpoint() as endpoint, pytest.raises(FileNotFoundError) as caught:
            await sock.connect(endpoint)
        assert isinstance(caught.value, AwsIoError)
        assert endpoint.address in caught.value.detail
        assert not is_open(sock)


async def test_a_local_socket_that_nobody_listens_on() -> None:
    options = SocketOptions(domain=LOCAL)
    with local_endpoint() as endpoint:
        (await listening(options, endpoint)).close()
        async with Socket(options) as sock:
            with raises(ErrorCode.IO_SOCKET_CONNECTION_REFUSED, match=endpoint.address):
                await sock.connect(endpoint)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the connection is refused")
async def test_a_local_listener_whose_backlog_is_full() -> None:
    options = SocketOptions(domain=LOCAL)
    with local_endpoint() as endpoint:
        async with Socket(options) as listener, Socket(options) as first, Socket(options) as second:
            listener.bind(endpoint)
            listener.listen(0)
            await first.connect(endpoint)
            with raises(ErrorCode.IO_READ_WOULD_BLOCK, match=endpoint.address):
                await second.connect(endpoint)
            assert not is_open(second)


@pytest.mark.parametrize("domain", [IPV4, IPV6])
async def test_outgoing_tcp_sock_error(domain: SocketDomain) -> None:
    options = SocketOptions(domain=domain, connect_timeout=50)
    listener = await listening(options)
    nobody = listener.get_bound_address()
    listener.close()
    async with Socket(options) as sock:
        with pytest.raises(ConnectionRefusedError) as caught:
            await sock.connect(nobody)
        assert isinstance(caught.value, AwsIoError)
        assert caught.value.code is ErrorCode.IO_SOCKET_CONNECTION_REFUSED
        assert str(nobody) in str(caught.value)
        assert not is_open(sock)


@pytest.mark.parametrize(
    "endpoint",
    [
        SocketEndpoint("127.0.0.1", 0),
        SocketEndpoint("127.0.0.1", 65536),
        SocketEndpoint("localhost", 80),
        SocketEndpoint("::1", 80),
    ],
)
async def test_a_connect_to_no_address_changes_nothing(endpoint: SocketEndpoint) -> None:
    async with await listening() as listener, Socket() as sock:
        with raises(ErrorCode.IO_SOCKET_INVALID_ADDRESS):
            await sock.connect(endpoint)
        assert state(sock) is SocketState.INIT
        await sock.connect(listener.get_bound_address())
        assert state(sock) is SocketState.CONNECTED


# Operations that the state does not allow


async def test_operations_that_the_state_does_not_allow() -> None:
    illegal = ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE
    async with Socket() as new:
        with raises(illegal, match="INIT"):
            new.listen()
        with raises(illegal, match="INIT"):
            await new.accept()
        for operation in (new.read(), new.write(b""), new.read_into(bytearray(1))):
            with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
                await operation
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            new.read_nowait()
    with raises(illegal, match="CLOSED"):
        new.bind(HERE)
    async with connected() as (client, _), await listening() as listener:
        address = listener.get_bound_address()
        for sock in (client, listener):
            with raises(illegal):
                sock.bind(HERE)
            with raises(illegal):
                sock.listen()
            with raises(illegal):
                await sock.connect(address)
            assert is_open(sock)
        with raises(illegal, match="listen"):
            await client.accept()
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            await listener.read()
