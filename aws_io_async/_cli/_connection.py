"""A client's connection, step by step, with notes of how each step went.

The steps are those of `ClientBootstrap`, which tells how they ended but not how they went: the
resolver's addresses, tried as RFC 8305 has it, and the channel's set-up with TLS. If the peer's
certificate is refused, a second connection without verification has a look at it, and sends
nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anyio.streams.tls import TLSAttribute

from ..channel import Channel
from ..channel_bootstrap._client import ATTEMPT_DELAY
from ..channel_bootstrap._setup import ChannelSetup, NewChannel
from ..channel_stream import ChannelStream
from ..errors import AwsIoError, ErrorCode, TlsError, make, translate
from ..event_loop._happy_eyeballs import first_to_succeed
from ..host_resolver import (
    AddressRecordType,
    HostAddress,
    HostResolutionConfig,
    HostResolver,
)
from ..socket import Socket, SocketDomain, SocketEndpoint, SocketOptions
from ..tls_context import TlsConnectionOptions
from ._certificates import Certificate, chain_of
from ._exit import ExitCode

MakeTls = Callable[[bool], TlsConnectionOptions]
"""Makes the options for TLS that verifies the peer's certificate, or that does not."""


@dataclass(frozen=True)
class Target:
    """Where to connect to, and how."""

    host: str
    port: int
    timeout: float
    lookup: Callable[[str], Any] | None = None
    family: AddressRecordType | None = None
    make_tls: MakeTls | None = None
    verify: bool = True


@dataclass
class Attempt:
    """One address. Times are in seconds; `started` counts from the end of the lookup."""

    address: str
    started: float
    seconds: float = 0.0
    outcome: str = "under way"
    """In the end "connected", "failed", or "given up" because another was faster."""
    error: str | None = None


@dataclass
class TlsReport:
    """What TLS has agreed on; of a peer that was refused, its certificates alone."""

    server_name: str | None = None
    seconds: float | None = None
    version: str | None = None
    cipher: str | None = None
    bits: int | None = None
    alpn: str | None = None
    verified: bool = False
    chain: list[Certificate] = field(default_factory=list)


class StepError(Exception):
    """A step failed: which one, and why."""

    def __init__(self, stage: str, error: AwsIoError, code: ExitCode) -> None:
        super().__init__(f"{error}")
        self.stage = stage
        self.error = error
        self.code = code


@dataclass
class Report:
    """How a connection came about, as far as it has."""

    host: str
    port: int
    lookup_seconds: float | None = None
    addresses: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    local: SocketEndpoint | None = None
    remote: SocketEndpoint | None = None
    tls: TlsReport | None = None
    failure: StepError | None = None


