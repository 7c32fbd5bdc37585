"""`create_server` and the `Server` it returns."""

import asyncio
import errno
import socket
import ssl
from typing import Any

import pytest

from tests.recorders import BufferedRecorder, Recorder
from tests.socket_tools import no_more_descriptors

LOCAL = "127.0.0.1"


class Session(asyncio.Protocol):
    """Greets, echoes, and is known to the test."""

    def __init__(self, sessions: "list[Session]") -> None:
        self.transport: Any = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sessions.append(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"hello")

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


async def start(*args: Any, **options: Any) -> tuple[Any, list[Session]]:
    sessions: list[Session] = []
    server = await asyncio.get_running_loop().create_server(
        lambda: Session(sessions), *args, **options
    )
    return server, sessions


async def connect(address: Any) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def greeted(address: Any) -> socket.socket:
    sock = await connect(address)
    assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"hello"
    return sock


def address_of(server: Any) -> Any:
    return server.sockets[0].getsockname()


async def end(server: Any) -> None:
    server.close()
    await asyncio.wait_for(server.wait_closed(), 10)
    await asyncio.sleep(0)


def free_port() -> int:
    with socket.create_server((LOCAL, 0)) as sock:
        return int(sock.getsockname()[1])


# Where it listens


async def test_a_server_serves() -> None:
    server, sessions = await start(LOCAL, 0)
    assert server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    with await greeted(address_of(server)) as client:
        client.send(b"ping")
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"ping"
        assert sessions[0].transport.get_extra_info("peername") == client.getsockname()
        assert sessions[0].transport.get_extra_info("sockname") == client.getpeername()
    await sessions[0].lost
    await end(server)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop binds a host as often as it is named
async def test_several_hosts_and_both_families() -> None:
    port = free_port()
    server, sessions = await start([LOCAL, "127.0.0.2", "::1", LOCAL], port)
    assert {sock.getsockname()[0] for sock in server.sockets} == {LOCAL, "127.0.0.2", "::1"}
    assert len(server.sockets) == 3
    for host in (LOCAL, "127.0.0.2", "::1"):
        (await greeted((host, port))).close()
    for session in sessions:
        await session.lost
    await end(server)


@pytest.mark.parametrize("host", [None, ""])
async def test_no_host_means_every_address_of_both_families(host: Any) -> None:
    server, sessions = await start(host, free_port())
    assert {sock.family for sock in server.sockets} == {socket.AF_INET, socket.AF_INET6}
    port = address_of(server)[1]
    for local in (LOCAL, "::1"):
        (await greeted((local, port))).close()
    for session in sessions:
        await session.lost
    await end(server)


async def test_the_family_may_be_chosen() -> None:
    server, _ = await start("localhost", free_port(), family=socket.AF_INET)
    assert [sock.family for sock in server.sockets] == [socket.AF_INET]
    await end(server)


async def test_an_address_in_use_is_named_and_nothing_stays_bound() -> None:
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=r"127\.0\.0\.1") as caught:
            await start(["127.0.0.2", LOCAL], port)
        assert caught.value.errno == errno.EADDRINUSE
        assert str(port) in str(caught.value)
        socket.create_server(("127.0.0.2", port)).close()


@pytest.mark.loops("aws_io_async")  # asyncio before 3.13 raises at the first address
async def test_addresses_this_machine_does_not_have() -> None:
    with pytest.raises(OSError, match=r"could not bind on any address out of .*192\.0\.2\.1"):
        await start("192.0.2.1", free_port())
    server, _ = await start(["192.0.2.1", LOCAL], free_port())
    assert [sock.getsockname()[0] for sock in server.sockets] == [LOCAL]
    await end(server)


async def test_reuse_port_lets_two_servers_share_one() -> None:
    first, _ = await start(LOCAL, 0, reuse_port=True)
    port = address_of(first)[1]
    second, _ = await start(LOCAL, port, reuse_port=True)
    assert address_of(second)[1] == port
    await end(first)
    await end(second)


