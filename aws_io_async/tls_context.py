"""TLS contexts: whom to trust, what to present, which versions, ciphers and protocols to agree on.

`TlsContextOptions` collect the wishes, `TlsContext` is what OpenSSL makes of them, once for many
connections, and `TlsConnectionOptions` say what is particular to one connection. Nothing here does
network I/O: handshakes are for the TLS engine and for who owns it.

Clients verify the server: its certificate by the system's trust store, its name by the connection's
`server_name`. Servers do not ask for certificates, unless `set_verify_peer` tells them to.

What Python's `ssl` cannot do is not offered: OCSP stapling, and Apple's keychains. It cannot use a
private key that is elsewhere either: `_openssl_keys` goes around it.

Source: aws-c-io, `tls_channel_handler.h`.
"""

import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from . import _ssl_context, _trust_store, errors
from ._tls_ciphers import (
    TlsCipherPreference,
    TlsMinimumVersion,
    configure,
    is_cipher_pref_supported,
)
from ._tls_options import AlpnList, Settings, TlsContextOptions, parse_alpn_list
from ._trust_store import default_ca_file, default_ca_path
from .errors import CommonErrorCode, ErrorCode

__all__ = [
    "AlpnList",
    "TlsCipherPreference",
    "TlsConnectionOptions",
    "TlsContext",
    "TlsContextOptions",
    "TlsMinimumVersion",
    "TlsNegotiatedProtocol",
    "default_ca_file",
    "default_ca_path",
    "is_alpn_available",
    "is_cipher_pref_supported",
    "parse_alpn_list",
]

DEFAULT_NEGOTIATION_TIMEOUT = 10.0
"""Seconds, as in aws-c-io."""

MAX_SERVER_NAME = 253
"""Bytes of a name without the dot of the root (RFC 1035, section 2.3.4)."""


def is_alpn_available() -> bool:
    """Whether OpenSSL can negotiate application protocols (RFC 7301). Any thread."""
    return ssl.HAS_ALPN


