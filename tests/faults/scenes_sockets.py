"""Scenes: sockets, pipes, futures, retries, names, groups of loops."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aws_io_async.errors import RetryError, RetryErrorType
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.future import Promise
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver
from aws_io_async.integrations.aiohttp import AiohttpResolver
from aws_io_async.integrations.dns import DnsResolver
from aws_io_async.pipe import ReadEnd, WriteEnd, open_pipe
from aws_io_async.retry_strategy import (
    BackoffOptions,
    ExponentialBackoffRetryStrategy,
    NoRetryStrategy,
    RetryStrategy,
    RetryTokenState,
    StandardRetryStrategy,
)
from aws_io_async.socket import Socket, SocketEndpoint
from tests.dns_server import DnsServer
from tests.faults.cancellation import Injection
from tests.faults.scenes import ASYNCIO, BIG, DATA, call_of, injected, pair, scene
from tests.faults.scenes_sock import read_to_the_end
from tests.lookups import Lookup, making_resolvers
from tests.socket_tools import fill, listening


@asynccontextmanager
async def sockets() -> AsyncIterator[tuple[Socket, socket.socket]]:
    """One of ours, and the system's that it is connected to."""
    with pair() as (near, far):
        async with Socket.from_socket(near) as ours:
            yield ours, far


# Sockets


@scene("Socket.connect")
async def connect(inject: Injection) -> None:
    """Cancelled, it closes the socket."""
    async with await listening() as listener, Socket() as client:
        outcome = await inject(client.connect(listener.get_bound_address()))
        assert client.is_open is not outcome.cancelled


@scene()
async def connect_datagrams(inject: Injection) -> None:
    """What does not wait cannot be cancelled."""
    with socket.socket(type=socket.SOCK_DGRAM) as far, socket.socket(type=socket.SOCK_DGRAM) as s:
        far.bind(("127.0.0.1", 0))
        async with Socket.from_socket(s) as client:
            outcome = await inject(client.connect(SocketEndpoint(*far.getsockname())))
            assert not outcome.cancelled


@scene("Socket.accept")
async def accept(inject: Injection) -> None:
    async with await listening() as listener:
        await accepted_by(inject, listener.accept, listener)


@scene("Socket.__anext__")
async def accept_the_next(inject: Injection) -> None:
    async with await listening() as listener:
        await accepted_by(inject, listener.__anext__, listener)


async def accepted_by(
    inject: Injection, call: Callable[[], Awaitable[Socket]], listener: Socket
) -> None:
    end = listener.get_bound_address()
    with socket.socket() as client:
        client.setblocking(False)
        address = (end.address, end.port)
        async with await injected(inject, call, lambda: client.connect_ex(address)) as connection:
            assert connection.remote_endpoint == SocketEndpoint(*client.getsockname())


@scene("Socket.read")
async def read(inject: Injection) -> None:
    async with sockets() as (ours, far):
        assert await injected(inject, ours.read, lambda: far.send(DATA)) == DATA


@scene("Socket.read_into")
async def read_into(inject: Injection) -> None:
    buffer = bytearray(100)
    async with sockets() as (ours, far):
        size = await injected(inject, lambda: ours.read_into(buffer), lambda: far.send(DATA))
        assert buffer[:size] == DATA


@scene("Socket.write")
async def write(inject: Injection) -> None:
    """A part may have been sent, and what is written later follows it."""
    async with sockets() as (ours, far):
        reading = asyncio.ensure_future(read_to_the_end(far))
        outcome = await inject(ours.write(BIG))
        await ours.write(DATA)
        ours.close()
        received = await reading
        assert received.endswith(DATA)
        sent = received.removesuffix(DATA)
        assert BIG.startswith(sent)
        assert outcome.cancelled or sent == BIG


