"""One name with three addresses, of which one dies and comes back.

    python examples/fleet.py [SECONDS]          (before, during and after the death of one each)

Every connection asks the resolver for the name. Its answers go round the addresses, so that the
fleet shares the work. An address that refuses a connection leaves the round, and the retry strategy
has the connection tried again, with the next one. When it has been away for `max_ttl`, it is given
another chance, as long as DNS still names it.

The addresses are of the loopback network: on macOS, add 127.0.0.2 and 127.0.0.3 to lo0 first.
"""

import asyncio
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

from aws_io_async import (
    ChannelStream,
    HostResolutionConfig,
    HostResolver,
    connect,
    run,
    serve,
)
from aws_io_async.host_resolver import HostAddress
from aws_io_async.retry_strategy import BackoffOptions, StandardRetryStrategy

HOST = "fleet.example"
ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
MAX_TTL = 1.0
CONNECTIONS = 12
"""In each line of the table."""


class CountingResolver(HostResolver):
    """Counts what the bootstrap reports to it."""

    refused = 0

    def record_connection_failure(self, address: HostAddress) -> None:
        self.refused += 1
        super().record_connection_failure(address)


class Member:
    """A server at one address. It says which, and hangs up."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._life = AsyncExitStack()

    async def start(self, port: int = 0) -> int:
        """Listen, and return the port; 0 has the system choose one."""
        listener = await self._life.enter_async_context(serve(self._answer, self.address, port))
        return listener.endpoint.port

    async def stop(self) -> None:
        await self._life.aclose()

    async def _answer(self, stream: ChannelStream) -> None:
        await stream.send(self.address.encode())


class Clients:
    """Makes connections, and prints where they went."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._began = time.monotonic()
        # In the place of DNS. A name server's answers may change; then so does the fleet.
        config = HostResolutionConfig(
            impl=lambda host: ADDRESSES, max_ttl=MAX_TTL, resolve_frequency=MAX_TTL / 5
        )
        self._resolver = CountingResolver(config=config)
        # A budget for the retries of all connections: if all the fleet is down, they end soon.
        self._strategy = StandardRetryStrategy(BackoffOptions(max_retries=3, scale_factor=0.01))
        print(
            "seconds" + "".join(f"{address:>12}" for address in ADDRESSES) + "   refused  in round"
        )

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            served: Counter[str] = Counter()
            for _ in range(CONNECTIONS):
                served[await self._ask()] += 1
            in_round = self._resolver.get_host_address_count(HOST)
            print(
                f"{time.monotonic() - self._began:7.1f}"
                + "".join(f"{served[address] or '-':>12}" for address in ADDRESSES)
                + f"{self._resolver.refused:>10}{in_round:>10}"
            )
            self._resolver.refused = 0
            await asyncio.sleep(MAX_TTL / 4)

    async def _ask(self) -> str:
        async with await connect(
            HOST, self._port, host_resolver=self._resolver, retry_strategy=self._strategy
        ) as stream:
            return (await stream.receive()).decode()

    def close(self) -> None:
        self._resolver.shutdown()


async def main(seconds: float) -> None:
    first, second, third = fleet = [Member(address) for address in ADDRESSES]
    port = await first.start()
    await second.start(port)
    await third.start(port)
    clients = Clients(port)
    try:
        await clients.run(seconds)
        await second.stop()
        print(f"-- {second.address} is dead")
        await clients.run(seconds)
        await second.start(port)
        print(f"-- {second.address} lives again")
        await clients.run(seconds)
    finally:
        clients.close()
        for member in fleet:
            await member.stop()


if __name__ == "__main__":
    run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3 * MAX_TTL))
