"""Channels that are ready when their loop ends: they end with it, and everybody is told."""

import asyncio
import gc
import socket
import subprocess
import sys
import warnings
import weakref

import pytest
import trustme

from aws_io_async import new_event_loop
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.errors import EventLoopShutdownError
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.tls_context import TlsConnectionOptions
from tests import loops
from tests.bootstraps import LOOPBACK, PATIENCE, Echo, Journal, ended
from tests.channels import collected_errors
from tests.tls_peers import HOST, client_of, server_of


@pytest.mark.parametrize("kind", loops.FACTORIES)
@pytest.mark.parametrize("secure", [False, True])
async def test_a_group_that_is_shut_down_takes_its_channels_along(
    kind: str, secure: bool, ca: trustme.CA
) -> None:
    journal = Journal()
    group = EventLoopGroup(2, loop_factory=loops.FACTORIES[kind])
    server_tls, tls = None, None
    if secure:
        server_tls, tls = server_of(ca), TlsConnectionOptions(client_of(ca), HOST)
    listener = await ServerBootstrap(group).new_socket_listener(
        LOOPBACK, tls=server_tls, handlers=lambda: [Echo()], **journal.of_server
    )
    address = (LOOPBACK, listener.endpoint.port)
    channels = [
        await ClientBootstrap().new_socket_channel(*address, tls=tls, handlers=lambda: [Echo()])
        for _ in range(5)
    ]
    await journal.has("setup", 5)
    await group.aclose()
    assert journal.story.count("shutdown") == 5
    for note in journal.all("shutdown"):
        assert isinstance(note.error, EventLoopShutdownError)
        await note.subject.wait_closed()
    for channel in channels:
        async with asyncio.timeout(PATIENCE):
            await channel.wait_closed()  # as its peer has gone


@pytest.mark.parametrize("factory", loops.FACTORIES.values(), ids=loops.FACTORIES)
def test_a_loop_that_ends_takes_its_channels_along(factory: loops.Factory) -> None:
    """Both ends of each, some of them half shut down; others have ended before."""
    journal = Journal()

    async def main() -> None:
        listener = await ServerBootstrap().new_socket_listener(
            LOOPBACK, handlers=lambda: [Echo()], **journal.of_server
        )
        address = (LOOPBACK, listener.endpoint.port)
        bootstrap = ClientBootstrap()
        clients = [
            await bootstrap.new_socket_channel(*address, **journal.of_client) for _ in range(6)
        ]
        await journal.has("setup", 12)
        await ended(clients[0])
        clients[1].shutdown()
        clients[2].shutdown(immediately=True)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert journal.story.count("shutdown") == 12
    assert journal.story.count("destroy") == 1


@pytest.mark.parametrize("factory", [new_event_loop, asyncio.SelectorEventLoop])
@pytest.mark.parametrize("close", [False, True])
def test_a_loop_that_is_dropped_is_not_kept_by_its_channels(
    factory: loops.Factory, close: bool
) -> None:
    def use_a_loop(address: tuple[str, int]) -> "weakref.ref[asyncio.AbstractEventLoop]":
        loop = factory()
        connecting = ClientBootstrap().new_socket_channel(*address, handlers=lambda: [Echo()])
        loop.run_until_complete(connecting)
        if close:
            loop.close()
        return weakref.ref(loop)

    with warnings.catch_warnings(), socket.create_server((LOOPBACK, 0)) as listener:
        warnings.simplefilter("ignore", ResourceWarning)
        dropped = use_a_loop(listener.getsockname())
        gc.collect()
        assert dropped() is None


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_channels_that_are_dropped_are_no_error() -> None:
    with collected_errors(), socket.create_server((LOOPBACK, 0)) as listener:
        for _ in range(3):
            await ClientBootstrap().new_socket_channel(*listener.getsockname())
            gc.collect()
            for _ in range(5):  # what their generator does is a task of the loop
                await asyncio.sleep(0)
            gc.collect()


STUBBORN = """
import asyncio
import logging
from aws_io_async.channel import ChannelHandler, _loop_end
from aws_io_async import new_event_loop
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap

class Stays(ChannelHandler):
    async def shutdown(self, *_):
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                pass

async def main():
    listener = await ServerBootstrap().new_socket_listener("127.0.0.1")
    address = "127.0.0.1", listener.endpoint.port
    await ClientBootstrap().new_socket_channel(*address, handlers=lambda: [Stays()])

logging.basicConfig()
_loop_end.PATIENCE = 0.05
asyncio.run(main())
print("the end")
"""


def test_a_handler_does_not_keep_a_loop_from_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout == "the end\n"
    assert "a handler keeps this channel from it" in done.stderr