@scene("Socket.write")
async def write_behind_another(inject: Injection) -> None:
    """One that is cancelled while it waits for its turn has sent nothing."""
    async with sockets() as (ours, far):
        size = await fill(ours)
        first = asyncio.ensure_future(ours.write(b"first"))
        await asyncio.sleep(0)
        reading: list[asyncio.Future[bytes]] = []
        outcome = await inject(
            ours.write(b"second"),
            lambda: reading.append(asyncio.ensure_future(read_to_the_end(far))),
        )
        await first
        await ours.write(b"third")
        ours.close()
        received = (await reading[0])[size:]
        assert received in (b"firstthird", b"firstsecondthird")
        assert outcome.cancelled or received == b"firstsecondthird"


@scene("Socket.__aenter__", "Socket.__aexit__")
async def socket_block(inject: Injection) -> None:
    async def block() -> None:
        async with Socket.from_socket(near):
            await asyncio.sleep(0)

    with pair() as (near, _):
        await inject(block())
        assert near.fileno() == -1


# Pipes


@scene("ReadEnd.read")
async def read_pipe(inject: Injection) -> None:
    source, sink = open_pipe()
    async with source, sink:
        assert await injected(inject, source.read, lambda: put(sink)) == DATA


def put(sink: WriteEnd) -> None:
    asyncio.ensure_future(sink.write(DATA))


@scene("ReadEnd.read_into")
async def read_pipe_into(inject: Injection) -> None:
    buffer = bytearray(100)
    source, sink = open_pipe()
    async with source, sink:
        size = await injected(inject, lambda: source.read_into(buffer), lambda: put(sink))
        assert buffer[:size] == DATA


@scene("WriteEnd.write")
async def write_pipe(inject: Injection) -> None:
    source, sink = open_pipe()
    async with source:
        reading = asyncio.ensure_future(read_pipe_to_the_end(source))
        async with sink:
            outcome = await inject(sink.write(BIG))
        received = await reading
        assert BIG.startswith(received)
        assert outcome.cancelled or received == BIG


async def read_pipe_to_the_end(source: ReadEnd) -> bytes:
    received = bytearray()
    while data := await source.read():
        received += data
    return bytes(received)


@scene("_End.__aenter__", "_End.__aexit__")
async def pipe_block(inject: Injection) -> None:
    source, sink = open_pipe()

    async def block() -> None:
        async with source, sink:
            await asyncio.sleep(0)

    await inject(block())
    assert not source.is_open
    assert not sink.is_open


# Futures


@scene("Future.__await__")
async def await_future(inject: Injection) -> None:
    promise: Promise[bytes] = Promise()
    got = await injected(inject, lambda: call_of(promise.future), lambda: promise.set_result(DATA))
    assert got == DATA


# Retries


AT_ONCE = BackoffOptions(scale_factor=0.0005)


@scene(
    "RetryToken.schedule_retry",
    "RetryStrategy.acquire_retry_token",
    "ExponentialBackoffRetryStrategy.acquire_retry_token",
)
async def retry_token(inject: Injection) -> None:
    strategy = ExponentialBackoffRetryStrategy(AT_ONCE)
    token = (await inject(strategy.acquire_retry_token())).result
    await injected(inject, lambda: token.schedule_retry(RetryErrorType.TRANSIENT))
    assert token.state is RetryTokenState.READY
    token.record_success()


@scene("StandardRetryStrategy.acquire_retry_token")
async def standard_retry_token(inject: Injection) -> None:
    """Cancelled, it gives back what the retry was to cost."""
    strategy = StandardRetryStrategy(AT_ONCE)
    token = (await inject(strategy.acquire_retry_token())).result
    outcome = await inject(token.schedule_retry(RetryErrorType.TRANSIENT))
    assert strategy.available() == (500 if outcome.cancelled else 490)
    assert token.state is RetryTokenState.READY
    token.record_success()
    assert strategy.available() == 500


@scene("RetryStrategy.attempt", "Attempt.retry")
async def attempt(inject: Injection) -> None:
    strategy = StandardRetryStrategy(AT_ONCE)

    async def call() -> None:
        async with strategy.attempt() as attempt:
            for _ in range(2):
                await attempt.retry(ConnectionResetError())

    outcome = await inject(call())
    assert outcome.cancelled or strategy.available() == 490  # the last retry has paid off