class Connection:
    """Opens one connection; `report` says how it goes. Thread: the running loop's."""

    def __init__(self, target: Target, note: Callable[[str, str], object]) -> None:
        self.report = Report(target.host, target.port)
        self._target = target
        self._note = note
        self._tries_began = 0.0

    async def open(self) -> ChannelStream:
        """The stream, with TLS if the target has it. Raises StepError."""
        try:
            sock = await self._connect(await self._look_up())
            assert sock.remote_endpoint is not None
            self.report.local, self.report.remote = sock.local_endpoint, sock.remote_endpoint
            return await self._set_up(sock, sock.remote_endpoint)
        except StepError as failure:
            self.report.failure = failure
            raise

    async def _look_up(self) -> list[HostAddress]:
        target, started = self._target, time.perf_counter()
        try:
            async with HostResolver(config=HostResolutionConfig(target.lookup)) as resolver:
                found = await resolver.resolve_candidates(target.host)
            found = [each for each in found if target.family in (None, each.record_type)]
            if not found:
                assert target.family is not None
                detail = f"{target.host} has no {target.family.value} record"
                raise make(ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST, detail)
        except AwsIoError as exc:
            raise StepError("lookup", exc, ExitCode.UNRESOLVED) from exc
        finally:
            self.report.lookup_seconds = time.perf_counter() - started
        self.report.addresses = [each.address for each in found]
        self._note("lookup", f"{target.host}: {', '.join(self.report.addresses)}")
        return found

    async def _connect(self, addresses: list[HostAddress]) -> Socket:
        self._tries_began = time.perf_counter()
        attempts: list[Callable[[], Awaitable[Socket]]] = [
            partial(self._try, address) for address in addresses
        ]
        outcome = await first_to_succeed(attempts, ATTEMPT_DELAY, Socket.close)
        sock, errors = outcome
        if sock is None:
            error = translate(errors[-1])
            raise StepError("connect", error, ExitCode.UNREACHABLE) from error
        return sock

    async def _try(self, address: HostAddress) -> Socket:
        started = time.perf_counter()
        attempt = Attempt(address.address, started - self._tries_began)
        self.report.attempts.append(attempt)
        endpoint = SocketEndpoint(address.address, self._target.port)
        self._note("attempt", f"{endpoint}")
        try:
            sock = await connected(endpoint, self._target.timeout)
            attempt.outcome = "connected"
            return sock
        except AwsIoError as exc:
            attempt.outcome, attempt.error = "failed", exc.code.text
            raise
        except asyncio.CancelledError:
            attempt.outcome = "given up"
            raise
        finally:
            attempt.seconds = time.perf_counter() - started
            self._note("attempt", f"{endpoint}: {attempt.outcome}")

    async def _set_up(self, sock: Socket, endpoint: SocketEndpoint) -> ChannelStream:
        make_tls = self._target.make_tls
        if make_tls is None:
            return await _new_stream(sock, None, f"{endpoint}")
        options = make_tls(self._target.verify)
        self.report.tls = report = TlsReport(options.server_name)
        started = time.perf_counter()
        try:
            stream = await _new_stream(sock, options, f"{endpoint}")
        except AwsIoError as exc:
            if isinstance(exc, TlsError) and exc.verify_code:
                self._note("tls", "refused; a second connection is to look at the certificates")
                report.chain = await self._look_at_chain(endpoint, make_tls(False))
            raise StepError("tls", exc, ExitCode.TLS_FAILED) from exc
        report.seconds = time.perf_counter() - started
        report.version = stream.extra(TLSAttribute.tls_version)
        report.cipher, _, report.bits = stream.extra(TLSAttribute.cipher)
        report.alpn = stream.extra(TLSAttribute.alpn_protocol)
        report.verified = options.context.verify_peer
        report.chain = chain_of(_ssl_object(stream))
        return stream

    async def _look_at_chain(
        self, endpoint: SocketEndpoint, options: TlsConnectionOptions
    ) -> list[Certificate]:
        try:
            sock = await connected(endpoint, self._target.timeout)
            stream = await _new_stream(sock, options, f"{endpoint}")
        except AwsIoError as exc:
            self._note("tls", f"{exc}")
            return []
        async with stream:
            return chain_of(_ssl_object(stream))


async def connected(endpoint: SocketEndpoint, timeout: float) -> Socket:
    domain = SocketDomain.IPV6 if ":" in endpoint.address else SocketDomain.IPV4
    sock = Socket(SocketOptions(domain=domain, connect_timeout=timeout))
    try:
        await sock.connect(endpoint)
    except BaseException:
        sock.close()  # an address that cannot be is refused before there is an attempt to fail
        raise
    return sock


async def _new_stream(sock: Socket, tls: TlsConnectionOptions | None, peer: str) -> ChannelStream:
    streams: list[ChannelStream] = []

    def attach(channel: Channel | None, error: BaseException | None) -> None:
        if channel is not None:
            streams.append(ChannelStream.attach(channel))

    setup = ChannelSetup(tls=tls, on_setup=attach, enable_read_back_pressure=True, half_close=True)
    await NewChannel(setup, server_side=False).set_up(sock.detach(), peer)
    return streams[0]


def _ssl_object(stream: ChannelStream) -> Any:
    return stream.extra(TLSAttribute.ssl_object)
