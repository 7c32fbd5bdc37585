"""TLS clients whose private key is in a token.

Source: aws-c-io, `pkcs11_tls_op_handler.c`.
"""

import threading

from ..tls_context import TlsContextOptions
from ..tls_key_operations import CustomKeyOpHandler, TlsKeyOperation
from ._library import Pkcs11Library, Pkcs11PrivateKey


class Pkcs11KeyOpHandler(CustomKeyOpHandler):
    """Has `key` sign, which blocks for as long as the token works.

    All connections share the key's session, of which tokens have few; they sign one after another.
    Thread: any.
    """

    def __init__(self, key: Pkcs11PrivateKey) -> None:
        self.key = key
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key.label!r}>"

    def perform_operation(self, operation: TlsKeyOperation) -> None:
        """Complete it with the token's signature. Raises what `Pkcs11PrivateKey.sign` does."""
        with self._lock:
            signature = self.key.sign(
                operation.input, operation.digest_algorithm, operation.signature_algorithm
            )
        operation.complete(signature)


def client_mtls_options(
    library: Pkcs11Library,
    certificate: bytes,
    *,
    pin: str | None,
    slot_id: int | None = None,
    token_label: str | None = None,
    key_label: str | None = None,
) -> TlsContextOptions:
    """Options of a client that presents `certificate`, in PEM, whose key is in a token.

    The token is found as `find_slot` does, the key as `find_private_key` does, after a login with
    `pin`; raises what they raise, and what
    `TlsContextOptions.client_mtls_with_custom_key_operations` does. The session stays open until
    the library is closed, after which handshakes fail. Any thread; blocks.
    """
    session = library.open_session(library.find_slot(slot_id=slot_id, token_label=token_label))
    try:
        session.login(pin)
        handler = Pkcs11KeyOpHandler(session.find_private_key(key_label))
        return TlsContextOptions.client_mtls_with_custom_key_operations(handler, certificate)
    except BaseException:
        session.close()
        raise