class TlsContext:
    """What OpenSSL needs to know for connections of one kind; made once, then shared.

    `server_side` says for which side, if not for the one of the options' constructor. Building
    takes some milliseconds (40 with the system's trust store), in the caller's thread.

    Raises IO_TLS_CTX_ERROR if OpenSSL does not accept what the options say (the private key belongs
    to another certificate, a certificate is damaged or too weak) or a server has no certificate,
    and IO_TLS_ERROR_DEFAULT_TRUST_STORE_NOT_FOUND if it needs the system's trust store, which is
    missing. Keys that were given as bytes are in no file with a name at any time.

    Nothing of a context can be changed, nor of its `ssl_context`. Thread: any, many at once.
    """

    __slots__ = ("__weakref__", "_settings", "_ssl_context", "_variants")

    _settings: Settings
    _ssl_context: ssl.SSLContext
    _variants: "dict[tuple[str, ...], TlsContext] | None"
    """By ALPN list; None if the context cannot be built again."""

    def __init__(self, options: TlsContextOptions, *, server_side: bool | None = None) -> None:
        if not isinstance(options, TlsContextOptions):
            raise TypeError(
                f"expected TlsContextOptions, got {options!r}; for an ssl.SSLContext there is"
                " TlsContext.from_ssl_context()"
            )
        settings = options.settings
        if server_side is not None:
            settings = replace(settings, server_side=server_side)
        self._settings = settings
        self._ssl_context = _build(settings)
        self._variants = {}
        options.freeze()

    def __repr__(self) -> str:
        side = "server" if self.server_side else "client"
        verifies = "verifies" if self.verify_peer else "does not verify"
        return f"<TlsContext of a {side} that {verifies} its peer, ALPN {self.alpn_list}>"

    @classmethod
    def client(cls, options: TlsContextOptions | None = None) -> Self:
        """A client's context, by default that of `TlsContextOptions.default_client()`."""
        return cls(options or TlsContextOptions.default_client(), server_side=False)

    @classmethod
    def server(cls, options: TlsContextOptions) -> Self:
        """A server's context."""
        return cls(options, server_side=True)

    @classmethod
    def from_ssl_context(cls, context: ssl.SSLContext, server_side: bool = False) -> Self:
        """A context around an SSLContext of your own, with all that it is set to.

        It is not copied: do not change it any more. Its ALPN list cannot be read back, so that
        `alpn_list` is empty. Raises TypeError for what is not one, and IO_TLS_CTX_ERROR for one
        that is for the other side only.
        """
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"expected an ssl.SSLContext, got {context!r}")
        other_side = ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER
        if context.protocol == other_side:
            raise errors.make(
                ErrorCode.IO_TLS_CTX_ERROR,
                f"the SSLContext is for {other_side.name} only: pass server_side={not server_side}",
            )
        self = cls.__new__(cls)
        verify_peer = context.verify_mode != ssl.CERT_NONE
        self._settings = Settings(server_side=server_side, verify_peer=verify_peer)
        self._ssl_context = context
        self._variants = None
        return self

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """What the TLS engine, and everyone else in Python, works with."""
        return self._ssl_context

    @property
    def server_side(self) -> bool:
        """Whether this is for servers."""
        return self._settings.server_side

    @property
    def verify_peer(self) -> bool:
        """Whether the peer must present a certificate that is trusted."""
        return self._settings.verifies

    @property
    def alpn_list(self) -> tuple[str, ...]:
        """The application protocols, the preferred one first."""
        return self._settings.alpn_list

    def with_alpn(self, protocols: AlpnList) -> "TlsContext":
        """The same context with other application protocols; raises as `parse_alpn_list` does.

        OpenSSL has no list per connection: this builds another SSLContext, once for each list.
        Raises IO_TLS_CTX_ERROR for a context from `from_ssl_context`, which cannot be built again.
        """
        names = parse_alpn_list(protocols)
        if names == self.alpn_list:
            return self
        if self._variants is None:
            raise errors.make(
                ErrorCode.IO_TLS_CTX_ERROR,
                "an SSLContext cannot be copied: set its own ALPN list before from_ssl_context()",
            )
        known = self._variants.get(names)
        if known is None:
            variant = TlsContext.__new__(TlsContext)
            variant._settings = replace(self._settings, alpn_list=names)
            variant._ssl_context = _build(variant._settings)
            variant._variants = {}
            known = self._variants.setdefault(names, variant)  # another thread may have been faster
        return known


@dataclass(frozen=True)
class TlsNegotiatedProtocol:
    """What a TLS handler tells the next handler by a message, if `advertise_alpn_message` is set.

    `protocol` is such as "h2", or "" if none was agreed on. It is the message's `tag`.
    """

    protocol: str


@dataclass(frozen=True)
class TlsConnectionOptions:
    """What is particular to one TLS connection. `copy` changes some of it.

    - `server_name`: the client's name for the server, sent to it (SNI, RFC 6066) and looked for in
      its certificate: a host name, or an IP address, which is looked for but not sent. A client
      that verifies needs one; a bootstrap puts in the host that it connects to. A dot at the end
      is dropped, as names in certificates have none.
    - `alpn_list`: instead of the context's.
    - `on_negotiation_result(handler, slot, error)`: the handshake is done; `error` is None, or why
      it failed.
    - `on_data_read(handler, slot, data)`: plaintext, for a TLS handler that is the channel's last.
    - `on_error(handler, slot, error)`: TLS failed after the handshake.
    - `advertise_alpn_message`: tell the next handler the negotiated protocol by a message.
    - `timeout`: seconds that the handshake may take; 0 for no limit.

    Raises TypeError for another context than a TlsContext, a name that is no str, and a callback
    that cannot be called; IO_TLS_CTX_ERROR for a name that no server can have and as
    `parse_alpn_list` does, ERROR_INVALID_ARGUMENT for a timeout that is negative or not finite. Any
    thread.
    """

    context: TlsContext
    server_name: str | None = None
    alpn_list: AlpnList | None = None
    on_negotiation_result: Callable[[Any, Any, BaseException | None], object] | None = None
    on_data_read: Callable[[Any, Any, bytes], object] | None = None
    on_error: Callable[[Any, Any, BaseException], object] | None = None
    advertise_alpn_message: bool = False
    timeout: float = DEFAULT_NEGOTIATION_TIMEOUT

    def __post_init__(self) -> None:
        if not isinstance(self.context, TlsContext):
            raise TypeError(f"context must be a TlsContext, got {self.context!r}")
        for callback in self.on_negotiation_result, self.on_data_read, self.on_error:
            if callback is not None and not callable(callback):
                raise TypeError(f"a callback must be callable, got {callback!r}")
        if self.server_name is not None:
            object.__setattr__(self, "server_name", _server_name(self.server_name))
        if self.alpn_list is not None:
            object.__setattr__(self, "alpn_list", parse_alpn_list(self.alpn_list))
        if not 0 <= self.timeout < math.inf:
            raise errors.make(
                CommonErrorCode.ERROR_INVALID_ARGUMENT,
                f"timeout must be seconds, or 0 for no limit, got {self.timeout!r}",
            )

    @property
    def effective_context(self) -> TlsContext:
        """The context with this connection's ALPN list: what to make the TLS engine of.

        Raises as `TlsContext.with_alpn` does.
        """
        return self.context if self.alpn_list is None else self.context.with_alpn(self.alpn_list)

    def copy(self, **changes: Any) -> "TlsConnectionOptions":
        """The same options but for `changes`: `options.copy(server_name="example.com")`."""
        return replace(self, **changes)


