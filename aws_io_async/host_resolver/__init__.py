"""Host names to addresses, from a cache that keeps itself fresh while it is asked.

    resolver = HostResolver.default()
    addresses = await resolver.resolve_host("example.com")     # one AAAA, one A: the next in turn
    resolver.record_connection_failure(addresses[0])           # ... and this one not for a while

Source: aws-c-io's `host_resolver.h`. Other than there, a few threads serve all hosts, and addresses
written in numbers take none. How it works is told at the heads of the modules: `_host_cache` has
the rules, without time and threads, `_resolver` what callers see, `_refresher` the lookups and what
they bring, `_threads` who runs them, `_names` what is a name.
"""

from .._host_cache import AddressRecordType, HostAddress, HostResolutionConfig, ResolvedAddress
from ._refresher import default_dns_resolve
from ._resolver import (
    HostAddressFlags,
    HostResolver,
    HostResolverStatistics,
    KnownAddresses,
)

__all__ = [
    "AddressRecordType",
    "HostAddress",
    "HostAddressFlags",
    "HostResolutionConfig",
    "HostResolver",
    "HostResolverStatistics",
    "KnownAddresses",
    "ResolvedAddress",
    "default_dns_resolve",
]
