"""Names of connections looked up by a host resolver, on loops that were told so.

It is opt-in, by `EventLoop.set_host_resolver`: a cache is a change that an application may notice.
`getaddrinfo` itself, and whatever else takes names, never sees one.
"""

import asyncio
import socket
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, runtime_checkable

from ._names import AddressInfo, address_family, resolve


@runtime_checkable
class HostResolver(Protocol):
    """What looks up names in place of getaddrinfo: `aws_io_async.HostResolver`, or one like it."""

    def resolve_candidates(self, host: str) -> Awaitable[Sequence[Any]]:
        """Objects with an `address`, in numbers, to be tried in this order; an OSError else."""

    def record_connection_failure(self, address: Any) -> object:
        """Hears of each of them that could not be connected to."""


def checked_resolver(resolver: HostResolver | None) -> HostResolver | None:
    """TypeError for what is no resolver."""
    if resolver is not None and not isinstance(resolver, HostResolver):
        raise TypeError(f"a host resolver, such as HostResolver(), is needed, not {resolver!r}")
    return resolver


class ConnectLookup:
    """The addresses for one connection, and a word to the resolver about those that fail."""

    def __init__(self, resolver: HostResolver | None) -> None:
        self._resolver = resolver
        self._found: dict[AddressInfo, Any] = {}

    async def resolve(
        self,
        loop: asyncio.AbstractEventLoop,
        address: tuple[Any, Any],
        *,
        family: int,
        proto: int,
        flags: int,
    ) -> list[AddressInfo]:
        """As the function `resolve`, but that the resolver, if there is one, knows the names."""
        host, port = address
        if self._resolver is None or not _is_name(host) or flags & socket.AI_NUMERICHOST:
            return await resolve(loop, address, family=family, proto=proto, flags=flags)
        for found in await self._resolver.resolve_candidates(host):
            kind = address_family(found.address.partition("%")[0])
            if family not in (socket.AF_UNSPEC, kind):
                continue
            for info in await resolve(
                loop, (found.address, port), family=family, proto=proto, flags=flags
            ):
                self._found[info] = found
        if not self._found:
            raise OSError(f"{self._resolver!r} has no address of {host!r} of this family")
        return list(self._found)

    def failed(self, info: AddressInfo) -> None:
        """Nobody answers at this address."""
        if self._resolver is not None and info in self._found:
            self._resolver.record_connection_failure(self._found[info])


def _is_name(host: Any) -> bool:
    return isinstance(host, str) and host != "" and address_family(host.partition("%")[0]) is None
