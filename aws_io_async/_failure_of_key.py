"""Why a private key that is elsewhere did not sign: OpenSSL, who asked for it, cannot tell."""

from contextvars import ContextVar

failure_of_key: ContextVar[BaseException | None] = ContextVar("failure_of_key", default=None)
"""What went wrong in the handshake under way; set by `_openssl_keys`."""


def note_cause(exc: Exception) -> None:
    """The handshake has failed with `exc`; if that is the key's fault, have it say so."""
    failure = failure_of_key.get()
    if failure is not None:
        failure_of_key.set(None)
        exc.__cause__ = failure
