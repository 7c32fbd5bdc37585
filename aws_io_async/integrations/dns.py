"""Lookups for `HostResolver` that ask DNS itself, and honour the time for which it answers.

    pip install aws-io-async[dns]

    resolver = HostResolver(config=HostResolutionConfig(impl=DnsResolver()))

getaddrinfo does not tell for how long an answer holds, so that addresses are used for `max_ttl`
whatever DNS says. With `DnsResolver` a record is used for its own TTL if that is shorter. Its
lookups are coroutines: dozens go on at a time, on no thread but the scheduler's, and shutting the
resolver down cancels them.

It stands on dnspython, which is maintained, typed and pure Python as this library is: its sockets
are those of the event loop that runs it, and end when the lookup is cancelled. aiodns, the other
one, is c-ares by way of pycares: native code with a thread of its own for each of its channels.

What the system knows beyond DNS, it does not: the hosts file, mDNS, containers' names. Only
`localhost` is what it is everywhere (RFC 6761, section 6.3).
"""

import asyncio
from collections.abc import Sequence

try:
    import dns.asyncbackend
    import dns.asyncresolver
    import dns.exception
    import dns.inet
    import dns.nameserver
    import dns.resolver
except ModuleNotFoundError as exc:
    message = f'{__name__} needs dnspython: pip install "aws-io-async[dns]"'
    raise ModuleNotFoundError(message, name=exc.name) from exc

from .. import errors
from ..errors import ErrorCode
from ..host_resolver import ResolvedAddress

LOOPBACK = [ResolvedAddress("::1"), ResolvedAddress("127.0.0.1")]

_Outcome = dns.resolver.Answer | BaseException


class DnsResolver:
    """A coroutine function, as an object: `await DnsResolver()("example.com")`.

    `nameservers`: addresses, or pairs of address and port, asked in this order; None takes those of
    `/etc/resolv.conf` as it is now. `timeout`: seconds for a lookup, with all its tries;
    `server_timeout`: seconds after which the next server is tried, or the same once more. `search`:
    try the search domains of `/etc/resolv.conf`.

    Raises IO_DNS_QUERY_FAILED if there is no name server to ask, and ValueError if one of
    `nameservers` is no address. Thread: any; a call belongs to the loop that runs it.
    """

    def __init__(
        self,
        nameservers: Sequence[str | tuple[str, int]] | None = None,
        *,
        timeout: float = 5.0,
        server_timeout: float = 2.0,
        search: bool = False,
    ) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=nameservers is None or search)
        except dns.resolver.NoResolverConfiguration as exc:
            raise errors.make(ErrorCode.IO_DNS_QUERY_FAILED, f"no name server: {exc}") from exc
        if nameservers is not None:
            self._resolver.nameservers = [_nameserver(item) for item in nameservers]
        self._resolver.lifetime = timeout
        self._resolver.timeout = server_timeout
        self._search = search
        self._backend = dns.asyncbackend.get_backend("asyncio")

    def __repr__(self) -> str:
        servers = ", ".join(map(str, self._resolver.nameservers))
        return f"<{type(self).__name__} {servers}>"

    async def __call__(self, host: str) -> list[ResolvedAddress]:
        """The addresses of `host`, with their TTL: that of an alias on the way if it is shorter.

        Both families are asked for at a time; if one answers, the other's failure does not matter.
        Raises IO_DNS_INVALID_NAME if there is no such name, IO_DNS_NO_ADDRESS_FOR_HOST if it has no
        address, IO_DNS_QUERY_AGAIN if no server gave an answer in time, and IO_DNS_QUERY_FAILED if
        the answer is of no use. Cancelled, it asks no more, and has closed its sockets.
        """
        name = host.removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):
            return LOOPBACK
        outcomes = await asyncio.gather(
            self._ask(host, "AAAA"), self._ask(host, "A"), return_exceptions=True
        )
        found = [
            ResolvedAddress(record.address, outcome.chaining_result.minimum_ttl)
            for outcome in outcomes
            if not isinstance(outcome, BaseException)
            for record in outcome
        ]
        if not found:
            raise _failure(outcomes)
        return found

    async def _ask(self, host: str, record_type: str) -> dns.resolver.Answer:
        return await self._resolver.resolve(
            host,
            record_type,
            raise_on_no_answer=False,
            search=self._search,
            backend=self._backend,
        )


def _nameserver(item: str | tuple[str, int]) -> dns.nameserver.Nameserver:
    address, port = (item, 53) if isinstance(item, str) else item
    if not dns.inet.is_address(address):
        raise ValueError(f"a name server is given by its address, not as {address!r}")
    return dns.nameserver.Do53Nameserver(address, port)


def _failure(outcomes: Sequence[_Outcome]) -> BaseException:
    """What to raise if neither family has an address: what may pass counts most."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    failures.sort(key=lambda failure: isinstance(failure, dns.resolver.NXDOMAIN))
    if not failures:
        return errors.make(ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST, "neither AAAA nor A records")
    failure = failures[0]
    if not isinstance(failure, dns.exception.DNSException):
        return failure
    code = ErrorCode.IO_DNS_QUERY_FAILED
    if isinstance(failure, dns.resolver.NXDOMAIN):
        code = ErrorCode.IO_DNS_INVALID_NAME
    elif isinstance(failure, (dns.exception.Timeout, dns.resolver.NoNameservers)):
        code = ErrorCode.IO_DNS_QUERY_AGAIN
    error = errors.make(code, str(failure))
    error.__cause__ = failure
    return error
