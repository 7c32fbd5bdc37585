"""What `connect` and `serve` are given, looked at before anything is done."""

import functools
import operator
import ssl

from ..event_loop.group import EventLoopGroup
from ..socket import SocketOptions
from ..tls_context import TlsConnectionOptions, TlsContext

Tls = TlsConnectionOptions | TlsContext | ssl.SSLContext
"""What says how to do TLS."""


def check_window(window: int) -> None:
    """Raise ValueError or TypeError if it is no number of bytes, at least 1."""
    if operator.index(window) < 1:
        raise ValueError(f"window must be positive, not {window!r}")


def check_place(
    host: object, port: int, options: SocketOptions | None, group: EventLoopGroup | None
) -> None:
    """Raise TypeError for what is of the wrong type."""
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {host!r}")
    operator.index(port)
    if options is not None and not isinstance(options, SocketOptions):
        raise TypeError(f"socket_options must be SocketOptions, not {options!r}")
    if group is not None and not isinstance(group, EventLoopGroup):
        raise TypeError(f"event_loop_group must be an EventLoopGroup, not {group!r}")


def client_tls(tls: Tls | bool | None) -> TlsConnectionOptions | TlsContext | None:
    """As a bootstrap takes it; True is a client with the system's trust store."""
    if tls is True:
        return _default_client()
    return None if tls is False else _as_bootstraps_take_it(tls, server_side=False)


def server_tls(tls: Tls | None) -> TlsConnectionOptions | TlsContext | None:
    """As a bootstrap takes it."""
    return _as_bootstraps_take_it(tls, server_side=True)


def _as_bootstraps_take_it(
    tls: Tls | None, *, server_side: bool
) -> TlsConnectionOptions | TlsContext | None:
    if isinstance(tls, ssl.SSLContext):
        return TlsContext.from_ssl_context(tls, server_side)
    if tls is not None and not isinstance(tls, TlsContext | TlsConnectionOptions):
        raise TypeError(
            f"tls must be a TlsContext, TlsConnectionOptions or an ssl.SSLContext, not {tls!r}"
        )
    return tls


@functools.cache
def _default_client() -> TlsContext:
    return TlsContext.client()
