"""An echo over TLS, and how a reader that does not read holds the other end back.

    python examples/tls_echo.py [MIB]           (needs the package trustme, for the certificate)

The client sends more than it reads back. First it reads nothing at all: its window fills, the
server's answers get no further, the server takes no more requests, and the client's own sending
comes to a halt. All that is in between waits in buffers of bounded size, none of which grows with
what is sent. Then the client reads, and everything moves on.
"""

import asyncio
import hashlib
import os
import sys

import trustme

from aws_io_async import (
    Channel,
    ChannelHandler,
    ChannelSlot,
    ChannelStream,
    IoMessage,
    ServerBootstrap,
    TlsConnectionOptions,
    TlsContext,
    TlsContextOptions,
    connect,
    run,
)
from aws_io_async.statistics import SocketStatistics

HOST = "localhost"
KIB = 1024
WINDOW = 64 * KIB
"""Bytes that each application takes before it has dealt with the ones before."""


class Echo(ChannelHandler):
    """The server's application: the rightmost handler of each channel, right of socket and TLS."""

    initial_window_size = WINDOW

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        # This waits until the last byte is in the kernel's hands. If the peer does not read, that
        # takes long; what comes meanwhile waits in the channel, as much as the window allows.
        await slot.write(message.data)
        slot.increment_read_window(len(message.data))  # dealt with: ready for as much again


def tls_contexts() -> tuple[TlsContext, TlsContext]:
    """One for a server on `localhost`, and one for clients who trust its certificate alone."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    certificate = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    server = TlsContextOptions.default_server(certificate, leaf.private_key_pem.bytes())
    client = TlsContextOptions.default_client()
    client.override_default_trust_store(authority.cert_pem.bytes())
    return TlsContext(server), TlsContext(client)


def report(moment: str, client: Channel, server: Channel) -> None:
    """Print what each socket has moved, and the windows and the bytes held to its right."""
    print(f"{moment}\n{'read':>20}{'wrote':>10}{'TLS window':>12}{'app window':>12}{'held':>8}")
    for name, channel in ("client", client), ("server", server):
        moved, *_ = channel.statistics()  # a record of each handler that counts, left to right
        assert isinstance(moved, SocketStatistics)
        _, tls, application = channel.slots()
        figures = [moved.bytes_read, moved.bytes_written, tls.window_size, application.window_size]
        # Let in, and not dealt with; or dealt with, and granted again in one go with what follows.
        figures.append(WINDOW - application.window_size)
        columns = zip(figures, (10, 10, 12, 12, 8), strict=True)
        print(f"  {name:8}" + "".join(f"{figure / KIB:{width}.0f}" for figure, width in columns))


async def until_it_stands_still(*channels: Channel) -> None:
    before = None
    while (now := [f"{channel.statistics()}" for channel in channels]) != before:
        before = now
        await asyncio.sleep(0.2)


async def send_all(stream: ChannelStream, data: bytes) -> None:
    for start in range(0, len(data), WINDOW):
        await stream.send(data[start : start + WINDOW])  # returns when the kernel has it all


async def receive_digest(stream: ChannelStream, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        data = await stream.receive()  # opens the window for as much again
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


async def main(mib: int) -> None:
    server_context, client_context = tls_contexts()
    accepted: asyncio.Queue[Channel | None] = asyncio.Queue()
    listener = await ServerBootstrap().new_socket_listener(
        "127.0.0.1",
        tls=server_context,
        handlers=lambda: [Echo()],
        on_incoming_channel_setup=lambda channel, error: accepted.put_nowait(channel),
        enable_read_back_pressure=True,  # without it, windows are not looked at
    )
    async with (
        listener,
        await connect(
            "127.0.0.1",
            listener.endpoint.port,
            tls=TlsConnectionOptions(client_context, server_name=HOST),
            window=WINDOW,
        ) as stream,
    ):
        server = await accepted.get()
        assert server is not None
        print(f"{mib} MiB to an echo over TLS and back; all figures are in KiB\n")
        report("Connected", stream.channel, server)

        data = os.urandom(mib * KIB * KIB)
        sending = asyncio.create_task(send_all(stream, data))
        await until_it_stands_still(stream.channel, server)
        report("The client sends and does not read", stream.channel, server)
        print(f"  everything is sent: {sending.done()}")

        digest = await receive_digest(stream, len(data))
        await sending
        report("The client has read", stream.channel, server)
        print(f"  came back intact: {digest == hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 32))
