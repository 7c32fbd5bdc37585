"""Echo servers on several event loops, side by side: `python examples/bench/echo.py [--help]`.

Each server runs in a process of its own, one at a time, in turns (A B C, A B C, …) so that what
else the machine does falls on all of them; the table has the medians of the rounds. The client is
the same for all: bare sockets on `selectors`, a request at a time on each connection. It takes its
share of the time, so the rates of fast loops lie closer together than the loops do: the server's
CPU time for a round trip, next to the rate, is without the client.
"""

import argparse
import asyncio
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec

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
]


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


async def serve(interface: str) -> None:
    """Serve until SIGTERM; prints the port, and in the end the seconds of CPU time it took."""
    loop = asyncio.get_running_loop()
    if interface == "protocol":
        server = await loop.create_server(Echo, "127.0.0.1", 0)
    else:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    started = time.process_time()
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()
    print(time.process_time() - started)
    server.close()
    # The client has closed its connections: let the streams' tasks come to their end.
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


def load(port: int, size: int, connections: int, seconds: float) -> float:
    """Round trips a second, on bare sockets."""
    message, buffer = os.urandom(size), bytearray(size)
    poller = selectors.DefaultSelector()
    missing = {}
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        rate = load(port, size, connections, seconds)
        server.terminate()
        return rate, float(server.stdout.readline()) / (rate * seconds) * 1e6


def compare(loops: list[str], rounds: int, seconds: float) -> None:
    subject = loops[0]
    for interface, size, connections in SCENARIOS:
        results: dict[str, list[tuple[float, float]]] = {loop: [] for loop in loops}
        for _ in range(rounds):
            for loop in loops:
                results[loop].append(measure(loop, interface, size, connections, seconds))
        print(f"\n{interface}, {size} bytes, {connections} connections")
        own = statistics.median(rate for rate, _ in results[subject])
        for loop in loops:
            rate, cpu = (statistics.median(column) for column in zip(*results[loop], strict=True))
            ratio = "" if loop == subject else f"{subject} has {own / rate:.2f} times its rate"
            print(f"  {loop:14}{rate:9,.0f}/s {cpu:7.1f} µs CPU  {ratio}", flush=True)


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
