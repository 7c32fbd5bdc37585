"""What is measured: the scenarios, in groups, each of them a function of a loop."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ._load import Figures, Loads
from ._loops import Loop
from ._machine import Cpus
from ._processes import NotAvailableError, Process, python_command, running, served_by
from ._results import Sample
from ._scheduler import BENCHMARKS
from ._serve_http import SERVERS
from ._start import start_ms

CONNECTIONS = [1, 10, 100, 1000, 10_000]


@dataclass(frozen=True)
class Group:
    title: str
    unit: str
    """Of the scenarios' figures."""

    more_is_better: bool = True


GROUPS = {
    "echo": Group("Echo servers", "messages or connections a second"),
    "scale": Group("Many connections, 100 bytes on a protocol", "messages a second"),
    "http": Group("HTTP servers", "requests a second"),
    "scheduler": Group("Callbacks, tasks and timers", "operations a second"),
    "memory": Group("Memory", "bytes for an idle connection", more_is_better=False),
    "start": Group("Start", "milliseconds", more_is_better=False),
}


@dataclass(frozen=True)
class Bench:
    """What all measurements have in common."""

    python: str
    """The interpreter of the servers."""

    seconds: float
    connections: int
    """The most that there may be."""

    certificate: Path | str
    """For TLS; if there is none, why not."""

    loads: Loads
    cpus: Cpus

    def serve(self, loop: Loop, part: str, *arguments: str) -> list[str]:
        spec = [loop.spec] if loop.spec else []
        life = self.seconds + self.connections / 100  # handshakes take their time
        return python_command(part, *spec, *arguments, python=self.python, life=life)


@dataclass(frozen=True)
class Scenario:
    group: str
    name: str
    measure: Callable[[Bench, Loop], Sample]
    """Raises ProcessError or NotAvailableError."""

    bare: bool = False
    """Whether a server without a loop can do it."""

    connections: int = 1
    """How many it makes, if it is about that."""

    once: bool = False
    """Whether it is always the same: one round is enough."""

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


# A server and its load


@dataclass(frozen=True)
class Server:
    part: str
    interface: str
    tls: bool = False

    def command(self, bench: Bench, loop: Loop) -> list[str]:
        part = self.part if loop.spec else "_serve_bare"
        return bench.serve(loop, part, self.interface, *self._certificate(bench))

    def _certificate(self, bench: Bench) -> list[str]:
        if not self.tls:
            return []
        if isinstance(bench.certificate, str):
            raise NotAvailableError(bench.certificate)
        return [f"{bench.certificate}"]


def sample(figures: Figures) -> Sample:
    rate = figures.operations / figures.seconds
    cpu = None if figures.cpu is None else figures.cpu / figures.operations * 1e6
    return Sample(rate, cpu, figures.p50, figures.p99)


def load_server(
    server: Server, mode: str, connections: int, size: int, bench: Bench, loop: Loop
) -> Sample:
    with running("the server", server.command(bench, loop), bench.cpus.server) as process:
        port = int(process.line())
        found = bench.loads.run(
            mode, port, connections, size, bench.seconds, process, bench.cpus.load
        )
    return sample(found)


def load_http(server: str, connections: int, bench: Bench, loop: Loop) -> Sample:
    command = bench.serve(loop, "_serve_http", server)
    with running("the server", command, bench.cpus.server) as process:
        port = int(process.line())
        found = bench.loads.run_http(port, connections, bench.seconds, process, bench.cpus.load)
    return sample(found)


def memory(server: Server, bench: Bench, loop: Loop) -> Sample:
    """What the server's memory grows by; then each connection must still answer."""
    count = bench.connections
    with running("the server", server.command(bench, loop), bench.cpus.server) as process:
        port = int(process.line())
        mode = "hold-tls" if server.tls else "hold-tcp"
        command = bench.loads.command(mode, port, count, 16, 0, 0, 0, life=count / 100)
        with served_by(process), running("the load", command, bench.cpus.load) as load:
            before = held(load, process, 0)
            after = held(load, process, count / 100)
            load.tell()
            load.rest(count / 100)
    return Sample((after - before) / count)


