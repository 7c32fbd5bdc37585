"""aiohttp's clients with our resolver: cached names, the load over all addresses, failover.

    async with aiohttp.ClientSession(connector=connector()) as session:
        async with session.get("https://example.com/") as response:
            ...

Needs aiohttp 3.12 or newer: the extra `aiohttp`.
"""

import socket
from typing import Any

try:
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult
except ModuleNotFoundError as exc:
    message = f'{__name__} needs aiohttp: pip install "aws-io-async[aiohttp]"'
    raise ModuleNotFoundError(message, name=exc.name) from exc

from ..errors import ErrorCode, make
from ..host_resolver import HostAddress, HostResolutionConfig, HostResolver

MAX_KNOWN = 1024
"""Addresses that are remembered, to report those that fail."""

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def connector(
    host_resolver: HostResolver | None = None,
    config: HostResolutionConfig | None = None,
    **options: Any,
) -> aiohttp.TCPConnector:
    """A connector of aiohttp's that looks names up by `host_resolver`, by default the process's.

    It has no cache of its own, so that connections go round the addresses, and addresses that
    refuse one are reported. `options` are those of `aiohttp.TCPConnector`. Thread: that of a
    running loop, as for any connector.
    """
    resolver = AiohttpResolver(host_resolver, config)
    return aiohttp.TCPConnector(
        resolver=resolver,
        **{"socket_factory": resolver.socket_factory, "use_dns_cache": False, **options},
    )


class AiohttpResolver(AbstractResolver):
    """Our resolver as aiohttp wants one. `connector()` makes a connector with all that belongs.

    `config` is how it looks hosts up. Thread: that of its connector's loop.
    """

    def __init__(
        self,
        host_resolver: HostResolver | None = None,
        config: HostResolutionConfig | None = None,
    ) -> None:
        self._resolver = host_resolver if host_resolver is not None else HostResolver.default()
        self._config = config
        self._known: dict[str, HostAddress] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of `host` that go round, the one whose turn it is first.

        aiohttp tries one after the other. Raises what `HostResolver.resolve_host` raises, which is
        an OSError, and IO_DNS_NO_ADDRESS_FOR_HOST if none is of that family.
        """
        results = []
        for address in await self._in_turn(host):
            kind = socket.AF_INET6 if ":" in address.address else socket.AF_INET
            if family in (socket.AF_UNSPEC, kind):
                self._remember(address)
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=address.address,
                        port=port,
                        family=kind,
                        proto=socket.IPPROTO_TCP,
                        flags=_NUMERIC,
                    )
                )
        if not results:
            raise make(ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST, f"{host}: none of {family!r}")
        return results

    async def _in_turn(self, host: str) -> list[HostAddress]:
        given = await self._resolver.resolve_host(host, self._config)
        others = self._resolver.known_addresses(host).good
        return list({address.address: address for address in (*given, *others)}.values())

    def _remember(self, address: HostAddress) -> None:
        self._known.pop(address.address, None)
        self._known[address.address] = address
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def socket_factory(self, addr_info: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for a connection to an address; if that is refused, the resolver is told."""
        family, kind, protocol, _, address = addr_info
        return _Socket(family, kind, protocol, self, address)

    def connection_failed(self, address: str) -> None:
        """Tell the resolver that a connection to an address has failed.

        If several names have the address, the one that was asked for last is meant.
        """
        known = self._known.get(address)
        if known is not None:
            self._resolver.record_connection_failure(known)

    async def close(self) -> None:
        """Nothing: the `HostResolver` is shared."""


class _Socket(socket.socket):
    """Notices that its connection fails, which aiohttp tells nobody.

    Event loops start a connection by `connect`, and ask for its outcome by `SO_ERROR`.
    """

    def __init__(
        self, family: int, kind: int, protocol: int, resolver: AiohttpResolver, address: Any
    ) -> None:
        super().__init__(family, kind, protocol)
        self._resolver = resolver
        self._address = address[0]

    def connect(self, address: Any) -> None:
        try:
            super().connect(address)
        except (BlockingIOError, InterruptedError):
            raise
        except OSError:
            self._resolver.connection_failed(self._address)
            raise

    def getsockopt(self, *args: Any) -> Any:
        value = super().getsockopt(*args)
        if args == (socket.SOL_SOCKET, socket.SO_ERROR) and value:
            self._resolver.connection_failed(self._address)
        return value