@pytest.mark.loops("aws_io_async")  # asyncio has it from 3.13
async def test_keep_alive_holds_for_the_accepted() -> None:
    for keep_alive in (True, False):
        server, sessions = await start(LOCAL, 0, keep_alive=keep_alive)
        with await greeted(address_of(server)):
            sock = sessions[0].transport.get_extra_info("socket")
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is keep_alive
        await sessions[0].lost
        await end(server)


async def test_a_socket_of_the_callers() -> None:
    sock = socket.socket()
    sock.bind((LOCAL, 0))
    server, sessions = await start(sock=sock)
    assert [listening.fileno() for listening in server.sockets] == [sock.fileno()]
    (await greeted(sock.getsockname())).close()
    await sessions[0].lost
    await end(server)
    assert sock.fileno() == -1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0", LOCAL, f"::ffff:{LOCAL}"])
async def test_connections_know_their_own_address(host: str) -> None:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, 0))
    server, sessions = await start(sock=sock)
    (await greeted((LOCAL, sock.getsockname()[1]))).close()
    address = LOCAL if sock.family == socket.AF_INET else f"::ffff:{LOCAL}"
    assert sessions[0].transport.get_extra_info("sockname")[0] == address
    await sessions[0].lost
    await end(server)


@pytest.mark.parametrize("backlog", [0, 1])
@pytest.mark.loops("aws_io_async", "uvloop")  # asyncio accepts nothing with a backlog of 0
async def test_small_backlogs(backlog: int) -> None:
    server, sessions = await start(LOCAL, 0, backlog=backlog)
    clients = [await greeted(address_of(server)) for _ in range(5)]
    for client in clients:
        client.close()
    for session in sessions:
        await session.lost
    await end(server)


async def test_misuse_is_refused_with_nothing_left_open() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for error, text, options in (
            (ValueError, "Neither host/port nor sock", {}),
            (ValueError, "can not be specified at the same time", {"port": 0, "sock": stream}),
            (ValueError, "Stream Socket was expected", {"sock": datagram}),
            (TypeError, "ssl argument must be an SSLContext", {"port": 0, "ssl": True}),
            (TypeError, "ssl argument must be an SSLContext", {"port": 0, "ssl": False}),
            (ValueError, "only meaningful with ssl", {"port": 0, "ssl_handshake_timeout": 1.0}),
            (ValueError, "only meaningful with ssl", {"port": 0, "ssl_shutdown_timeout": 1.0}),
        ):
            if "uvloop" in type(loop).__module__ and options.get("ssl") is False:
                continue
            with pytest.raises(error, match=text):
                await loop.create_server(asyncio.Protocol, **options)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop takes it
async def test_an_ssl_socket_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with (
        context.wrap_socket(socket.socket(), server_side=True) as sock,
        pytest.raises(TypeError, match="SSLSocket"),
    ):
        await start(sock=sock)


@pytest.mark.loops("aws_io_async")  # asyncio leaves the listening socket open
async def test_a_wrong_backlog_is_refused() -> None:
    with pytest.raises(TypeError):
        await start(LOCAL, 0, backlog=1.5)


# Serving


async def test_serving_may_start_later() -> None:
    server, sessions = await start(LOCAL, 0, start_serving=False)
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await connect(address_of(server))
    for _ in range(2):
        await server.start_serving()
        assert server.is_serving()
    (await greeted(address_of(server))).close()
    await sessions[0].lost
    await end(server)


async def test_serve_forever_until_cancelled() -> None:
    server, sessions = await start(LOCAL, 0, start_serving=False)
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    assert server.is_serving()
    (await greeted(address_of(server))).close()
    await sessions[0].lost
    with pytest.raises(RuntimeError, match="already being awaited"):
        await server.serve_forever()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert server.sockets in ((), [])
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


