"""`resolve`: the caching resolver at work on names, look by look."""

import argparse
import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..errors import AwsIoError
from ..event_loop.entry import run
from ..host_resolver import (
    HostAddress,
    HostResolutionConfig,
    HostResolver,
    KnownAddresses,
)
from ..socket import SocketEndpoint
from . import _dns
from ._connection import connected
from ._exit import CommandError, ExitCode
from ._screen import Cell, Part, Screen, Table, Text, Tone, emit

CONNECT_TIMEOUT = 3.0
"""Seconds, of an attempt for `--port`."""


@dataclass
class Host:
    """One name, and what has become of it so far."""

    name: str
    given: list[HostAddress] = field(default_factory=list)
    """At the last request."""
    error: str | None = None
    uses: Counter[str] = field(default_factory=Counter)
    """How often an address was given out."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why an address could not be connected to, the last time."""


def main(options: argparse.Namespace) -> int:
    """Ask as often as is wanted; returns the exit status."""
    try:
        config = HostResolutionConfig(
            _dns.lookup(options), max_ttl=options.max_ttl, resolve_frequency=options.interval
        )
    except ValueError as exc:
        raise CommandError(f"{exc}", ExitCode.USAGE) from exc
    return run(_run(options, config))


async def _run(options: argparse.Namespace, config: HostResolutionConfig) -> int:
    hosts = [Host(name) for name in dict.fromkeys(options.hosts)]
    left = 1 if options.once else options.count or math.inf
    async with HostResolver(config=config) as resolver:
        with Screen().live() as update:
            while True:
                await asyncio.gather(*(_request(resolver, host, options.port) for host in hosts))
                if options.json:
                    emit(document(resolver, hosts))
                else:
                    update(_parts(resolver, hosts))
                left -= 1
                if not left:
                    break
                await asyncio.sleep(options.interval)
    return ExitCode.UNRESOLVED if any(host.error for host in hosts) else ExitCode.OK


async def _request(resolver: HostResolver, host: Host, port: int | None) -> None:
    host.given, host.error = [], None
    try:
        host.given = await resolver.resolve_host(host.name)
    except AwsIoError as exc:
        host.error = f"{exc}"
    host.uses.update(address.address for address in host.given)
    if port is not None:
        await asyncio.gather(*(_try(resolver, host, each, port) for each in host.given))


async def _try(resolver: HostResolver, host: Host, address: HostAddress, port: int) -> None:
    try:
        sock = await connected(SocketEndpoint(address.address, port), CONNECT_TIMEOUT)
    except AwsIoError as exc:
        host.failures[address.address] = exc.code.text
        resolver.record_connection_failure(address)
    else:
        sock.close()
        host.failures.pop(address.address, None)


# Telling


def _known(resolver: HostResolver, host: Host) -> KnownAddresses:
    if host.error is not None and not host.given:
        try:
            return resolver.known_addresses(host.name)
        except AwsIoError:  # it can be no name
            return KnownAddresses()
    known = resolver.known_addresses(host.name)
    if known != KnownAddresses():
        return known
    # An address in place of a name is not cached.
    bad = tuple(each for each in host.given if each.address in host.failures)
    return KnownAddresses(tuple(each for each in host.given if each not in bad), bad)


def _rows(known: KnownAddresses) -> list[tuple[HostAddress, str]]:
    return [(each, "good") for each in known.good] + [(each, "failed") for each in known.failed]


def document(resolver: HostResolver, hosts: list[Host]) -> dict[str, Any]:
    """As docs/schemas/resolve.json has it."""
    now = time.monotonic()
    return {
        "time": time.time(),
        "hosts": [
            {
                "host": host.name,
                "error": host.error,
                "given": [address.address for address in host.given],
                "addresses": [
                    {
                        "address": address.address,
                        "type": address.record_type.value,
                        "state": state,
                        "expires_in": None if math.isinf(address.expiry) else address.expiry - now,
                        "uses": host.uses[address.address],
                        "connection_failures": address.connection_failure_count,
                        "failure": host.failures.get(address.address),
                    }
                    for address, state in _rows(_known(resolver, host))
                ],
            }
            for host in hosts
        ],
    }


def _parts(resolver: HostResolver, hosts: list[Host]) -> list[Part]:
    now = time.monotonic()
    columns = ["Host", "Address", "Type", "State", "Given", "Uses", "Expires", "Failure"]
    rows: list[list[Text]] = []
    for host in hosts:
        given = {address.address for address in host.given}
        for address, state in _rows(_known(resolver, host)):
            rows.append(
                [
                    host.name,
                    address.address,
                    address.record_type.value,
                    Cell(state, Tone.GOOD if state == "good" else Tone.BAD),
                    Cell("now", Tone.ODD) if address.address in given else "",
                    f"{host.uses[address.address]}",
                    "" if math.isinf(address.expiry) else f"{address.expiry - now:.1f} s",
                    host.failures.get(address.address, ""),
                ]
            )
        if host.error is not None:
            rows.append([host.name, "", "", Cell("none", Tone.BAD), "", "", "", host.error])
    figures = resolver.statistics()
    plural = "" if figures.lookups == 1 else "s"
    title = f"{figures.lookups} lookup{plural}, {figures.failed_lookups} failed"
    return [Table(title, columns, rows, ["Type", "Uses", "Expires", "Given"])]
