"""`--dns` and `--server`: names by DNS itself."""

import argparse
from collections.abc import Callable
from typing import Any

from ..errors import AwsIoError
from ._exit import CommandError, ExitCode


def lookup(options: argparse.Namespace) -> Callable[[str], Any] | None:
    """The `impl` for a `HostResolutionConfig`; None for the system's, unless options say so.

    Raises CommandError if dnspython is missing or the server is no address.
    """
    if not options.dns and options.server is None:
        return None
    try:
        from ..integrations.dns import DnsResolver
    except ImportError as exc:
        message = '--dns and --server need dnspython: pip install "aws-io-async[dns]"'
        raise CommandError(message, ExitCode.USAGE) from exc
    try:
        return DnsResolver(None if options.server is None else [_address_and_port(options.server)])
    except (ValueError, AwsIoError) as exc:
        raise CommandError(f"--server: {exc}", ExitCode.USAGE) from exc


def _address_and_port(server: str) -> tuple[str, int]:
    """Of 192.0.2.1, 192.0.2.1:5353, 2001:db8::1 or [2001:db8::1]:53. Raises ValueError."""
    address, port = server, "53"
    if server.startswith("["):
        address, _, rest = server[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif server.count(":") == 1:
        address, _, port = server.partition(":")
    if not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is no port")
    return address, int(port)