@pytest.mark.loops("aws_io_async")  # asyncio from Python 3.14 on; before, it waits for clients
async def test_a_client_that_stays_does_not_hold_up_a_server_that_is_cancelled() -> None:
    server, sessions = await start(LOCAL, 0)
    serving = asyncio.ensure_future(server.serve_forever())
    with await greeted(address_of(server)) as client:
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(serving, 10)
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    await sessions[0].lost


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop goes on serving nothing
async def test_close_ends_serve_forever() -> None:
    server, _ = await start(LOCAL, 0)
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_as_a_context_manager() -> None:
    server, sessions = await start(LOCAL, 0)
    async with server as same:
        assert same is server
        address = address_of(server)
        (await greeted(address)).close()
        await sessions[0].lost
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await connect(address)


@pytest.mark.loops("aws_io_async")  # asyncio raises TypeError about its own insides
async def test_a_closed_server_does_not_start_again() -> None:
    server, _ = await start(LOCAL, 0)
    await end(server)
    with pytest.raises(RuntimeError, match="is closed"):
        await server.start_serving()


async def test_closing_twice_is_harmless_and_connections_go_on() -> None:
    server, sessions = await start(LOCAL, 0)
    with await greeted(address_of(server)) as client:
        server.close()
        server.close()
        assert len(server.sockets or ()) == 0
        client.send(b"ping")
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"ping"
    await sessions[0].lost
    await end(server)


# asyncio before 3.12 does not wait, uvloop waits otherwise.
@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("first", ["server", "connection"])
async def test_wait_closed_waits_for_the_server_and_its_connections(first: str) -> None:
    server, sessions = await start(LOCAL, 0)
    waiters = [asyncio.ensure_future(server.wait_closed()) for _ in range(2)]
    client = await greeted(address_of(server))
    if first == "server":
        server.close()
    else:
        client.close()
        await sessions[0].lost
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    if first == "server":
        client.close()
    else:
        server.close()
    await asyncio.gather(*waiters)
    await server.wait_closed()


@pytest.mark.loops("aws_io_async")  # asyncio has it from 3.13
async def test_close_clients_sends_what_was_written() -> None:
    loop = asyncio.get_running_loop()
    server, sessions = await start(LOCAL, 0)
    clients = [await greeted(address_of(server)) for _ in range(3)]
    big = bytes(8 * 1024 * 1024)
    sessions[0].transport.write(big)
    server.close()
    server.close_clients()
    received = 0
    while data := await loop.sock_recv(clients[0], 1 << 20):
        received += len(data)
    assert received == len(big)
    for client in clients[1:]:
        assert await loop.sock_recv(client, 1) == b""
    await server.wait_closed()
    for client in clients:
        client.close()


@pytest.mark.loops("aws_io_async")  # asyncio has it from 3.13
async def test_abort_clients_sends_nothing_more() -> None:
    loop = asyncio.get_running_loop()
    server, sessions = await start(LOCAL, 0)
    with await greeted(address_of(server)) as client:
        big = bytes(32 * 1024 * 1024)
        sessions[0].transport.write(big)
        server.close()
        server.abort_clients()
        await server.wait_closed()
        received = 0
        while data := await loop.sock_recv(client, 1 << 20):
            received += len(data)
        assert received < len(big)


# Accepting


@pytest.mark.parametrize("scheduled", [[], ["scheduled"]])
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop reads first
async def test_what_came_with_the_connection_comes_after_what_connection_made_has_scheduled(
    kind: Any, scheduled: list[str]
) -> None:
    loop = asyncio.get_running_loop()
    protocols: list[Any] = []

    class Scheduling(kind):  # type: ignore[misc]  # Any is what it is
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            for what in scheduled:
                loop.call_soon(self.happened, what)
            protocols.append(self)

    async with await loop.create_server(Scheduling, LOCAL, 0) as server:
        with socket.create_connection(address_of(server)) as client:
            client.sendall(b"at once")
            client.shutdown(socket.SHUT_WR)
            while not protocols:  # noqa: ASYNC110  the connection is in the backlog already
                await asyncio.sleep(0)
            await protocols[0].has("lost")
    assert protocols[0].events == ["made", *scheduled, "data", "eof", "lost"]
    assert protocols[0].data == b"at once"


