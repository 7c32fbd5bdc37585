"""An `ssl.SSLContext` that can be frozen, and loads keys and revocation lists from memory.

OpenSSL looks a context up anew for every connection: one that is changed while connections are made
of it crashes, or lets a connection through with half of the change. So ours cannot be changed once
they are built.

OpenSSL reads keys and revocation lists from files only. What is given as bytes goes through a file
that has no name, which nobody else can open and nothing can leave behind.
"""

import contextlib
import functools
import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from . import errors
from .errors import CommonErrorCode
from .tls_key_operations import CustomKeyOpHandler

_CHANGING_METHODS = (
    "load_cert_chain",
    "load_default_certs",
    "load_dh_params",
    "load_verify_locations",
    "set_alpn_protocols",
    "set_ciphers",
    "set_default_verify_paths",
    "set_ecdh_curve",
    "set_npn_protocols",
    "set_psk_client_callback",
    "set_psk_server_callback",
    "set_servername_callback",
)


_REQUESTED_NAME = "_aws_io_async_requested_name"


class FrozenSSLContext(ssl.SSLContext):
    """An SSLContext that refuses changes once `freeze` was called, by ERROR_INVALID_STATE."""

    _frozen = False

    def freeze(self) -> None:
        """Refuse changes from now on."""
        self._frozen = True

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_if_frozen(name)
        super().__setattr__(name, value)

    def _refuse_if_frozen(self, what: str) -> None:
        if self._frozen:
            raise errors.make(
                CommonErrorCode.ERROR_INVALID_STATE,
                f"{what}: the SSLContext of a TlsContext cannot be changed; set TlsContextOptions"
                " before, or make your own SSLContext and pass it to TlsContext.from_ssl_context()",
            )


def _refused_when_frozen(name: str) -> Callable[..., Any]:
    method = getattr(ssl.SSLContext, name)

    @functools.wraps(method)
    def call(self: FrozenSSLContext, *args: Any, **kwargs: Any) -> Any:
        self._refuse_if_frozen(name)
        return method(self, *args, **kwargs)

    return call


for _name in _CHANGING_METHODS:
    if hasattr(ssl.SSLContext, _name):
        setattr(FrozenSSLContext, _name, _refused_when_frozen(_name))


def requested_name(connection: ssl.SSLObject) -> str | None:
    """The name that a client asked for (SNI), for a server's connection of a context of ours."""
    return getattr(connection, _REQUESTED_NAME, None)


def _note_requested_name(connection: Any, name: str | None, context: ssl.SSLContext) -> None:
    setattr(connection, _REQUESTED_NAME, name)


def new(*, server_side: bool) -> FrozenSSLContext:
    """A context with Python's defaults for a server or a client, not frozen yet.

    A client's refuses each certificate until it is told whom to trust. As with the contexts of
    `ssl.create_default_context`, the keys of all connections are written to the file that the
    environment variable SSLKEYLOGFILE names. Unlike those of Python 3.13, it does not insist on
    RFC 5280 to the letter (VERIFY_X509_STRICT), which private authorities often fall short of: the
    same peers are accepted by all versions of Python.

    Stricter than Python's: clients look for names among the alternative names alone (RFC 9525).
    Servers do not renegotiate, as clients still do that are asked to, and give no session tickets:
    those are all encrypted with one key, and who gets hold of that can read what TLS 1.2 has sent
    since the context was made.
    """
    context = FrozenSSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    # An intermediate certificate in the trust store is as good as a root, as it is with s2n.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if server_side:
        context.sni_callback = _note_requested_name
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.num_tickets = 0  # those of TLS 1.3
    if not sys.flags.ignore_environment and (path := os.environ.get("SSLKEYLOGFILE")):
        context.keylog_filename = path
    return context


def load_cert_chain(context: ssl.SSLContext, certificate: bytes, private_key: bytes) -> None:
    """`SSLContext.load_cert_chain` for PEM in memory, the key not encrypted.

    Raises ssl.SSLError and OSError as that does.
    """
    with _nameless_file(certificate) as certfile, _nameless_file(private_key) as keyfile:
        context.load_cert_chain(certfile, keyfile)


def load_cert_chain_of_handler(
    context: ssl.SSLContext, certificate: bytes, handler: CustomKeyOpHandler
) -> None:
    """Present a certificate whose private key `handler` has. Raises as `_openssl_keys.use_key`."""
    from . import _openssl_keys  # with `ctypes`: not for those who have their keys at hand

    with _nameless_file(certificate) as path:
        _openssl_keys.use_key(context, path, handler)


def load_revocation_list(context: ssl.SSLContext, crl: bytes) -> None:
    """Load a certificate revocation list in PEM, and have leaf certificates checked against those.

    Raises ssl.SSLError if it is malformed, OSError if the system cannot hold it.
    """
    with _nameless_file(crl) as path:
        context.load_verify_locations(path)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


@contextlib.contextmanager
def _nameless_file(data: bytes) -> Iterator[str]:
    """A path at which this process alone finds `data`, to be opened once, while the block lasts."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
