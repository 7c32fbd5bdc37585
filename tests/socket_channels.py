"""Channels over sockets with a plain socket at the other end."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aws_io_async.channel import Channel
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests.channels import PATIENCE, Stage, bystander, socket_channel, socket_pair
from tests.socket_tools import is_watched, turns

FAMILIES = [socket.AF_UNIX, socket.AF_INET]
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)

MUCH = bytes(16 << 20)
"""More than the kernel takes of a connection whose peer reads nothing."""


class Peer:
    """The other end of a channel's connection: a plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def reads(self) -> bytes:
        """All that comes until the end, or a reset."""
        loop, data = asyncio.get_running_loop(), bytearray()
        async with asyncio.timeout(PATIENCE):
            try:
                while more := await loop.sock_recv(self.sock, 1 << 20):
                    data += more
            except ConnectionResetError:
                pass
        return bytes(data)

    async def sends(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)


@asynccontextmanager
async def connection(
    *handlers: Stage, family: socket.AddressFamily = socket.AF_UNIX, **options: Any
) -> AsyncIterator[tuple[Channel, Peer]]:
    """A channel and its peer, beside another channel, which must not notice; nothing is left."""
    options.setdefault("handler", SocketChannelHandler())
    told: list[Any] = []
    with socket_pair(family) as (ours, theirs):
        fd = ours.fileno()
        async with bystander():
            async with socket_channel(
                ours, *handlers, on_shutdown=lambda *args: told.append(args), **options
            ) as channel:
                yield channel, Peer(theirs)
            assert told == [(channel, channel.error)]
            await turns(3)
            assert ours.fileno() == -1 or not is_watched(fd)
            assert options["handler"]._timer is None
