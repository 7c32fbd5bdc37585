"""`echo`: a server that sends back what comes."""

import argparse
import asyncio
import contextlib
import logging
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from .. import log
from ..channel_bootstrap import SocketListener
from ..channel_stream import ChannelStream, serve
from ..errors import AwsIoError
from ..event_loop.entry import run
from ..event_loop.group import EventLoopGroup
from ..socket import SocketEndpoint
from ..tls_context import TlsContext, TlsContextOptions
from . import _parser
from ._connect import alpn_list
from ._exit import CommandError, ExitCode
from ._screen import emit

LOCALHOST = ("127.0.0.1", "0.0.0.0", "::")
"""The addresses at which it answers."""


def main(options: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit status."""
    with contextlib.ExitStack() as cleanup:
        context, authority = _context(options, cleanup)
        group = cleanup.enter_context(EventLoopGroup(options.loops)) if options.loops else None
        events = Events(options.json)
        try:
            return run(_run(options, context, authority, group, events))
        finally:
            events.stopped()


class Events:
    """Tells what happens, a line or a document each. Thread: any."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()
        self._connections = 0
        self._bytes = 0
        self._begun = False

    def opened(self, peer: str, tls: dict[str, Any] | None) -> int:
        """A connection; returns its number."""
        with self._lock:
            self._connections += 1
            number = self._connections
        self.tell("opened", connection=number, peer=peer, tls=tls)
        return number

    def closed(self, number: int, bytes: int, seconds: float, error: str | None) -> None:
        """The end of a connection."""
        with self._lock:
            self._bytes += bytes
        self.tell("closed", connection=number, bytes=bytes, seconds=seconds, error=error)

    def stopped(self) -> None:
        """The end of it all, if it has begun."""
        if self._begun:
            self.tell("stopped", connections=self._connections, bytes=self._bytes)

    def tell(self, event: str, **details: Any) -> None:
        """One event."""
        self._begun = True
        if self._as_json:
            emit({"event": event, "time": time.time(), **details})
        else:
            print(_line(event, details), flush=True)


def _line(event: str, details: dict[str, Any]) -> str:
    match event:
        case "listening":
            secured = ", with TLS" if details["tls"] else ""
            lines = [f"Listening on {details['address']} port {details['port']}{secured}"]
            if details["ca"] is not None:
                host = "localhost" if details["address"] in LOCALHOST else details["address"]
                command = f"connect {host} {details['port']} --ca {details['ca']}"
                lines.append(f"Try: {_parser.program()} {command}")
            return "\n".join(lines)
        case "opened":
            tls = details["tls"]
            secured = f", {tls['version']} {tls['cipher']}" if tls else ""
            protocol = f" {tls['alpn']}" if tls and tls["alpn"] else ""
            return f"{details['connection']} from {details['peer']}{secured}{protocol}"
        case "closed":
            failure = f": {details['error']}" if details["error"] else ""
            moved = f"{details['bytes']} bytes in {details['seconds']:.3f} s"
            return f"{details['connection']} closed, {moved}{failure}"
        case "failed":
            return f"No connection: {details['error']}"
        case _:
            return f"Stopped after {details['connections']} connections, {details['bytes']} bytes"


async def _run(
    options: argparse.Namespace,
    context: TlsContext | None,
    authority: Path | None,
    group: EventLoopGroup | None,
    events: Events,
) -> int:
    terminated, first_ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)

    async def echo(stream: ChannelStream) -> None:
        await _echo(stream, events)
        loop.call_soon_threadsafe(first_ended.set)

    async with _listening(options, context, group, echo) as listener:
        end = listener.endpoint
        ca = None if authority is None else f"{authority}"
        with _reported_failures(events):
            events.tell(
                "listening", address=end.address, port=end.port, tls=context is not None, ca=ca
            )
            ends = [asyncio.ensure_future(terminated.wait())]
            if options.once:
                ends.append(asyncio.ensure_future(first_ended.wait()))
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in ends:
                    each.cancel()
    return ExitCode.TERMINATED if terminated.is_set() else ExitCode.OK


