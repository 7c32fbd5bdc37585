"""What idle connections cost: `python examples/bench/idle.py [--help]`.

A server process of its own for each kind of server and each loop accepts 10,000 connections that
do nothing, counts its resident memory before and after, and then has one message to echo on each
of them: all must be answered. What the kernel keeps for a socket is not in the figures.

The clients are bare blocking sockets in this process. A kind that begins with "TLS" makes the
handshakes one after the other, which takes a millisecond or two each.
"""

import argparse
import asyncio
import gc
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import trustme

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ServerBootstrap
from aws_io_async.message_pool import IoMessage
from aws_io_async.tls_context import TlsContext

LOOPS = {
    "asyncio": "asyncio:SelectorEventLoop",
    "aws_io_async": "aws_io_async:new_event_loop",
    "uvloop": "uvloop:new_event_loop",
}
KINDS = ["protocol", "channel", "TLS protocol", "TLS channel"]
REFERENCE = ("TLS protocol", "asyncio")
"""What the others are compared with."""

WARM_UP = 20
"""Connections before the first look at the memory, for what is made once and kept."""

BATCH = 500
"""Connections that the server has to catch up with at a time: its backlog has room for them."""

SPARE_DESCRIPTORS = 100
"""For all that is not one of the connections."""

TIMEOUT = 60.0
"""Seconds that a client waits for a handshake or an answer."""


# The server


class Echo(asyncio.Protocol):
    def __init__(self, count: Callable[[], None]) -> None:
        self.count = count

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.count()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoHandler(ChannelHandler):
    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(IoMessage(message.data), ChannelDirection.WRITE)


def tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


async def listen(
    kind: str, count: Callable[[], None], fail: Callable[[BaseException], object]
) -> tuple[int, Callable[[], object]]:
    """Start a server that calls `count` for each connection; its port, and what closes it."""
    tls = tls_context() if kind.startswith("TLS") else None
    if kind.endswith("protocol"):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Echo(count), "127.0.0.1", 0, ssl=tls, backlog=BATCH
        )
        return server.sockets[0].getsockname()[1], server.close

    def set_up(channel: Channel | None, error: BaseException | None) -> None:
        if error is None:
            count()
        else:
            fail(error)

    listener = await ServerBootstrap().new_socket_listener(
        "127.0.0.1",
        tls=TlsContext.from_ssl_context(tls, server_side=True) if tls else None,
        handlers=lambda: [EchoHandler()],
        on_incoming_channel_setup=set_up,
        backlog=BATCH,
    )
    return listener.endpoint.port, listener.close


async def serve(kind: str) -> None:
    """Serve until SIGTERM, after printing the port.

    Answers each number on stdin, once there were as many connections in all, with the bytes of
    resident memory.
    """
    loop = asyncio.get_running_loop()
    connections, wanted = 0, 0
    stopped: asyncio.Future[None] = loop.create_future()

    def count() -> None:
        nonlocal connections
        connections += 1
        if connections == wanted:
            loop.call_later(0.05, report)  # when what has set up the last one is gone as well

    def fail(error: BaseException) -> None:
        if not stopped.done():
            stopped.set_exception(error)

    def report() -> None:
        gc.collect()
        print(resident_bytes(), flush=True)

    def command() -> None:
        nonlocal wanted
        if line := sys.stdin.readline():
            wanted = int(line)
            if connections >= wanted:
                loop.call_later(0.05, report)
        else:
            loop.remove_reader(sys.stdin)

    port, close = await listen(kind, count, fail)
    loop.add_reader(sys.stdin, command)
    loop.add_signal_handler(signal.SIGTERM, stopped.set_result, None)
    print(port, flush=True)
    await stopped
    close()
    # The clients have closed their connections: let what serves them come to its end.
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


def resident_bytes() -> int:
    """The memory of this process; where there is no /proc, the most that it has been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# The clients


def connect(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    return sock if tls is None else tls.wrap_socket(sock)


def measure(loop: str, kind: str, count: int) -> tuple[int, int]:
    """Bytes for each idle connection, and how many of them got their message back."""
    tls = None
    if kind.startswith("TLS"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    command = [sys.executable, __file__, "--serve", loop, kind]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server, ExitStack() as on:
        on.callback(server.terminate)
        assert server.stdin
        assert server.stdout
        answer = iter(server.stdout.readline, "")
        port = int(next(answer))
        clients: list[socket.socket] = []
        memory: list[int] = []
        while len(clients) < WARM_UP + count:
            more = min(BATCH, WARM_UP + count - len(clients)) if clients else WARM_UP
            clients += [on.enter_context(connect(port, tls)) for _ in range(more)]
            print(len(clients), file=server.stdin, flush=True)
            memory.append(int(next(answer)))
        return round((memory[-1] - memory[0]) / count), answers(clients[WARM_UP:])


def answers(clients: list[socket.socket]) -> int:
    """Send a message on each connection, then count those that have got back that and no more."""
    size = 16
    for number, client in enumerate(clients):
        client.sendall(number.to_bytes(size))
    answered = 0
    for number, client in enumerate(clients):
        answer = b""
        while len(answer) < size and (data := client.recv(size)):
            answer += data
        client.setblocking(False)
        try:
            more = client.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            answered += answer == number.to_bytes(size)
        else:
            raise ConnectionError(f"after its message, a client got {more!r}")
    return answered


def possible(count: int) -> int:
    """That many connections, or as many as the limit of open files allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = WARM_UP + count + SPARE_DESCRIPTORS
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return count
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))  # the servers inherit it
    if limit < needed:
        count -= needed - limit
        print(f"The limit of {limit:,} open files allows only {count:,} connections.")
    return count


def compare(loops: list[str], kinds: list[str], count: int) -> None:
    rows = [(kind, loop) for kind in KINDS if kind in kinds for loop in loops]
    rows.sort(key=lambda row: row != REFERENCE)
    print(f"bytes per idle connection, {count:,} connections")
    reference = None
    for kind, loop in rows:
        size, answered = measure(loop, kind, count)
        note = f"{size / reference:.3f} of asyncio's TLS protocol" if reference else ""
        if (kind, loop) == REFERENCE:
            reference = size
        print(f"  {kind:13} {loop:13}{size:9,}  {answered:,} answered  {note}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="of connections for each server")
    parser.add_argument(
        "--loops",
        default="asyncio,aws_io_async",
        metavar="LOOP,...",
        help=f"of {', '.join(LOOPS)} (default: %(default)s)",
    )
    parser.add_argument("--serve", nargs=2, metavar=("LOOP", "KIND"), help=argparse.SUPPRESS)
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)"
    )
    options = parser.parse_args()
    if options.serve:
        module, _, factory = LOOPS[options.serve[0]].partition(":")
        with asyncio.Runner(loop_factory=getattr(import_module(module), factory)) as runner:
            runner.run(serve(options.serve[1]))
        return
    loops = options.loops.split(",")
    for given, known in ((loops, LOOPS), (options.kinds, KINDS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(unknown)}")
    compare(loops, options.kinds or KINDS, possible(options.count))


if __name__ == "__main__":
    main()
