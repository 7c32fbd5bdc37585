"""Scenes: the methods of the event loop that take sockets and make connections."""

import asyncio
import io
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aws_io_async
from aws_io_async.event_loop.group import EventLoopGroup
from tests.faults.cancellation import How, Injection
from tests.faults.scenes import (
    ASYNCIO,
    BIG,
    DATA,
    HOST,
    OTHER_LOOPBACK,
    OURS_ALONE,
    UNLESS_DONE,
    UVLOOP_UNLESS_DONE,
    Ends,
    client_context,
    end,
    ended,
    folder,
    injected,
    listener,
    pair,
    scene,
    server_context,
)
from tests.lookups import Lookup, making_resolvers
from tests.socket_tools import black_hole


def running() -> Any:
    return asyncio.get_running_loop()


# Sockets of the caller's


@scene("EventLoop.sock_recv", others=UNLESS_DONE)
async def sock_recv(inject: Injection) -> None:
    with pair() as (near, far):
        got = await injected(inject, lambda: running().sock_recv(near, 100), lambda: far.send(DATA))
        assert got == DATA


@scene("EventLoop.sock_recv_into", others=UNLESS_DONE)
async def sock_recv_into(inject: Injection) -> None:
    buffer = bytearray(100)
    with pair() as (near, far):
        size = await injected(
            inject, lambda: running().sock_recv_into(near, buffer), lambda: far.send(DATA)
        )
        assert buffer[:size] == DATA


@scene("EventLoop.sock_recvfrom", others=OURS_ALONE)
async def sock_recvfrom(inject: Injection) -> None:
    with pair() as (near, far):
        data, _ = await injected(
            inject, lambda: running().sock_recvfrom(near, 100), lambda: far.send(DATA)
        )
        assert data == DATA


@scene("EventLoop.sock_recvfrom_into", others=OURS_ALONE)
async def sock_recvfrom_into(inject: Injection) -> None:
    buffer = bytearray(100)
    with pair() as (near, far):
        size, _ = await injected(
            inject, lambda: running().sock_recvfrom_into(near, buffer), lambda: far.send(DATA)
        )
        assert buffer[:size] == DATA


@scene("EventLoop.sock_accept", others=UNLESS_DONE)
async def sock_accept(inject: Injection) -> None:
    with listener() as sock, socket.socket() as client:
        client.setblocking(False)
        address = sock.getsockname()
        connection, peer = await injected(
            inject, lambda: running().sock_accept(sock), lambda: client.connect_ex(address)
        )
        with connection:
            assert peer == client.getsockname()


@scene("EventLoop.sock_sendall")
async def sock_sendall(inject: Injection) -> None:
    with pair() as (near, far):
        reading = asyncio.ensure_future(read_to_the_end(far))
        outcome = await inject(running().sock_sendall(near, BIG))
        near.close()
        received = await reading
        assert BIG.startswith(received)
        assert outcome.cancelled or received == BIG


