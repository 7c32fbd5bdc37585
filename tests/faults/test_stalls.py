"""Peers and networks that fall silent, for a while or for ever, or take little at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme

from tests.faults._report import Fault, seeds, trial
from tests.faults.ends import WAYS, End, Tls, tls_of
from tests.faults.exchange import NAMED, exchange, name_of
from tests.faults.proxy import PATIENCE, FaultProxy, narrow
from tests.faults.script import CLEAR, Plan, Trouble

SILENCE = Fault(
    "Network",
    "silence at a random byte; whoever receives gives up and asks again",
    "all bytes: a call that is cancelled takes none",
)
MUTE = Fault(
    "Network",
    "silence at a random byte of a TLS handshake",
    "an error with a name when the handshake's timeout has passed",
)
NOT_READ = Fault(
    "Network",
    "a peer that reads nothing, megabytes on the way to it",
    "sending waits, and can be cancelled; to abort closes at once",
)
TINY = Fault(
    "Network", "windows and socket buffers of 4 KiB, at both ends and in between", "all bytes"
)

BUFFER = 4096

WITH_TLS = [(way, tls) for way in WAYS for tls in (False, True) if not (tls and way == "sock_*")]
ways = pytest.mark.parametrize(("way", "with_tls"), WITH_TLS)


@pytest.fixture(scope="session")
def tls(ca: trustme.CA) -> Tls:
    return tls_of(ca)


class Impatience:
    """Makes receivers cancel their calls, and ask again; silence ends when they have some times."""

    TIMES = 8

    def __init__(self, plans: list[Plan]) -> None:
        self.times = 0
        self._plans = plans

    @asynccontextmanager
    async def network(self, port: int) -> AsyncIterator[int]:
        async with FaultProxy(port, *self._plans) as self._proxy:
            yield self._proxy.port

    def prepare(self, end: End) -> None:
        receive = end.receive
        end.receive = lambda: self._receive(receive)  # type: ignore[method-assign]  # on purpose

    async def _receive(self, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        while True:
            try:
                async with asyncio.timeout(0.002):
                    return await receive()
            except TimeoutError:
                self.times += 1
                if self.times == self.TIMES:
                    self._proxy.release()


@ways
async def test_receivers_that_give_up_and_ask_again(tls: Tls, way: str, with_tls: bool) -> None:
    if way == "sock_*" and type(asyncio.get_running_loop()).__module__[:3] != "aws":
        pytest.skip("other loops may lose what comes when sock_recv is cancelled")
    for seed in seeds(1):
        with trial(seed) as chooser:
            up, down = chooser.randbytes(100_000), chooser.randbytes(100_000)
            plans = [Plan(Trouble.STALL, chooser.randrange(2000, 90_000)) for _ in range(2)]
            impatience = Impatience(plans)
            kind = WAYS[way](tls if with_tls else Tls())
            network, prepare = impatience.network, impatience.prepare
            ends = await exchange(kind, up, down, network, prepare=prepare)
            assert all(end.is_complete for end in ends)
            assert impatience.times >= impatience.TIMES
            SILENCE.seen("all bytes", impatience.times)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "sock_*"])
@pytest.mark.parametrize("direction", [0, 1], ids=["up", "down"])
async def test_handshakes_that_stall(ca: trustme.CA, way: str, direction: int) -> None:
    kind = WAYS[way](tls_of(ca, timeout=0.05))
    for seed in seeds(1):
        with trial(seed) as chooser:
            plans = [CLEAR, CLEAR]
            plans[direction] = Plan(Trouble.STALL, chooser.randrange(200))
            served: list[End] = []

            async def serve(end: End, served: list[End] = served) -> None:
                served.append(end)

            async with (
                asyncio.timeout(PATIENCE),
                kind.serve(serve) as port,
                FaultProxy(port, *plans) as proxy,
            ):
                with pytest.raises(NAMED) as caught:
                    await kind.connect(proxy.port)
            assert not served
            MUTE.seen(name_of(caught.value))


# Over TLS, asyncio's transports and uvloop's take all of it at once, and nobody waits.
@pytest.mark.loops("aws_io_async")
@ways
async def test_a_peer_that_reads_nothing(tls: Tls, way: str, with_tls: bool) -> None:
    kind = WAYS[way](tls if with_tls else Tls())
    much = bytes(20_000_000)

    async def wait_for_the_end(end: End) -> None:
        try:
            while await end.receive():
                pass
        except NAMED:
            pass

    for seed in seeds(1):
        with trial(seed) as chooser:
            plan = Plan(Trouble.STALL, chooser.randrange(3000, 100_000))
            async with (
                asyncio.timeout(PATIENCE),
                kind.serve(wait_for_the_end) as port,
                FaultProxy(port, plan) as proxy,
            ):
                end = await kind.connect(proxy.port)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await end.send(much)
                await end.abort()
            NOT_READ.seen("aborted")


@asynccontextmanager
async def narrow_network(port: int) -> AsyncIterator[int]:
    async with FaultProxy(port, buffer=BUFFER) as proxy:
        yield proxy.port


def narrow_end(end: End) -> None:
    narrow(end.socket(), BUFFER)


@ways
async def test_small_buffers(tls: Tls, way: str, with_tls: bool) -> None:
    kind = WAYS[way](tls if with_tls else Tls())
    for seed in seeds(1):
        with trial(seed) as chooser:
            up, down = chooser.randbytes(50_000), chooser.randbytes(50_000)

            ends = await exchange(kind, up, down, narrow_network, prepare=narrow_end)
            assert all(end.is_complete for end in ends)
            TINY.seen("all bytes", 2)