def _server_name(name: str) -> str:
    """The name as certificates have it, if the TLS engine will take it."""
    if not isinstance(name, str):
        raise TypeError(f"server_name must be a str, got {name!r}")
    bare = name.removesuffix(".")
    try:
        encoded = bare.encode("idna")
    except UnicodeError as exc:
        raise errors.make(ErrorCode.IO_TLS_CTX_ERROR, f"server name {name!r}: {exc}") from exc
    # The codec has not looked at dots that it has made of other characters.
    if not 1 <= len(encoded) <= MAX_SERVER_NAME or encoded.startswith(b".") or b"\0" in encoded:
        raise errors.make(ErrorCode.IO_TLS_CTX_ERROR, f"{name!r} cannot be the name of a server")
    return bare


def _build(settings: Settings) -> ssl.SSLContext:
    context = _ssl_context.new(server_side=settings.server_side)
    configure(context, settings.minimum_tls_version, settings.cipher_preference)
    _set_trust(context, settings)
    if settings.certificate is not None and settings.key_handler is not None:
        _ssl_context.load_cert_chain_of_handler(context, settings.certificate, settings.key_handler)
    elif settings.certificate is not None and settings.private_key is not None:
        try:
            _ssl_context.load_cert_chain(context, settings.certificate, settings.private_key)
        except OSError as exc:
            raise _refused(exc, "certificate and private key") from exc
    elif settings.server_side:
        raise errors.make(
            ErrorCode.IO_TLS_CTX_ERROR,
            "a server needs a certificate: use TlsContextOptions.default_server()",
        )
    if settings.alpn_list:
        context.set_alpn_protocols(settings.alpn_list)
    context.freeze()
    return context


def _set_trust(context: ssl.SSLContext, settings: Settings) -> None:
    if not settings.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return
    context.verify_mode = ssl.CERT_REQUIRED
    if settings.ca_certificates is None and settings.ca_path is None:
        _trust_store.load_default(context)
    try:
        if settings.ca_certificates is not None:
            context.load_verify_locations(cadata=settings.ca_certificates.decode())
        if settings.ca_path is not None:
            context.load_verify_locations(capath=settings.ca_path)
    except OSError as exc:
        raise _refused(exc, "trust store") from exc
    if settings.no_certificate_revocation:
        return
    for crl in settings.revocation_lists:
        try:
            _ssl_context.load_revocation_list(context, crl)
        except OSError as exc:
            raise _refused(exc, "certificate revocation list") from exc


def _refused(exc: OSError, what: str) -> errors.AwsIoError:
    return errors.translate(exc, what, fallback=ErrorCode.IO_TLS_CTX_ERROR)