@scene("RetryStrategy.retrying")
async def retrying(inject: Injection) -> None:
    calls: list[RetryStrategy] = []
    strategy = ExponentialBackoffRetryStrategy(AT_ONCE)

    @strategy.retrying()
    async def flaky() -> bytes:
        calls.append(strategy)
        await asyncio.sleep(0)
        if len(calls) < 3:
            raise ConnectionResetError
        return DATA

    outcome = await inject(flaky())
    if outcome.cancelled:
        before = len(calls)
        await asyncio.sleep(0)
        assert len(calls) == before
    else:
        assert outcome.result == DATA


@scene("NoRetryStrategy.attempt", "NoRetryStrategy.acquire_retry_token")
async def no_retries(inject: Injection) -> None:
    async def call() -> None:
        try:
            await NoRetryStrategy().acquire_retry_token()
        except RetryError:
            pass
        async with NoRetryStrategy().attempt():
            await asyncio.sleep(0)

    await inject(call())


# Names


@scene("HostResolver.resolve_host")
async def resolve_host(inject: Injection) -> None:
    with making_resolvers() as make:
        resolver = make(Lookup(["127.0.0.1"]))
        found = await injected(inject, lambda: resolver.resolve_host("a.test"))
        assert [address.address for address in found] == ["127.0.0.1"]
        assert resolver.statistics().waiting == 0


@scene("HostResolver.resolve_candidates")
async def resolve_candidates(inject: Injection) -> None:
    with making_resolvers() as make:
        resolver = make(Lookup(["127.0.0.1", "127.0.0.2"]))
        found = await injected(inject, lambda: resolver.resolve_candidates("a.test"))
        assert len(found) == 2


@scene("HostResolver.__aenter__", "HostResolver.__aexit__")
async def resolver_block(inject: Injection) -> None:
    async def lookup(host: str) -> list[str]:
        await asyncio.sleep(0)
        return ["127.0.0.1"]

    async def block() -> None:
        async with HostResolver(config=HostResolutionConfig(lookup)) as resolver:
            await resolver.resolve_host("a.test")

    await inject(block())


@scene("AiohttpResolver.resolve", "AiohttpResolver.close")
async def aiohttp_resolver(inject: Injection) -> None:
    with making_resolvers() as make:
        resolver = AiohttpResolver(make(Lookup(["127.0.0.1"])))
        found = await injected(inject, lambda: resolver.resolve("a.test", 80))
        assert [result["host"] for result in found] == ["127.0.0.1"]
        assert not (await inject(resolver.close())).cancelled


@scene("DnsResolver.__call__", others=ASYNCIO)
async def dns_resolver(inject: Injection) -> None:
    with DnsServer() as server:
        server.records["a.test", "A"] = [("127.0.0.1", 60)]
        resolver = DnsResolver([server.address])
        found = await injected(inject, lambda: resolver("a.test"))
        assert [record.address for record in found] == ["127.0.0.1"]


# Groups


@scene("EventLoopGroup.run")
async def run_on_group(inject: Injection) -> None:
    """The task on the other loop is cancelled, and has ended when the call has."""
    ends: list[bool] = []
    never = Promise[None]()

    async def work() -> None:
        try:
            if not inject.at:
                return
            await never.future
        finally:
            ends.append(True)

    async with EventLoopGroup(1) as group:
        outcome = await inject(group.run(work()), lambda: never.set_result(None))
        if outcome.cancelled:
            assert len(ends) < 2
        else:
            assert ends


@scene("EventLoopGroup.aclose", "EventLoopGroup.__aexit__", "EventLoopGroup.__aenter__")
async def group_aclose(inject: Injection) -> None:
    """Cancelled, the loops go on to their end."""
    group = EventLoopGroup(2)

    async def block() -> None:
        async with group:
            await asyncio.sleep(0)

    await inject(block())
    await group.aclose()
    assert "shut down" in repr(group)