async def test_a_storm_of_connections() -> None:
    server, sessions = await start(LOCAL, 0, backlog=500)
    address = address_of(server)
    clients = await asyncio.gather(*(greeted(address) for _ in range(300)))
    assert len(sessions) == 300
    for client in clients:
        client.close()
    for session in sessions:
        await session.lost
    await end(server)


@pytest.mark.loops("aws_io_async")  # asyncio leaves the connection to the garbage collector
async def test_a_factory_that_raises_costs_one_connection() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    sessions: list[Session] = []
    calls = 0

    def factory() -> Session:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("not this one")
        return Session(sessions)

    server = await loop.create_server(factory, LOCAL, 0)
    with await connect(address_of(server)) as first:
        assert await loop.sock_recv(first, 1) == b""
    (await greeted(address_of(server))).close()
    await sessions[0].lost
    await end(server)


@pytest.mark.loops("aws_io_async")  # asyncio does so in debug mode only
async def test_a_factory_that_raises_is_reported() -> None:
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    error = ValueError("not this one")

    def factory() -> Session:
        raise error

    server = await loop.create_server(factory, LOCAL, 0)
    with await connect(address_of(server)) as client:
        assert await loop.sock_recv(client, 1) == b""
    assert [context["exception"] for context in reported] == [error]
    assert "incoming connection" in reported[0]["message"]
    reported.clear()
    error.__traceback__ = None
    await end(server)


@pytest.mark.loops("aws_io_async")  # asyncio fails an assertion
async def test_a_factory_may_close_the_server() -> None:
    sessions: list[Session] = []

    def factory() -> Session:
        server.close()
        return Session(sessions)

    server = await asyncio.get_running_loop().create_server(factory, LOCAL, 0)
    (await greeted(address_of(server))).close()
    await sessions[0].lost
    await end(server)


@pytest.mark.loops("aws_io_async")  # asyncio schedules several restarts (cpython#151615)
async def test_out_of_descriptors_is_reported_once_and_does_not_spin() -> None:
    loop: Any = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    failed = asyncio.Event()

    def report(_: Any, context: dict[str, Any]) -> None:
        reported.append(context)
        failed.set()

    loop.set_exception_handler(report)
    server, sessions = await start(LOCAL, 0)
    address = address_of(server)
    clients = [socket.socket() for _ in range(3)]
    for client in clients:
        client.setblocking(False)
    timers = loop.statistics().timers
    with no_more_descriptors() as lift:
        for client in clients:
            await loop.sock_connect(client, address)
        await failed.wait()
        turns = loop.statistics().turns
        await asyncio.sleep(0.2)
        assert loop.statistics().turns - turns < 10
        assert loop.statistics().timers == timers + 1  # one retry, however many wait
        lift()
        for client in clients:  # served by the retry
            assert await loop.sock_recv(client, 100) == b"hello"
    (context,) = reported
    assert context["message"] == "socket.accept() out of system resource"
    assert context["exception"].errno == errno.EMFILE
    assert context["socket"].getsockname() == address
    reported.clear()
    for client in clients:
        client.close()
    for session in sessions:
        await session.lost
    await end(server)


@pytest.mark.loops("aws_io_async")
async def test_a_server_closed_while_it_rests_does_not_come_back() -> None:
    loop: Any = asyncio.get_running_loop()
    failed = asyncio.Event()
    loop.set_exception_handler(lambda *_: failed.set())
    server, _ = await start(LOCAL, 0)
    with socket.socket() as client:
        client.setblocking(False)
        with no_more_descriptors():
            await loop.sock_connect(client, address_of(server))
            await failed.wait()
            watched = loop.statistics().watched
            server.close()
            await server.wait_closed()
        assert loop.statistics().watched == watched
