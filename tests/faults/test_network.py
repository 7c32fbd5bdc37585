"""Every way to use a connection, over a network that does what networks do.

What arrives is all bytes, or the first of them and then an error with a name, or the end. With TLS
a turned bit is an error, and never other bytes.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from tests.faults._report import Fault, seeds, trial
from tests.faults.ends import WAYS, Tls, tls_of
from tests.faults.exchange import Received, exchange
from tests.faults.proxy import FaultProxy
from tests.faults.script import CLEAR, HARMLESS, Plan, Trouble

ALL = "all bytes"
PREFIX = "all bytes, or the first of them and then the end or an error with a name"
ERROR = "all bytes, or the first of them and then an error with a name"
PREFIX_TLS = f"{ERROR} (with asyncio's own interfaces: or the end)"
NO_WRONG = f"{PREFIX_TLS}; never other bytes"

WHAT = {
    Trouble.DELAY: "delayed, in pieces of random sizes",
    Trouble.SPLIT: "split into single bytes",
    Trouble.COALESCE: "coalesced",
    Trouble.CUT: "connection closed at a random byte",
    Trouble.HALF_CLOSE: "one direction ended at a random byte",
    Trouble.RESET: "connection reset at a random byte",
    Trouble.CORRUPT: "one bit turned",
}
PROMISED = {Trouble.RESET: (ERROR, ERROR), Trouble.CORRUPT: ("", NO_WRONG)}
"""Without TLS and with it, where that is not what follows."""

FAULTS = {
    (trouble, tls): Fault(
        "Network",
        f"{what}{', with TLS' if tls else ''}",
        PROMISED.get(trouble, (ALL, ALL) if trouble in HARMLESS else (PREFIX, PREFIX_TLS))[tls],
    )
    for tls in (False, True)
    for trouble, what in WHAT.items()
    if tls or trouble is not Trouble.CORRUPT
}

CHANNELS = {"connect and serve", "bootstraps"}


@pytest.fixture(scope="session")
def tls(ca: trustme.CA) -> Tls:
    return tls_of(ca)


def plan_of(trouble: Trouble, chooser: random.Random, size: int) -> Plan:
    """The place is anywhere, handshakes included, or soon after the end."""
    return Plan(trouble, chooser.randrange(size + size // 50 + 800), chooser.getrandbits(32))


@pytest.mark.parametrize(
    ("trouble", "with_tls", "way"),
    [(*fault, way) for fault in FAULTS for way in WAYS if not (fault[1] and way == "sock_*")],
)
async def test_the_network_does_what_networks_do(
    tls: Tls, trouble: Trouble, with_tls: bool, way: str
) -> None:
    fault = FAULTS[trouble, with_tls]
    for seed in seeds(1):
        with trial(seed) as chooser:
            sizes = [1, 1000] if trouble is Trouble.SPLIT else [1, 3000, 70_000, 300_000]
            up, down = (chooser.randbytes(chooser.choice(sizes)) for _ in range(2))
            plans = [plan_of(trouble, chooser, len(data)) for data in (up, down)]
            if trouble not in HARMLESS:
                plans[chooser.randrange(2)] = CLEAR
            injected: list[bool] = []

            @asynccontextmanager
            async def network(port: int, plans: list[Plan] = plans) -> AsyncIterator[int]:
                nonlocal injected
                async with FaultProxy(port, *plans) as proxy:
                    yield proxy.port
                injected = proxy.injected

            ends = await exchange(WAYS[way](tls if with_tls else Tls()), up, down, network)
            if trouble in HARMLESS or not any(injected):
                assert all(end.is_complete for end in ends), ends
            if trouble is Trouble.RESET or (with_tls and way in CHANNELS):
                assert all(told_of_its_end(end) for end in ends), ends
            for end, was_injected in zip(ends, injected, strict=True):
                if was_injected:
                    fault.seen(end.outcome)


def told_of_its_end(end: Received) -> bool:
    """Whether who has not got all bytes was not told that this was all."""
    return end.is_complete or not end.connected or end.failure is not None
