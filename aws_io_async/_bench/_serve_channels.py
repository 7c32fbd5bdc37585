"""Echo servers on channels, whichever loop these are on."""

import asyncio
import os
import ssl
import sys

from ..channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from ..channel_bootstrap import ServerBootstrap
from ..message_pool import IoMessage
from ..tls_context import TlsContext
from ._child import NOT_AVAILABLE
from ._loops import factory
from ._serve_asyncio import BACKLOG, serve, server_context

WRITE = ChannelDirection.WRITE  # a member takes 60 ns to be found on Python 3.11


class Echo(ChannelHandler):
    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(message, WRITE)


class CoroutineEcho(ChannelHandler):
    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(message, WRITE)


class WritingEcho(ChannelHandler):
    """Waits until the kernel has what it wrote."""

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await slot.write(message.data)


def set_up(channel: Channel | None, error: BaseException | None) -> None:
    """Without channels there is nothing to measure: say why there are none, and end."""
    if error is not None:
        missing = isinstance(error, NotImplementedError)
        print(f"{error}" or type(error).__name__, file=sys.stderr, flush=True)
        os._exit(NOT_AVAILABLE if missing else 1)


async def start(interface: str, tls: ssl.SSLContext | None) -> tuple[int, object]:
    handlers = {"plain": Echo, "coroutine": CoroutineEcho, "write": WritingEcho}
    handler = handlers[interface]
    listener = await ServerBootstrap().new_socket_listener(
        "127.0.0.1",
        tls=TlsContext.from_ssl_context(tls, server_side=True) if tls else None,
        handlers=lambda: [handler()],
        on_incoming_channel_setup=set_up,
        backlog=BACKLOG,
    )
    return listener.endpoint.port, listener


def main(spec: str, interface: str, certificate: str = "") -> None:
    tls = server_context(certificate) if certificate else None
    with asyncio.Runner(loop_factory=factory(spec)) as runner:
        runner.run(serve(start(interface, tls)))
