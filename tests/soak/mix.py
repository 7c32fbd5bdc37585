"""The mixture: connections of all kinds, ended in all ways, and what else a loop has to do."""

import asyncio
import itertools
import random
import threading
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from aws_io_async.errors import AwsIoError
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver
from aws_io_async.integrations.dns import DnsResolver
from tests import dns_server
from tests.soak.conversation import CHUNK, Ledger, Wire, ask, ask_in_part
from tests.soak.identity import Identity
from tests.soak.servers import LOOPBACK, Keys, channel_server, stream_server
from tests.soak.wires import ChannelWire, RawWire, SocketWire, StreamWire

NAME = "soak.test"
NOBODY = "127.0.0.9"
"""An address of this machine at which no server listens."""

STUCK = 60.0
"""Seconds after which something has come to a halt."""


class Mix:
    """All that goes on, and what has come of it. Everything random is by one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ledger = Ledger()
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.reused = 0
        self._given_up: set[int] = set()  # descriptors of what was cut, and not been seen since
        self._keys = Keys.make()
        self._numbers = itertools.count()
        self._ports: dict[str, int] = {}
        self._resolver: HostResolver
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "child processes": self._child,
            "threads": self._thread,
            "groups": self._group,
        }
        self._openers: dict[str, tuple[str, Callable[[int], Awaitable[Wire]]]] = {
            "streams": ("streams", StreamWire.open),
            "streams, TLS": (
                "streams, TLS",
                lambda port: StreamWire.open(port, **self._keys.for_streams),
            ),
            "sock_connect": ("streams", RawWire.open),
            "Socket": ("streams", SocketWire.open),
            "channels": ("channels", lambda port: ChannelWire.open(LOOPBACK, port)),
            "channels, TLS": (
                "channels, TLS",
                lambda port: ChannelWire.open(LOOPBACK, port, tls=self._keys.client),
            ),
            "channels by name": (
                "channels",
                lambda port: ChannelWire.open(NAME, port, host_resolver=self._resolver),
            ),
        }
        """By kind of client: which server it talks to, and how it connects."""

    @asynccontextmanager
    async def servers(self) -> AsyncIterator[None]:
        """While everything is there to talk to."""
        keys, ledger = self._keys, self.ledger
        async with AsyncExitStack() as stack:
            for name, server in {
                "streams": stream_server("streams", ledger),
                "streams, TLS": stream_server("streams, TLS", ledger, keys.ssl_server),
                "channels": channel_server("channels", ledger),
                "channels, TLS": channel_server("channels, TLS", ledger, keys.server),
            }.items():
                self._ports[name] = await stack.enter_async_context(server)
            dns = stack.enter_context(dns_server.DnsServer())
            look_up = DnsResolver([dns.address], timeout=0.5, server_timeout=0.2)
            config = HostResolutionConfig(look_up, max_ttl=1, resolve_frequency=0.1)
            self._resolver = await stack.enter_async_context(HostResolver(config=config))
            churn = asyncio.ensure_future(self._churn(dns))
            try:
                yield
            finally:
                churn.cancel()
                await asyncio.wait({churn})

    async def _churn(self, dns: dns_server.DnsServer) -> None:
        """Names change their addresses, vanish and come back."""
        while True:
            addresses = self.random.choice([[LOOPBACK], [NOBODY, LOOPBACK], [NOBODY], []])
            dns.records = {(NAME, "A"): [(address, 1) for address in addresses]}
            dns.fail(self.random.choice([dns_server.NOERROR] * 3 + [dns_server.SERVFAIL]))
            if self.random.random() < 0.2:
                self._resolver.purge_host_cache(NAME)
            await asyncio.sleep(0.05)

    # One thing after the other, by each of several workers

    async def work(self, until: float) -> None:
        """Do one thing after the other until then, by the loop's clock."""
        loop = asyncio.get_running_loop()
        weights = {**dict.fromkeys(self._openers, 20), **dict.fromkeys(self.kinds, 2)}
        weights["channels by name"] = 5  # they mostly wait
        while loop.time() < until:
            (kind,) = self.random.choices(list(weights), list(weights.values()))
            try:
                async with asyncio.timeout(STUCK):
                    await self._do(kind)
            except Exception as exc:
                exc.add_note(f"while it did: {kind}")
                self.ledger.failed(exc)
                return

    async def _do(self, kind: str) -> None:
        fate = self.random.random()
        if fate < 0.5:
            await self._begin(kind)
        elif fate < 0.6 and kind in self._openers:
            await self._reset(kind)
        else:
            await self._cancel(kind)
            await self._begin(self.random.choice(list(self._openers)))  # may get its descriptor

    async def _begin(self, kind: str) -> None:
        self.begun[kind] += 1
        if kind in self.kinds:
            await self.kinds[kind]()
        else:
            await self._converse(kind)
        self.done[kind] += 1

    async def _cancel(self, kind: str) -> None:
        """At a random moment, by turns of the loop or by time."""
        task = asyncio.ensure_future(self._begin(kind))
        if self.random.random() < 0.5:
            for _ in range(self.random.randrange(60)):
                await asyncio.sleep(0)
        else:
            await asyncio.wait({task}, timeout=0.02 * self.random.random())
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            self.ledger.cut(0)
        else:
            task.result()

    # Connections

    async def _open(self, kind: str) -> Wire | None:
        """None if its name had no good address just now."""
        server, opener = self._openers[kind]
        try:
            wire = await opener(self._ports[server])
        except AwsIoError:
            if kind != "channels by name":
                raise
            return None
        if wire.fd in self._given_up:
            self._given_up.remove(wire.fd)
            self.reused += 1
        return wire

    async def _converse(self, kind: str) -> None:
        wire = await self._open(kind)
        if wire is None:
            return
        up, down = self.random.randrange(50_000), self.random.randrange(50_000)
        try:
            number = next(self._numbers)
            await ask(wire, self._openers[kind][0], number, self.ledger, up, down)
            await wire.close()
        except BaseException:
            self._given_up.add(wire.fd)
            wire.cut()
            raise

    async def _reset(self, kind: str) -> None:
        self.begun[kind] += 1
        wire = await self._open(kind)
        if wire is not None:
            up = self.random.randrange(20_000)
            self._given_up.add(wire.fd)
            server = self._openers[kind][0]
            await ask_in_part(wire, server, next(self._numbers), self.ledger, up)
            await wire.close()

    # What is no connection

    async def _child(self) -> None:
        """A child process that sends back what it gets."""
        sent, received = (Identity(f"child/{self.begun['child processes']}") for _ in range(2))
        size = self.random.randrange(200_000)
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        async def send() -> None:
            while sent.position < size:
                stdin.write(sent.take(min(CHUNK, size - sent.position)))
                await stdin.drain()
            stdin.close()

        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(send())
                while data := await stdout.read(1 << 16):
                    received.check(data)
            received.ended(size)
            assert await child.wait() == 0
        finally:
            if child.returncode is None:
                child.kill()
            await child.communicate()

    async def _thread(self) -> None:
        """A thread whose calls arrive, each once and in order."""
        loop = asyncio.get_running_loop()
        got: list[int] = []
        finished = asyncio.Event()

        def call() -> None:
            for number in range(500):
                loop.call_soon_threadsafe(got.append, number)
            loop.call_soon_threadsafe(finished.set)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            await finished.wait()
            assert got == list(range(500))
        finally:
            thread.join()

    async def _group(self) -> None:
        """A group of loops is started, serves itself, and is shut down."""
        async with (
            EventLoopGroup(2) as group,
            channel_server("group", self.ledger, group=group) as port,
        ):
            for _ in range(3):
                wire = await ChannelWire.open(LOOPBACK, port, event_loop_group=group)
                try:
                    await ask(wire, "group", next(self._numbers), self.ledger, 20_000, 20_000)
                    await wire.close()
                except BaseException:
                    wire.cut()
                    raise
