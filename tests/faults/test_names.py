"""Connections by name, with a DNS server that lies, loses questions, fails and comes back."""

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme

from aws_io_async.channel_stream import ChannelStream, connect, serve
from aws_io_async.errors import AwsIoError
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver
from aws_io_async.tls_context import TlsConnectionOptions
from tests.dns_server import NOERROR, NXDOMAIN, REFUSED, SERVFAIL, DnsServer
from tests.faults._report import Fault, seeds, trial
from tests.faults.proxy import LOOPBACK, PATIENCE
from tests.tls_peers import HOST, client_of, server_of

dns_resolver = pytest.importorskip("aws_io_async.integrations.dns")

ELSEWHERE = "127.0.0.9"
TRUTH, LIE = map(socket.inet_aton, (LOOPBACK, ELSEWHERE))

REACHED = "the peer that was asked for, or an error with a name; the peer once DNS is well again"
LOST = Fault("Names", "DNS answers lost at random", REACHED)
FLAPPING = Fault("Names", "DNS fails, denies the name, refuses and answers in turn", REACHED)
GARBLED = Fault("Names", "DNS answers damaged: cut, noise, to other questions", REACHED)
KNOWN = Fault("Names", "DNS gone after it has answered once", "the peer")
NOBODY = Fault("Names", "DNS names an address where nobody listens", REACHED)
IMPOSTOR = Fault(
    "Names",
    "DNS names an impostor's address, with TLS",
    f"{REACHED}; never the impostor",
)

Garble = Callable[[bytes], bytes | None]


def lossy(chooser: random.Random, server: DnsServer) -> Garble:
    return lambda answer: None if chooser.random() < 0.6 else answer


def flapping(chooser: random.Random, server: DnsServer) -> Garble:
    def garble(answer: bytes) -> bytes:
        server.fail(chooser.choice([NOERROR, SERVFAIL, NXDOMAIN, REFUSED]))  # the next one
        return answer

    return garble


def garbling(chooser: random.Random, server: DnsServer) -> Garble:
    def garble(answer: bytes) -> bytes:
        place = chooser.randrange(max(12, answer.rfind(TRUTH)))  # addresses stay: no strangers
        return chooser.choice(
            [
                answer,
                answer[:place],
                chooser.randbytes(len(answer)),
                bytes([answer[0] ^ 1]) + answer[1:],  # of another question's number
                answer[:place]
                + bytes([answer[place] ^ 1 << chooser.randrange(8)])
                + answer[place + 1 :],
                answer.replace(b"peer", b"beer"),
                answer[:12] + b"\xc0\x0c" * 20,  # a name that never ends
            ]
        )

    return garble


def lying(chooser: random.Random, server: DnsServer) -> Garble:
    return lambda answer: answer.replace(TRUTH, LIE) if chooser.random() < 0.7 else answer


def greeting(name: bytes) -> Callable[[ChannelStream], Awaitable[None]]:
    async def greet(stream: ChannelStream) -> None:
        await stream.send(name)

    return greet


class Client:
    """Connects by name, and tells what came of it."""

    def __init__(self, ca: trustme.CA, dns: DnsServer, port: int) -> None:
        lookup = dns_resolver.DnsResolver([dns.address], timeout=0.1, server_timeout=0.03)
        config = HostResolutionConfig(lookup, resolve_frequency=0.1)
        self.resolver = HostResolver(config=config)
        self._tls = TlsConnectionOptions(client_of(ca), HOST)
        self._port = port

    async def visit(self) -> str:
        """The peer's name, or that of an error."""
        try:
            async with await connect(
                HOST, self._port, tls=self._tls, host_resolver=self.resolver
            ) as stream:
                return (await stream.receive()).decode()
        except AwsIoError as e:
            return f"`{type(e).__name__}`"

    async def reaches_the_peer(self) -> None:
        """Wait until it does; what DNS has said last may have been kept for a moment."""
        async with asyncio.timeout(PATIENCE):
            while await self.visit() != "the peer":  # noqa: ASYNC110  there is no event for this
                await asyncio.sleep(0.02)


@asynccontextmanager
async def client_and_dns(
    ca: trustme.CA, *, impostor: bool = False
) -> AsyncIterator[tuple[Client, DnsServer]]:
    """A server, which the client looks up; perhaps another, with a certificate of nobody's."""
    other = trustme.CA() if impostor else ca
    async with serve(greeting(b"the peer"), LOOPBACK, tls=server_of(ca)) as listener:
        port = listener.endpoint.port
        with DnsServer() as dns:
            dns.records[HOST, "A"] = [(LOOPBACK, 0)]
            client = Client(ca, dns, port)
            with client.resolver:
                if not impostor:
                    yield client, dns
                    return
                async with serve(greeting(b"the impostor"), ELSEWHERE, port, tls=server_of(other)):
                    yield client, dns


@pytest.mark.parametrize(
    ("fault", "garble", "impostor"),
    [
        (LOST, lossy, False),
        (FLAPPING, flapping, False),
        (GARBLED, garbling, False),
        (NOBODY, lying, False),
        (IMPOSTOR, lying, True),
    ],
    ids=["lossy", "flapping", "garbling", "lying", "naming an impostor"],
)
async def test_dns_that_is_not_well(
    ca: trustme.CA,
    fault: Fault,
    garble: Callable[[random.Random, DnsServer], Garble],
    impostor: bool,
) -> None:
    if impostor and sys.platform != "linux":
        pytest.skip("only Linux has all of 127.0.0.0/8 on loopback")
    for seed in seeds(1):
        with trial(seed) as chooser:
            async with client_and_dns(ca, impostor=impostor) as (client, dns):
                dns.garble = garble(chooser, dns)
                for _ in range(5):
                    outcome = await client.visit()
                    assert outcome == "the peer" or outcome.endswith("Error`")
                    fault.seen(outcome)
                dns.garble = None
                dns.fail(NOERROR)
                await client.reaches_the_peer()


async def test_dns_that_has_gone(ca: trustme.CA) -> None:
    for seed in seeds(1):
        with trial(seed):
            async with client_and_dns(ca) as (client, dns):
                await client.reaches_the_peer()
                dns.stop()
                for _ in range(5):
                    assert await client.visit() == "the peer"
                    KNOWN.seen("the peer")
                    await asyncio.sleep(0.02)
