"""Echo servers on several event loops, side by side: `python examples/bench/echo.py [--help]`.

Each server runs in a process of its own, one at a time, in turns (A B C, A B C, …) so that what
else the machine does falls on all of them; the table has the medians of the rounds. The client is
the same for all: bare sockets on `selectors`, a request at a time on each connection. It takes its
share of the time, so the rates of fast loops lie closer together than the loops do: the server's
CPU time for a round trip, next to the rate, is without the client.

Channels run on each of the loops. They are compared with the bare protocol of the same loop.
"""

import argparse
import asyncio
import os
import selectors
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import trustme

from aws_io_async.channel import ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ServerBootstrap
from aws_io_async.message_pool import IoMessage
from aws_io_async.tls_context import TlsContext

LOOPS = {
    "aws_io_async": "aws_io_async:new_event_loop",
    "asyncio": "asyncio:SelectorEventLoop",
    "uvloop": "uvloop:new_event_loop",
}
SCENARIOS = [  # interface, bytes, connections
    ("protocol", 1024, 10),
    ("protocol", 65536, 10),
    ("protocol", 100, 200),
    ("streams", 1024, 10),
    ("streams", 65536, 10),
    ("channel", 1024, 10),
    ("channel, coroutine", 1024, 10),
    ("TLS protocol", 1024, 10),
    ("TLS channel", 1024, 10),
]
BARE = {
    "channel": "protocol",
    "channel, coroutine": "protocol",
    "TLS channel": "TLS protocol",
}
"""What a channel is compared with."""


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the client ends in the middle of an answer
    finally:
        writer.close()


class EchoHandler(ChannelHandler):
    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(IoMessage(message.data), ChannelDirection.WRITE)


class EchoCoroutine(ChannelHandler):
    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await slot.write(message.data)


def tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


async def listen(interface: str) -> tuple[int, Callable[[], object]]:
    """Start a server; its port, and what closes it."""
    tls = tls_context() if interface.startswith("TLS") else None
    if "channel" in interface:
        handler = EchoCoroutine if "coroutine" in interface else EchoHandler
        listener = await ServerBootstrap().new_socket_listener(
            "127.0.0.1",
            tls=TlsContext.from_ssl_context(tls, server_side=True) if tls else None,
            handlers=lambda: [handler()],
        )
        return listener.endpoint.port, listener.close
    if "protocol" in interface:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=tls)
    else:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1], server.close


async def serve(interface: str) -> None:
    """Serve until SIGTERM; prints the port, and in the end the seconds of CPU time it took."""
    port, close = await listen(interface)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    started = time.process_time()
    print(port, flush=True)
    await stopped.wait()
    print(time.process_time() - started)
    close()
    # The client has closed its connections: let what serves them come to its end.
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


def connect(port: int, tls: bool) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock)


def load(port: int, size: int, connections: int, seconds: float, tls: bool) -> float:
    """Round trips a second, on bare sockets. With TLS a message is to fit into one record."""
    message, buffer = os.urandom(size), bytearray(size)
    poller = selectors.DefaultSelector()
    missing = {}
    for _ in range(connections):
        sock = connect(port, tls)
        poller.register(sock, selectors.EVENT_READ, sock)
        missing[sock] = size
        sock.sendall(message)
    trips, started = 0, time.perf_counter()
    while (now := time.perf_counter()) - started < seconds:
        for key, _ in poller.select(1):
            sock = key.data
            got = sock.recv_into(buffer)
            if not got:
                raise ConnectionError("the server closed a connection")
            missing[sock] -= got
            if not missing[sock]:
                trips += 1
                missing[sock] = size
                sock.sendall(message)
    poller.close()
    for sock in missing:
        sock.close()
    return trips / (now - started)


def measure(
    loop: str, interface: str, size: int, connections: int, seconds: float
) -> tuple[float, float]:
    """Round trips a second, and the server's CPU time for each in microseconds."""
    command = [sys.executable, __file__, "--serve", loop, interface]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        rate = load(port, size, connections, seconds, interface.startswith("TLS"))
        server.terminate()
        return rate, float(server.stdout.readline()) / (rate * seconds) * 1e6


def compare(loops: list[str], rounds: int, seconds: float) -> None:
    subject = loops[0]
    bare: dict[tuple[str, int, int, str], float] = {}
    for interface, size, connections in SCENARIOS:
        results: dict[str, list[tuple[float, float]]] = {loop: [] for loop in loops}
        for _ in range(rounds):
            for loop in loops:
                results[loop].append(measure(loop, interface, size, connections, seconds))
        print(f"\n{interface}, {size} bytes, {connections} connections")
        own = statistics.median(rate for rate, _ in results[subject])
        for loop in loops:
            rate, cpu = (statistics.median(column) for column in zip(*results[loop], strict=True))
            bare[interface, size, connections, loop] = rate
            notes = [f"{subject} has {own / rate:.2f} times its rate"] if loop != subject else []
            if interface in BARE:
                ratio = rate / bare[BARE[interface], size, connections, loop]
                notes.append(f"{ratio:.2f} of the {BARE[interface]}'s rate")
            print(f"  {loop:14}{rate:9,.0f}/s {cpu:7.1f} µs CPU  {'; '.join(notes)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="per server and round")
    parser.add_argument("--serve", nargs=2, metavar=("LOOP", "INTERFACE"), help=argparse.SUPPRESS)
    parser.add_argument(
        "loops",
        nargs="*",
        metavar="LOOP",
        help=f"of {', '.join(LOOPS)}, by default all that are installed",
    )
    options = parser.parse_args()
    if options.serve:
        module, _, factory = LOOPS[options.serve[0]].partition(":")
        with asyncio.Runner(loop_factory=getattr(import_module(module), factory)) as runner:
            runner.run(serve(options.serve[1]))
        return
    if unknown := set(options.loops) - set(LOOPS):
        parser.error(f"no such loop: {', '.join(unknown)}")
    loops = options.loops or [loop for loop in LOOPS if find_spec(loop)]
    compare(loops, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
