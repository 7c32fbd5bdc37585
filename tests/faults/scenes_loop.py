"""Scenes: the methods of the event loop that make connections and servers, and look up names."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.faults.cancellation import Injection
from tests.faults.scenes import (
    ASYNCIO,
    BIG,
    DATA,
    HOST,
    OTHER_LOOPBACK,
    OURS_ALONE,
    UVLOOP_UNLESS_DONE,
    Ends,
    client_context,
    end,
    ended,
    folder,
    injected,
    note,
    running,
    scene,
    server_context,
)
from tests.lookups import Lookup, making_resolvers
from tests.socket_tools import black_hole


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
