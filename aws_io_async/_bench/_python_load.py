"""The load where there is no C compiler: what `load.c` does, with its arguments, and slower."""

import json
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator

from ._machine import cpu_seconds

PATIENCE = 20.0
"""Seconds without any answer, until the server counts as stuck."""

LOST_AFTER = 0.5
"""Seconds, until a datagram counts as lost."""

TICK = 0.1
UNACCEPTED = 64
"""Connections that the server may have to catch up with."""

WARM_UP_CONNECTIONS = 20
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A message at a time, to the server and back."""

    def __init__(self, dial: Callable[[], socket.socket], message: bytes, reply: int) -> None:
        self.dial = dial
        self.message = message
        self.reply = reply
        self.sock = dial()
        self.begin()

    def begin(self) -> None:
        self.unsent = memoryview(self.message)
        self.got = 0
        self.since = time.perf_counter()

    def push(self) -> None:
        """Send what can be sent of the message."""
        while self.unsent:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def pull(self, buffer: memoryview) -> bool:
        """Take what has arrived; whether the reply is complete."""
        n = self.sock.recv_into(buffer)
        if not n:
            raise ConnectionError("the server closed a connection")
        if self.got + n > self.reply:
            raise ConnectionError("the server sent more than it was to")
        if self.message is not REQUEST and buffer[:n] != self.message[self.got : self.got + n]:
            raise ConnectionError("the server sent wrong bytes")
        self.got += n
        return self.got == self.reply

    def exchange(self) -> None:
        """One message on a connection that blocks."""
        self.begin()
        self.push()
        buffer = memoryview(bytearray(len(self.message)))
        while not self.pull(buffer):
            pass


class Load:
    def __init__(self, mode: str, port: int, size: int) -> None:
        self.udp = mode == "udp"
        self.reconnects = mode in ("connect-close", "handshakes")
        self.context: ssl.SSLContext | None = None
        if mode in ("tls", "handshakes", "hold-tls"):
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.address = ("127.0.0.1", port)
        self.message = bytes(i * 31 % 251 for i in range(size))
        self.reply = size
        if mode == "http":
            self.message, self.reply = REQUEST, self.length_of_reply()
        self.buffer = memoryview(bytearray(1 << 20))
        self.selector = selectors.DefaultSelector()
        self.latencies: list[float] = []
        self.last = 0.0

    def dial(self) -> socket.socket:
        if self.udp:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect(self.address)
            sock.settimeout(PATIENCE)
            return sock
        sock = socket.create_connection(self.address, PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is None:
            return sock
        return self.context.wrap_socket(sock)

    def length_of_reply(self) -> int:
        """The first response tells how long all are."""
        with self.dial() as sock, sock.makefile("rb") as file:
            sock.sendall(REQUEST)
            head = [file.readline()]
            while head[-1].strip():
                head.append(file.readline())
        if not head[0].startswith(b"HTTP/1.1 200"):
            raise ConnectionError("no HTTP response of status 200")
        fields = dict(line.lower().split(b":", 1) for line in head[1:-1])
        return sum(map(len, head)) + int(fields[b"content-length"])

    def connections(self, count: int) -> Iterator[Connection]:
        """So many; now and then waits, by one more, until the server has caught up."""
        for number in range(1, count + 1):
            yield Connection(self.dial, self.message, self.reply)
            if number % UNACCEPTED == 0 and not self.udp:
                probe = Connection(self.dial, self.message, self.reply)
                probe.exchange()
                probe.sock.close()

    def watch(self, connection: Connection) -> None:
        connection.sock.setblocking(False)
        self.selector.register(connection.sock, selectors.EVENT_READ, connection)

    def advance(self, connection: Connection) -> None:
        """Something has happened to a connection."""
        try:
            connection.push()
            if connection.pull(self.buffer):
                self.complete(connection)
        except WAITS:
            pass
        writes = selectors.EVENT_WRITE if connection.unsent else 0
        key = self.selector.get_key(connection.sock)
        if key.events != selectors.EVENT_READ | writes:
            self.selector.modify(connection.sock, selectors.EVENT_READ | writes, connection)

    def complete(self, connection: Connection) -> None:
        self.last = time.perf_counter()
        self.latencies.append(self.last - connection.since)
        if self.reconnects:
            self.selector.unregister(connection.sock)
            connection.sock.close()
            since = time.perf_counter()
            connection.sock = connection.dial()
            self.watch(connection)
            connection.begin()
            connection.since = since
        else:
            connection.begin()
        connection.push()

    def run(self, count: int, seconds: float, warm_up: float, server: int) -> dict[str, object]:
        everyone = list(self.connections(count))
        for connection in everyone:
            self.watch(connection)
            connection.begin()
            self.advance(connection)
        self.last = looked = time.perf_counter()
        cpu: float | None = None
        started, until = 0.0, self.last + warm_up
        while (
            (now := time.perf_counter()) < until
            or not started
            or not self.latencies
            or (cpu is not None and cpu_seconds(server) == cpu)  # it has had no turn
        ):
            if not started and now >= until:
                cpu = cpu_seconds(server) if server else None
                started, until = now, now + seconds
                self.latencies.clear()
            for key, _ in self.selector.select(TICK):
                self.advance(key.data)
            if now - self.last > PATIENCE:
                raise TimeoutError(f"no answer for {PATIENCE:.0f} seconds")
            if self.udp and now - looked > TICK:
                looked = now
                self.send_again(everyone, now)
        found = figures(self.latencies, now - started)
        cpu_after = cpu_seconds(server) if cpu is not None else None
        return found if cpu_after is None or cpu is None else {**found, "cpu": cpu_after - cpu}

    def send_again(self, everyone: list[Connection], now: float) -> None:
        for connection in everyone:
            if now - connection.since > LOST_AFTER:
                connection.begin()
                connection.push()

    def hold(self, count: int) -> dict[str, object]:
        """See `hold` in `load.c`."""
        first = list(self.connections(WARM_UP_CONNECTIONS))
        wait_for_a_line()
        rest = list(self.connections(count))
        wait_for_a_line()
        for connection in rest:
            connection.exchange()
        for connection in first + rest:
            connection.sock.close()
        return {"operations": len(rest)}


def figures(latencies: list[float], seconds: float) -> dict[str, object]:
    count = len(latencies)
    latencies.sort()
    p50, p99 = (latencies[int(share * count)] * 1e6 for share in (0.5, 0.99))
    return {"operations": count, "seconds": seconds, "p50": p50, "p99": p99}


def wait_for_a_line() -> None:
    print("holding", flush=True)
    if not sys.stdin.readline():
        sys.exit()


def main(
    mode: str, port: str, connections: str, size: str, seconds: str, warm_up: str, server: str
) -> None:
    try:
        load = Load(mode, int(port), int(size))
        if mode.startswith("hold-"):
            found = load.hold(int(connections))
        else:
            found = load.run(int(connections), float(seconds), float(warm_up), int(server))
    except OSError as error:
        sys.exit(f"{error}")
    print(json.dumps(found), flush=True)