def held(load: Process, server: Process, timeout: float) -> int:
    """Let the load open its connections; the server's memory with these."""
    if timeout:
        load.tell()
    load.line(timeout)
    server.tell()
    return int(server.line())


# On one process


def scheduler(name: str, bench: Bench, loop: Loop) -> Sample:
    command = bench.serve(loop, "_scheduler", name, f"{bench.seconds}")
    with running("the benchmark", command, bench.cpus.server) as process:
        found = json.loads(process.line(bench.seconds))
    return Sample(found["rate"], found["cpu"] * 1e6)


def start(bench: Bench, loop: Loop) -> Sample:
    return Sample(start_ms(bench.python, loop.spec, bench.cpus.server))


# The table


def size_of(size: int) -> str:
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} bytes"


def connections_of(count: int) -> str:
    return f"{count:,} connection{'s' if count > 1 else ''}"


PROTOCOL = Server("_serve_asyncio", "protocol")
TLS_PROTOCOL = Server("_serve_asyncio", "protocol", tls=True)
CHANNEL = Server("_serve_channels", "plain")
TLS_CHANNEL = Server("_serve_channels", "plain", tls=True)

ECHO: list[tuple[str, Server, str, list[tuple[int, int]]]] = [
    ("protocol", PROTOCOL, "tcp", [(1024, 10), (100, 200), (100, 1), (65536, 10)]),
    ("buffered protocol", Server("_serve_asyncio", "buffered"), "tcp", [(1024, 10), (65536, 10)]),
    ("streams", Server("_serve_asyncio", "stream"), "tcp", [(1024, 10), (65536, 10)]),
    ("sock methods", Server("_serve_asyncio", "sock"), "tcp", [(1024, 10)]),
    ("datagrams", Server("_serve_asyncio", "datagram"), "udp", [(1024, 10)]),
    ("TLS protocol", TLS_PROTOCOL, "tls", [(1024, 10), (65536, 10)]),
    ("TLS streams", Server("_serve_asyncio", "stream", tls=True), "tls", [(1024, 10)]),
    ("channel", CHANNEL, "tcp", [(1024, 10), (65536, 10)]),
    ("channel, coroutine", Server("_serve_channels", "coroutine"), "tcp", [(1024, 10)]),
    ("channel, awaited write", Server("_serve_channels", "write"), "tcp", [(1024, 10)]),
    ("TLS channel", TLS_CHANNEL, "tls", [(1024, 10)]),
]
"""Name, server, mode of the load; bytes and connections."""

WITH_BARE = {"protocol", "datagrams", "TLS protocol"}


def scenarios() -> Iterator[Scenario]:
    for title, server, mode, loads in ECHO:
        for size, count in loads:
            name = f"{title}, {size_of(size)}, {connections_of(count)}"
            measure = partial(load_server, server, mode, count, size)
            yield Scenario("echo", name, measure, bare=title in WITH_BARE)
    for title, server, mode in (
        ("TLS handshakes", TLS_PROTOCOL, "handshakes"),
        ("connections opened and closed", PROTOCOL, "connect-close"),
    ):
        for count in (1, 10):
            measure = partial(load_server, server, mode, count, 1)
            yield Scenario("echo", f"{title}, {count} at a time", measure, bare=True)
    for count in CONNECTIONS:
        measure = partial(load_server, PROTOCOL, "tcp", count, 100)
        yield Scenario("scale", connections_of(count), measure, bare=True, connections=count)
    for server_name in SERVERS:
        yield Scenario(
            "http", f"{server_name}, 10 connections", partial(load_http, server_name, 10)
        )
    for benchmark in BENCHMARKS:
        yield Scenario("scheduler", benchmark, partial(scheduler, benchmark))
    for title, server in (
        ("protocol", PROTOCOL),
        ("channel", CHANNEL),
        ("TLS protocol", TLS_PROTOCOL),
        ("TLS channel", TLS_CHANNEL),
    ):
        yield Scenario("memory", title, partial(memory, server), once=True)
    yield Scenario("start", "import, and a new loop", start)
