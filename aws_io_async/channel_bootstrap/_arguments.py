"""What bootstraps are given, looked at before anything is done."""

import functools
import operator
import ssl
from typing import Any, TypeVar

from .._plain_functions import check_plain_function
from ..errors import ErrorCode, make
from ..socket import SocketDomain, SocketOptions, SocketType
from ..tls_context import TlsConnectionOptions, TlsContext

Tls = TlsConnectionOptions | TlsContext | ssl.SSLContext
"""What says how to do TLS."""

T = TypeVar("T")

IP_DOMAINS = (SocketDomain.IPV4, SocketDomain.IPV6)


def check_whole_number(name: str, value: object) -> int:
    """The number that it stands for; TypeError, which names the argument, for what is none."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise TypeError(f"{name} must be an int, not {value!r}") from None


def check_optional(name: str, value: T, kind: type[Any]) -> T:
    """The value; TypeError, which names the argument, if it is neither None nor of the class."""
    if value is not None and not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"{name} must be {article} {kind.__name__}, not {value!r}")
    return value


def check_callables(**functions: object) -> None:
    """Raise TypeError for what is neither None nor a plain function, or something like it."""
    for name, function in functions.items():
        if function is not None:
            check_plain_function(name, function, "let it create a task")


def check_place(host: object, port: object, options: SocketOptions | None) -> SocketOptions:
    """The options, those by default if there are none.

    TypeError for what is of the wrong type, IO_SOCKET_INVALID_OPTIONS for sockets of datagrams.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {host!r}")
    check_whole_number("port", port)
    if options is None:
        return SocketOptions()
    if not isinstance(options, SocketOptions):
        raise TypeError(f"socket_options must be SocketOptions, not {options!r}")
    if options.type is not SocketType.STREAM:
        raise make(ErrorCode.IO_SOCKET_INVALID_OPTIONS, "a channel needs a STREAM socket")
    return options


def client_tls(
    tls: Tls | bool | None, host: str, domain: SocketDomain
) -> TlsConnectionOptions | None:
    """For a connection to `host`; True is a client with the system's trust store."""
    if tls is True:
        tls = _default_client()
    options = None if tls is False else _options(tls, server_side=False)
    if options is None or options.server_name is not None:
        return options
    if domain in IP_DOMAINS:
        return options.copy(server_name=host.partition("%")[0])
    if options.context.ssl_context.check_hostname:
        raise make(
            ErrorCode.IO_TLS_CTX_ERROR,
            f"{host!r} is no name that a certificate could have: give the server's in"
            " TlsConnectionOptions(context, server_name)",
        )
    return options


def server_tls(tls: Tls | None) -> TlsConnectionOptions | None:
    """For all connections of a listener."""
    return _options(tls, server_side=True)


def _options(tls: Tls | None, *, server_side: bool) -> TlsConnectionOptions | None:
    if tls is None:
        return None
    if isinstance(tls, ssl.SSLContext):
        tls = TlsContext.from_ssl_context(tls, server_side)
    if not isinstance(tls, TlsContext | TlsConnectionOptions):
        raise TypeError(
            f"tls must be a TlsContext, TlsConnectionOptions or an ssl.SSLContext, not {tls!r}"
        )
    options = TlsConnectionOptions(tls) if isinstance(tls, TlsContext) else tls
    if options.context.server_side is not server_side:
        given, needed = ("client", "server") if server_side else ("server", "client")
        raise make(
            ErrorCode.IO_TLS_CTX_ERROR, f"tls is a {given}'s context; a {needed}'s is needed"
        )
    return options


@functools.cache
def _default_client() -> TlsContext:
    return TlsContext.client()