async def read_to_the_end(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := await running().sock_recv(sock, 1 << 16):
        received += data
    return bytes(received)


@scene("EventLoop.sock_sendto", others=OURS_ALONE)
async def sock_sendto(inject: Injection) -> None:
    with folder() as path, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.bind(f"{path}/far")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as near:
            near.setblocking(False)
            address, full = far.getsockname(), 0
            try:
                while True:
                    full += near.sendto(b"x", address)
            except BlockingIOError:
                pass
            call = running().sock_sendto
            size = await injected(
                inject,
                lambda: call(near, DATA, address),
                lambda: [far.recv(10) for _ in range(full)],
            )
            assert size == len(DATA)
            assert far.recv(100) == DATA


@scene("EventLoop.sock_connect")
async def sock_connect(inject: Injection) -> None:
    with listener() as sock, socket.socket() as client:
        client.setblocking(False)
        outcome = await inject(running().sock_connect(client, sock.getsockname()))
        assert client.fileno() >= 0
        if outcome.cancelled:  # nobody else knows what is under way
            return
        assert client.getpeername() == sock.getsockname()


@scene("EventLoop.sock_sendfile", others=OURS_ALONE)
async def sock_sendfile(inject: Injection) -> None:
    with folder() as path, pair() as (near, far):
        (path / "file").write_bytes(BIG)
        with (path / "file").open("rb") as file:
            reading = asyncio.ensure_future(read_to_the_end(far))
            outcome = await inject(running().sock_sendfile(near, file))
            position = file.tell()
            near.close()
            assert await reading == BIG[:position]
            assert outcome.cancelled or position == len(BIG)


@scene("EventLoop.sock_sendfile", others=OURS_ALONE)
async def sock_sendfile_by_copying(inject: Injection) -> None:
    with pair() as (near, far):
        reading = asyncio.ensure_future(read_to_the_end(far))
        file = io.BytesIO(BIG)
        outcome = await inject(running().sock_sendfile(near, file))
        near.close()
        received = await reading
        assert BIG.startswith(received)
        assert file.tell() <= len(received)
        assert outcome.cancelled or received == BIG


# Connections


@asynccontextmanager
async def server(**options: Any) -> AsyncIterator[tuple[Any, list[Ends]]]:
    """A server, and the protocols of its connections, which end with it."""
    protocols: list[Ends] = []

    def make() -> Ends:
        protocols.append(Ends())
        return protocols[-1]

    serving = await running().create_server(make, "127.0.0.1", 0, **options)
    try:
        yield serving.sockets[0].getsockname(), protocols
    finally:
        serving.close()
        for protocol in protocols:
            if protocol.begun:
                await protocol.ended


@scene("EventLoop.create_connection", others=UVLOOP_UNLESS_DONE)
async def create_connection(inject: Injection) -> None:
    async with server() as (address, _):
        made: list[Ends] = []
        outcome = await inject(running().create_connection(lambda: note(made), *address))
        if not outcome.cancelled:
            await end(*outcome.result)
        await ended(made)


def note(protocols: list[Ends]) -> Ends:
    protocols.append(Ends())
    return protocols[-1]


@scene("EventLoop.create_connection", others=UVLOOP_UNLESS_DONE)
async def create_connection_by_name(inject: Injection) -> None:
    async with server() as (address, _):
        made: list[Ends] = []
        outcome = await inject(
            running().create_connection(
                lambda: note(made), "localhost", address[1], local_addr=("localhost", 0)
            )
        )
        if not outcome.cancelled:
            await end(*outcome.result)
        await ended(made)


@scene("EventLoop.create_connection", others=OURS_ALONE)
async def create_connection_to_one_of_several(inject: Injection) -> None:
    """The first address refuses: two attempts."""
    async with server() as (address, _):
        made: list[Ends] = []
        outcome = await inject(
            running().create_connection(
                lambda: note(made), "localhost", address[1], happy_eyeballs_delay=0.05, all_errors=1
            )
        )
        if not outcome.cancelled:
            await end(*outcome.result)
        await ended(made)


@scene(others=OURS_ALONE)
async def create_connection_faster_than_another(inject: Injection) -> None:
    """The first address does not answer: its attempt is given up when the second has succeeded."""
    loop = running()
    with black_hole() as hole, making_resolvers() as make:
        loop.set_host_resolver(make(Lookup([hole.address, OTHER_LOOPBACK])))
        serving = await loop.create_server(Ends, OTHER_LOOPBACK, hole.port)
        try:
            made: list[Ends] = []
            outcome = await inject(
                loop.create_connection(
                    lambda: note(made), "a.test", hole.port, happy_eyeballs_delay=0.001
                )
            )
            if not outcome.cancelled:
                await end(*outcome.result)
            await ended(made)
        finally:
            serving.close()
            loop.set_host_resolver(None)


@scene("EventLoop.create_connection")
async def create_connection_with_tls(inject: Injection) -> None:
    async with server(ssl=server_context()) as (address, _):
        made: list[Ends] = []
        outcome = await inject(
            running().create_connection(
                lambda: note(made), *address, ssl=client_context(), server_hostname=HOST
            )
        )
        if not outcome.cancelled:
            await end(*outcome.result)
        await ended(made)


@scene("EventLoop.create_unix_connection", "EventLoop.create_unix_server", others=OURS_ALONE)
async def create_unix_connection(inject: Injection) -> None:
    with folder() as path:
        accepted: list[Ends] = []
        outcome = await inject(running().create_unix_server(lambda: note(accepted), path / "s"))
        if outcome.cancelled:
            return
        made: list[Ends] = []
        connected = await inject(running().create_unix_connection(lambda: note(made), f"{path}/s"))
        if not connected.cancelled:
            await end(*connected.result)
        outcome.result.close()
        await ended(made + accepted)


@scene("EventLoop.connect_accepted_socket", others=ASYNCIO)
async def connect_accepted_socket(inject: Injection) -> None:
    near, far = socket.socketpair()
    with near, far:
        made: list[Ends] = []
        outcome = await inject(running().connect_accepted_socket(lambda: note(made), near))
        if not outcome.cancelled:
            await end(*outcome.result)
        await ended(made)


@scene("EventLoop.start_tls", others=OURS_ALONE)
async def start_tls(inject: Injection) -> None:
    async with server(ssl=server_context()) as (address, _):
        transport, protocol = await running().create_connection(Ends, *address)
        outcome = await inject(
            running().start_tls(transport, protocol, client_context(), server_hostname=HOST)
        )
        if not outcome.cancelled:
            outcome.result.close()
        await protocol.ended  # also if cancelled: that closes the connection


@scene("EventLoop.create_server", others=OURS_ALONE)
async def create_server(inject: Injection) -> None:
    outcome = await inject(running().create_server(Ends, ["localhost", "127.0.0.1"], 0))
    if not outcome.cancelled:
        outcome.result.close()


@scene("EventLoop.create_datagram_endpoint", others=ASYNCIO)
async def create_datagram_endpoint(inject: Injection) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        made: list[Ends] = []
        outcome = await inject(
            running().create_datagram_endpoint(
                lambda: note(made),
                ("localhost", 0),
                ("localhost", far.getsockname()[1]),
                family=socket.AF_INET,
            )
        )
        if not outcome.cancelled:
            await end(*outcome.result)
        await ended(made)


@scene("EventLoop.getaddrinfo")
async def getaddrinfo(inject: Injection) -> None:
    found = await injected(inject, lambda: running().getaddrinfo("localhost", 80))
    assert found


@scene("EventLoop.getnameinfo", others=OURS_ALONE)
async def getnameinfo(inject: Injection) -> None:
    flags = socket.NI_NUMERICSERV | socket.NI_NUMERICHOST
    found = await injected(inject, lambda: running().getnameinfo(("127.0.0.1", 80), flags))
    assert found == ("127.0.0.1", "80")


# Sending files through transports


@scene("EventLoop.sendfile", others=OURS_ALONE)
async def sendfile(inject: Injection) -> None:
    """It waits for what was written before; what is written later comes behind what was sent."""
    async with server() as (address, protocols), connected_to(address) as (transport, protocol):
        transport.write(8 * BIG)
        with folder() as path:
            (path / "file").write_bytes(BIG)
            with (path / "file").open("rb") as file:
                await inject(running().sendfile(transport, file))
                position = file.tell()
        transport.write(DATA)
        await end(transport, protocol)
        await protocols[0].ended
        assert protocols[0].data == 8 * BIG + BIG[:position] + DATA


@asynccontextmanager
async def connected_to(address: Any, **options: Any) -> AsyncIterator[tuple[Any, Ends]]:
    transport, protocol = await running().create_connection(Ends, *address, **options)
    try:
        yield transport, protocol
    finally:
        transport.close()


@scene("EventLoop.sendfile", others=OURS_ALONE)
async def sendfile_with_tls(inject: Injection) -> None:
    async with (
        server(ssl=server_context()) as (address, protocols),
        connected_to(address, ssl=client_context(), server_hostname=HOST) as (transport, protocol),
    ):
        with folder() as path:
            (path / "file").write_bytes(BIG)
            with (path / "file").open("rb") as file:
                await inject(running().sendfile(transport, file))
                position = file.tell()
        assert transport.get_protocol() is protocol
        assert transport.is_reading()
        transport.write(DATA)
        await end(transport, protocol)
        await protocols[0].ended
        assert protocols[0].data == BIG[:position] + DATA


# Pipes and children


@scene("EventLoop.connect_read_pipe", "EventLoop.connect_write_pipe", others=ASYNCIO)
async def connect_pipes(inject: Injection) -> None:
    """Cancelled, they close their end; uvloop does so later than it says."""
    reading, writing = os.pipe()
    made: list[Ends] = []
    with io.FileIO(reading, "r") as source, io.FileIO(writing, "w") as sink:
        reader = await inject(running().connect_read_pipe(lambda: note(made), source))
        writer = await inject(running().connect_write_pipe(lambda: note(made), sink))
        if not writer.cancelled:
            await end(*writer.result)
        if not reader.cancelled:
            await end(*reader.result)
        await ended(made)


class Child(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = running().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


@scene("EventLoop.subprocess_exec", others=ASYNCIO)
async def subprocess_exec(inject: Injection) -> None:
    """A child that runs until it is killed: a cancelled call has killed and reaped it."""
    outcome = await inject(running().subprocess_exec(Child, "sleep", "1000"))
    if outcome.cancelled:
        await check_no_child(inject)
    else:
        transport, protocol = outcome.result
        transport.close()
        await protocol.ended


async def check_no_child(inject: Injection) -> None:
    """None is there; or soon, if the wait for its end was cancelled as well."""
    while hasattr(os, "waitid"):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # noqa: ASYNC222  no wait
        except ChildProcessError:
            return
        assert inject.how is How.AGAIN, "a child was left"
        await asyncio.sleep(0.001)


@scene("EventLoop.subprocess_shell", others=ASYNCIO)
async def subprocess_shell(inject: Injection) -> None:
    outcome = await inject(running().subprocess_shell(Child, "exec sleep 1000"))
    if outcome.cancelled:
        await check_no_child(inject)
    else:
        transport, protocol = outcome.result
        transport.close()
        await protocol.ended


@scene()
async def subprocess_wait(inject: Injection) -> None:
    """By asyncio's `Process`."""
    child = await asyncio.create_subprocess_exec("cat", stdin=-1)
    assert child.stdin is not None
    assert await injected(inject, child.wait, child.stdin.close) == 0


@scene()
async def subprocess_communicate(inject: Injection) -> None:
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    outcome = await inject(child.communicate(DATA))
    if outcome.cancelled:
        assert child.stdin is not None
        child.stdin.close()
    await child.wait()
    assert outcome.cancelled or outcome.result[0] == DATA


# Servers


@scene("Server.start_serving")
async def start_serving(inject: Injection) -> None:
    serving = await running().create_server(Ends, "127.0.0.1", 0, start_serving=False)
    await injected(inject, serving.start_serving)
    assert serving.is_serving()
    serving.close()


@scene("Server.serve_forever", others=OURS_ALONE)
async def serve_forever(inject: Injection) -> None:
    """Its end is always a cancellation: if not of ours, of its `close`."""
    serving = await running().create_server(Ends, "127.0.0.1", 0)
    try:
        await inject(closed(serving), serving.close)
    finally:
        assert not serving.sockets


async def closed(serving: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    try:
        await serving.serve_forever()
    except asyncio.CancelledError:
        if task.cancelling():
            raise


@scene("Server.wait_closed", others=OURS_ALONE)
async def server_wait_closed(inject: Injection) -> None:
    protocols: list[Ends] = []
    serving = await running().create_server(lambda: note(protocols), "127.0.0.1", 0)
    async with connected_to(serving.sockets[0].getsockname()) as (transport, protocol):
        serving.close()
        await inject(serving.wait_closed(), transport.close)
    await protocol.ended
    await serving.wait_closed()
    await ended(protocols)


# What runs


@scene("Runtime.run_in_executor", others=ASYNCIO)
async def run_in_executor(inject: Injection) -> None:
    async def run() -> int:
        size: int = await running().run_in_executor(None, len, DATA)
        return size

    assert await injected(inject, run) == len(DATA)


@scene("Runtime.create_task", "Runtime.create_future")
async def tasks_and_futures(inject: Injection) -> None:
    future = running().create_future()

    async def wait() -> bytes:
        result: bytes = await asyncio.shield(future)
        return result

    async def call() -> bytes:
        result: bytes = await running().create_task(wait())
        return result

    assert await injected(inject, call, lambda: future.set_result(DATA)) == DATA


async def on_a_loop_of_its_own(inject: Injection, body: Callable[[], Awaitable[object]]) -> None:
    """Run what is the last thing that a loop does."""

    async def run() -> None:
        await body()

    def run_on_new_loop() -> None:
        with asyncio.Runner(loop_factory=aws_io_async.new_event_loop) as runner:
            runner.run(run())

    await asyncio.to_thread(run_on_new_loop)


@scene("Runtime.shutdown_asyncgens", others=OURS_ALONE)
async def shutdown_asyncgens(inject: Injection) -> None:
    """Cancelled, it has closed all generators that clean up at once; others end by themselves."""
    closed: list[int] = []

    async def numbers(number: int) -> AsyncIterator[int]:
        try:
            yield number
        finally:
            closed.append(number)
            await asyncio.sleep(0)

    async def body() -> None:
        generators = [numbers(number) for number in range(2)]
        for generator in generators:
            await anext(generator)
        outcome = await inject(running().shutdown_asyncgens())
        assert outcome.cancelled or sorted(closed) == [0, 1]

    await on_a_loop_of_its_own(inject, body)
    assert sorted(closed) == [0, 1]


@scene("Runtime.shutdown_default_executor", others=OURS_ALONE)
async def shutdown_default_executor(inject: Injection) -> None:
    """Cancelled, it leaves the threads to end by themselves."""

    async def body() -> None:
        await running().run_in_executor(None, len, DATA)
        await inject(running().shutdown_default_executor())

    await on_a_loop_of_its_own(inject, body)


@scene("EventLoopGroup.submit", others=OURS_ALONE)
async def submit(inject: Injection) -> None:
    """To cancel its future cancels the task."""
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(0.001)
        finally:
            ended.set()

    async def call() -> None:
        await asyncio.wrap_future(group.submit(work()))

    async with EventLoopGroup(1) as group:
        await inject(call())
        await group.run(asyncio.sleep(0))
    assert ended.is_set()
