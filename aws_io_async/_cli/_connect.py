"""`connect`: a connection, all about it, and then stdin and stdout."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

import anyio

from ..channel_stream import ChannelStream
from ..errors import AwsIoError
from ..event_loop.entry import run
from ..host_resolver import AddressRecordType
from ..tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions, parse_alpn_list
from . import _descriptors, _dns
from ._certificates import Certificate
from ._connection import Attempt, Connection, Report, StepError, Target, TlsReport
from ._exit import CommandError, ExitCode, fail
from ._screen import Cell, Facts, Part, Screen, Table, Text, Tone, emit
from ._trace import Trace

TONES = {"connected": Tone.GOOD, "failed": Tone.BAD, "given up": Tone.MINOR, "valid": Tone.GOOD}


def main(options: argparse.Namespace) -> int:
    """Connect, tell, and talk; returns the exit status."""
    with Trace() if options.trace else contextlib.nullcontext() as trace:
        target = _target(options, trace)
        return run(_run(target, options, (lambda *_: None) if trace is None else trace.note))


async def _run(
    target: Target, options: argparse.Namespace, note: Callable[[str, str], object]
) -> int:
    connection = Connection(target, note)
    only_tell = options.check or options.json
    try:
        stream = await connection.open()
    except StepError as failure:
        _tell(connection.report, options)
        return fail(f"{failure}", failure.code)
    try:
        _tell(connection.report, options)
        code = ExitCode.OK if only_tell else await _converse(stream, target, options)
    except BaseException:
        stream.channel.shutdown(immediately=True)
        raise
    finally:
        await stream.aclose()
    return code


# The options


def _target(options: argparse.Namespace, trace: Trace | None) -> Target:
    family = None
    if options.ipv4 or options.ipv6:
        family = AddressRecordType.A if options.ipv4 else AddressRecordType.AAAA
    make_tls = _tls_maker(options, trace) if _wants_tls(options) else None
    return Target(
        options.host,
        options.port,
        options.timeout,
        lookup=_dns.lookup(options),
        family=family,
        make_tls=make_tls,
        verify=not options.insecure,
    )


def _wants_tls(options: argparse.Namespace) -> bool:
    return any(
        getattr(options, name) not in (None, False)
        for name in ("tls", "alpn", "ca", "cert", "key", "server_name", "insecure")
    )


def _tls_maker(
    options: argparse.Namespace, trace: Trace | None
) -> Callable[[bool], TlsConnectionOptions]:
    """Raises CommandError for files and names that cannot be."""
    name = options.server_name or options.host.partition("%")[0]

    @cache
    def make(verify: bool) -> TlsConnectionOptions:
        context = TlsContext(_context_options(options, verify))
        if trace is not None:
            trace.watch_tls(context.ssl_context)
        return TlsConnectionOptions(context, name, timeout=options.timeout)

    try:
        make(not options.insecure)
    except (OSError, ValueError, AwsIoError) as exc:
        raise CommandError(f"TLS: {exc}", ExitCode.USAGE) from exc
    return make


def _context_options(options: argparse.Namespace, verify: bool) -> TlsContextOptions:
    if options.key is not None and options.cert is None:
        raise CommandError("--key needs --cert", ExitCode.USAGE)
    if options.cert is not None:
        key = options.key or options.cert
        context = TlsContextOptions.client_mtls_from_path(options.cert, key)
    else:
        context = TlsContextOptions.default_client()
    if options.ca is not None:
        kind = "ca_path" if options.ca.is_dir() else "ca_file"
        context.override_default_trust_store_from_path(**{kind: options.ca})
    if options.alpn is not None:
        context.set_alpn_list(alpn_list(options.alpn))
    context.set_verify_peer(verify)
    return context


def alpn_list(text: str) -> tuple[str, ...]:
    """The protocols of "h2,http/1.1"; raises as `parse_alpn_list` does."""
    return parse_alpn_list(text.replace(",", ";"))


# Telling


def _tell(report: Report, options: argparse.Namespace) -> None:
    if options.json:
        emit(document(report))
    else:
        Screen(sys.stdout if options.check else sys.stderr).show(*_parts(report))


def document(report: Report) -> dict[str, Any]:
    """As docs/schemas/connect.json has it."""
    tls, failure = report.tls, report.failure
    return {
        "host": report.host,
        "port": report.port,
        "lookup_seconds": report.lookup_seconds,
        "addresses": report.addresses,
        "attempts": [asdict(attempt) for attempt in report.attempts],
        "local": None if report.local is None else asdict(report.local),
        "remote": None if report.remote is None else asdict(report.remote),
        "tls": None if tls is None else asdict(tls),
        "error": None
        if failure is None
        else {
            "stage": failure.stage,
            "code": failure.error.name,
            "message": f"{failure}",
        },
    }


def _parts(report: Report) -> list[Part]:
    assert report.lookup_seconds is not None
    found = f"{len(report.addresses)} in {_ms(report.lookup_seconds)}"
    parts: list[Part] = [Facts(f"{report.host} port {report.port}", {"Addresses": found})]
    if report.attempts:
        columns = ["Address", "Started", "Took", "Outcome"]
        parts.append(Table("Attempts", columns, [_row(attempt) for attempt in report.attempts]))
    if report.remote is not None:
        ends = {"From": f"{report.local}", "To": f"{report.remote}"}
        parts.append(Facts("Connection", ends))
    if report.tls is not None:
        parts.append(_tls_facts(report.tls))
        total = len(report.tls.chain)
        parts += [
            _certificate(f"Certificate {number} of {total}", each)
            for number, each in enumerate(report.tls.chain, 1)
        ]
    return parts


def _row(attempt: Attempt) -> list[Text]:
    outcome = attempt.outcome if attempt.error is None else f"{attempt.outcome}: {attempt.error}"
    cell = Cell(outcome, TONES.get(attempt.outcome, Tone.ODD))
    return [attempt.address, f"+{_ms(attempt.started)}", _ms(attempt.seconds), cell]


def _tls_facts(tls: TlsReport) -> Facts:
    rows: dict[str, Text] = {"Server name": f"{tls.server_name}"}
    if tls.seconds is None:
        return Facts("TLS", rows | {"Handshake": Cell("failed", Tone.BAD)})
    rows |= {
        "Version": f"{tls.version}",
        "Cipher": f"{tls.cipher}, {tls.bits} bits",
        "ALPN": tls.alpn or Cell("none", Tone.MINOR),
        "Handshake": _ms(tls.seconds),
        "Verified": Cell("yes", Tone.GOOD) if tls.verified else Cell("no", Tone.BAD),
    }
    return Facts("TLS", rows)


def _certificate(title: str, certificate: Certificate) -> Facts:
    rows: dict[str, Text] = {"Subject": certificate.subject or Cell("none", Tone.MINOR)}
    if certificate.names:
        rows["Names"] = ", ".join(certificate.names)
    rows["Issuer"] = certificate.issuer
    if certificate.key:
        rows["Key"] = certificate.key
    rows["Valid from"] = certificate.not_before
    rows["Valid until"] = f"{certificate.not_after}, {_days(certificate.days_left)}"
    rows["Validity"] = Cell(certificate.validity, TONES.get(certificate.validity, Tone.BAD))
    rows["SHA-256"] = certificate.sha256
    return Facts(title, rows)


def _days(days: float) -> str:
    count = int(abs(days))
    text = "1 day" if count == 1 else f"{count} days"
    return f"in {text}" if days >= 0 else f"{text} ago"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


# Talking


async def _converse(stream: ChannelStream, target: Target, options: argparse.Namespace) -> ExitCode:
    """Until the peer ends the connection, or until the wait after stdin's end is over."""
    sending = asyncio.ensure_future(_send(stream, target, crlf=options.crlf))
    receiving = asyncio.ensure_future(_receive(stream))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and sending.exception() is None:
            await asyncio.wait({receiving}, timeout=_patience(target, options.wait))
        for task in (receiving, sending):
            if task.done():
                await task
    except anyio.BrokenResourceError as exc:
        return fail(f"the connection broke: {exc.__cause__ or exc}", ExitCode.FAILED)
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
    return ExitCode.OK


def _patience(target: Target, wait: float | None) -> float | None:
    """How long to wait for the peer's end. Over TLS, ours alone cannot be told."""
    if wait is None and target.make_tls is not None and sys.stdin is not None:
        return 0.0 if sys.stdin.isatty() else None
    return wait


async def _send(stream: ChannelStream, target: Target, *, crlf: bool) -> None:
    if sys.stdin is not None:
        fd = sys.stdin.fileno()
        while data := await _descriptors.read(fd):
            await stream.send(data.replace(b"\n", b"\r\n") if crlf else data)
    if target.make_tls is None:
        await stream.send_eof()


async def _receive(stream: ChannelStream) -> None:
    async for data in stream:
        if sys.stdout is not None:
            await _descriptors.write(sys.stdout.fileno(), data)
