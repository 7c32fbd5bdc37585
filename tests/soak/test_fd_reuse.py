"""A connect that was cancelled, and whose descriptor is somebody else's in the next moment.

uvloop once gave one user's bytes to another that way: what it had begun for the old socket went on
for the new one. Here each connection's bytes tell whose they are, at both ends and in both
directions; the connect is cancelled at each of its turns, and at once its descriptor is another
connection's, which must go on as if nothing had been.
"""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.faults._report import Fault, few
from tests.soak.conversation import Ledger, Wire, ask
from tests.soak.servers import Keys, channel_server, stream_server
from tests.soak.wires import ChannelWire, RawWire, SocketWire, StreamWire
from tests.socket_tools import black_hole

pytestmark = pytest.mark.loops("aws_io_async")

REUSED = Fault(
    "Soak",
    "a connect that is cancelled at each of its turns, and its descriptor reused at once",
    "the next connection sends and receives its own bytes alone",
)

UP, DOWN = 3_000, 5_000


@dataclass
class World:
    """Two servers of each kind: one for those who are cancelled, one for their heirs."""

    keys: Keys
    ledger: Ledger = field(default_factory=Ledger)
    ports: dict[str, int] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    reused: int = 0

    async def converse(self, wire: Wire, server: str) -> None:
        await ask(wire, server, next(self.numbers), self.ledger, UP, DOWN)
        await wire.close()


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.make()


@asynccontextmanager
async def running(keys: Keys) -> AsyncIterator[World]:
    world = World(keys)
    async with AsyncExitStack() as stack:
        for name in ("cancelled", "heir"):
            for kind, server in {
                "plain": stream_server(name, world.ledger),
                "stream tls": stream_server(name, world.ledger, keys.ssl_server),
                "channel tls": channel_server(name, world.ledger, keys.server),
            }.items():
                world.ports[f"{name} {kind}"] = await stack.enter_async_context(server)
        yield world
    assert not world.ledger.failures, world.ledger.failures


Way = Callable[[World, str], Awaitable[Wire]]

WAYS: dict[str, Way] = {
    "sock_connect": lambda world, to: RawWire.open(world.ports[f"{to} plain"]),
    "create_connection": lambda world, to: StreamWire.open(world.ports[f"{to} plain"]),
    "create_connection, TLS": lambda world, to: StreamWire.open(
        world.ports[f"{to} stream tls"], **world.keys.for_streams
    ),
    "Socket.connect": lambda world, to: SocketWire.open(world.ports[f"{to} plain"]),
    "ClientBootstrap": lambda world, to: ChannelWire.open("127.0.0.1", world.ports[f"{to} plain"]),
    "ClientBootstrap, TLS": lambda world, to: ChannelWire.open(
        "127.0.0.1", world.ports[f"{to} channel tls"], tls=world.keys.client
    ),
}
"""How to connect to the server of a name."""


def next_descriptor() -> int:
    """The one that the next socket gets."""
    with socket.socket() as probe:
        return probe.fileno()


async def cancelled_after(world: World, way: Way, turns: int) -> bool:
    """Whether it was not done yet. If it was, it has its conversation."""
    task = asyncio.ensure_future(way(world, "cancelled"))
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.done():
        await world.converse(task.result(), "cancelled")
        return False
    task.cancel()
    await asyncio.wait({task})
    return True


@pytest.mark.parametrize("way", WAYS)
async def test_at_each_turn(way: str, keys: Keys) -> None:
    """The heirs connect in all the ways by turns, beginning with another one each time."""
    turns = 0
    async with running(keys) as world:
        for first in range(min(few(2), len(WAYS))):
            heirs = itertools.cycle([*list(WAYS.values())[first:], *list(WAYS.values())[:first]])
            for turns, heir in enumerate(heirs):
                descriptor = next_descriptor()
                if not await cancelled_after(world, WAYS[way], turns):
                    break
                wire = await heir(world, "heir")
                world.reused += wire.fd == descriptor
                await world.converse(wire, "heir")
    check_all_is_well(world)
    assert world.reused > turns
    REUSED.seen("its own bytes alone", world.ledger.totals["conversations"])


def check_all_is_well(world: World) -> None:
    totals = world.ledger.totals
    assert totals["bytes verified"] == totals["conversations"] * (UP + DOWN)
    assert totals["bytes sent"] == totals["bytes received"] == totals["bytes verified"]


@pytest.mark.parametrize("way", WAYS)
async def test_heirs_that_begin_before_the_cancellation_has_arrived(way: str, keys: Keys) -> None:
    """All in one turn: the connect is cancelled, and others of all kinds begin."""
    async with running(keys) as world:
        for turns in itertools.count():
            task = asyncio.ensure_future(WAYS[way](world, "cancelled"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()

            async def inherit(name: str) -> None:
                await world.converse(await WAYS[name](world, "heir"), "heir")

            await asyncio.gather(*map(inherit, WAYS))
            await asyncio.wait({task})
            if not task.cancelled():
                await world.converse(task.result(), "cancelled")
                break
    check_all_is_well(world)
    REUSED.seen("its own bytes alone", world.ledger.totals["conversations"])


@pytest.mark.parametrize("heir", ["sock_connect", "Socket.connect"])
async def test_a_socket_that_is_closed_while_it_connects(heir: str, keys: Keys) -> None:
    """Its owner closes it first and cancels then, and in the same turn somebody has its number."""
    loop = asyncio.get_running_loop()
    async with running(keys) as world:
        with black_hole() as hole:
            for _ in range(5):
                sock = socket.socket()
                sock.setblocking(False)
                task = asyncio.ensure_future(loop.sock_connect(sock, (hole.address, hole.port)))
                await asyncio.sleep(0)
                descriptor = sock.fileno()
                sock.close()
                task.cancel()
                wire = await WAYS[heir](world, "heir")
                assert wire.fd == descriptor
                await asyncio.wait({task})
                assert task.cancelled()
                await world.converse(wire, "heir")
    REUSED.seen("its own bytes alone", 5)