@contextlib.asynccontextmanager
async def _listening(
    options: argparse.Namespace, context: TlsContext | None, group: Any, echo: Any
) -> AsyncIterator[SocketListener]:
    server = serve(echo, options.host, options.port, tls=context, event_loop_group=group)
    try:
        listener = await server.__aenter__()
    except AwsIoError as exc:
        raise CommandError(f"cannot listen: {exc}", ExitCode.FAILED) from exc
    try:
        yield listener
    finally:
        await server.__aexit__(None, None, None)


async def _echo(stream: ChannelStream, events: Events) -> None:
    started, moved, error = time.perf_counter(), 0, None
    number = events.opened(_peer_of(stream), _tls_of(stream))
    try:
        async for data in stream:
            await stream.send(data)
            moved += len(data)
    except anyio.BrokenResourceError as exc:
        error = f"{exc.__cause__}"
    finally:
        events.closed(number, moved, time.perf_counter() - started, error)


def _peer_of(stream: ChannelStream) -> str:
    address: Any = stream.extra(SocketAttribute.remote_address, None)
    return "?" if address is None else f"{SocketEndpoint(*address)}"


def _tls_of(stream: ChannelStream) -> dict[str, Any] | None:
    version = stream.extra(TLSAttribute.tls_version, None)
    if version is None:
        return None
    cipher, _, _ = stream.extra(TLSAttribute.cipher)
    alpn = stream.extra(TLSAttribute.alpn_protocol)
    return {"version": version, "cipher": cipher, "alpn": alpn}


@contextlib.contextmanager
def _reported_failures(events: Events) -> Iterator[None]:
    """Tell of connections that came to nothing: the bootstrap has them in its log."""

    class Failures(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "no channel for" in record.msg and isinstance(record.args, tuple):
                events.tell("failed", error=f"{record.args[-1]}")

    logger, failures = log.logger(log.LogSubject.CHANNEL_BOOTSTRAP), Failures()
    level_before = logger.level
    logger.addHandler(failures)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level_before)
        logger.removeHandler(failures)


# TLS


def _context(
    options: argparse.Namespace, cleanup: contextlib.ExitStack
) -> tuple[TlsContext | None, Path | None]:
    """The context, and the file that clients may trust it by, if it was made here."""
    with_tls = (options.tls, options.cert, options.key, options.ca_out, options.alpn)
    if not any(with_tls) and options.client_ca is None:
        return None, None
    if options.key is not None and options.cert is None:
        raise CommandError("--key needs --cert", ExitCode.USAGE)
    if options.ca_out is not None and options.cert is not None:
        raise CommandError("--ca-out is for certificates made on the spot", ExitCode.USAGE)
    authority = None
    try:
        if options.cert is not None:
            key = options.key or options.cert
            settings = TlsContextOptions.default_server_from_path(options.cert, key)
        else:
            settings, authority = _made_on_the_spot(options, cleanup)
        if options.alpn is not None:
            settings.set_alpn_list(alpn_list(options.alpn))
        if options.client_ca is not None:
            settings.override_default_trust_store_from_path(ca_file=options.client_ca)
            settings.set_verify_peer(True)
        return TlsContext(settings), authority
    except (OSError, ValueError, AwsIoError) as exc:
        raise CommandError(f"TLS: {exc}", ExitCode.USAGE) from exc


def _made_on_the_spot(
    options: argparse.Namespace, cleanup: contextlib.ExitStack
) -> tuple[TlsContextOptions, Path]:
    try:
        import trustme
    except ImportError as exc:
        message = 'certificates are made by trustme: pip install "aws-io-async[cli]", or use --cert'
        raise CommandError(message, ExitCode.USAGE) from exc
    authority = trustme.CA()
    issued = authority.issue_cert(*dict.fromkeys(["localhost", "127.0.0.1", "::1", options.host]))
    path = options.ca_out
    if path is None:
        folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="aws-io-async-"))
        path = Path(folder, "ca.pem")
    path.write_bytes(authority.cert_pem.bytes())
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    return TlsContextOptions.default_server(chain, issued.private_key_pem.bytes()), path
