"""`ChannelStream` does what any two-way stream of anyio's must, wherever its channels are."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme

from aws_io_async.event_loop.group import EventLoopGroup
from tests import loops
from tests.stream_checks import CHECKS, Make, Pair, check_half_close, check_no_half_close
from tests.streams import PLAIN, Security, stream_pair, tls_of

Check = Callable[[Make], Awaitable[None]]

PLACES = ["here", "threads", "mixed"]
"""Where the channels are: on the caller's loop, on those of a group, or one on each."""


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def group() -> AsyncIterator[EventLoopGroup]:
    async with EventLoopGroup(2, loop_factory=loops.FACTORIES["aws_io_async"]) as group:
        yield group


def maker(security: Security, place: str, group: EventLoopGroup) -> Make:
    """Makes both ends of a connection."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Pair]:
        async with stream_pair(
            security,
            client_group=group if place != "here" else None,
            server_group=group if place == "threads" else None,
        ) as pair:
            yield pair

    return make


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_checks_of_all_streams(
    check: Check, secure: bool, place: str, group: EventLoopGroup, ca: trustme.CA
) -> None:
    await check(maker(tls_of(ca) if secure else PLAIN, place, group))


async def test_half_close(place: str, group: EventLoopGroup) -> None:
    await check_half_close(maker(PLAIN, place, group))


async def test_tls_has_no_half_close(place: str, group: EventLoopGroup, ca: trustme.CA) -> None:
    await check_no_half_close(maker(tls_of(ca), place, group))
