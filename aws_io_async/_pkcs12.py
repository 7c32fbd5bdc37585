"""PKCS#12 (RFC 7292): a certificate, its chain and its private key in one encrypted file.

Python's `ssl` does not read it. The package `cryptography` does; it is needed for this alone, and
imported when it is.
"""

from typing import NamedTuple

from . import errors
from .errors import ErrorCode

EXTRA = "aws-io-async[pkcs12]"
"""What to install for it."""


class Identity(NamedTuple):
    """A certificate with what proves that it is ours, in PEM."""

    certificate: bytes
    """The certificate itself, then those that issued it, as far as the file has them."""
    private_key: bytes
    """In PKCS#8, not encrypted."""

    def __repr__(self) -> str:
        return f"<Identity of {len(self.certificate)} bytes>"


def decode(data: bytes, password: str | bytes | None) -> Identity:
    """What a PKCS#12 file holds; `password` is None for one that has none.

    Raises IO_TLS_CTX_ERROR if the data is damaged, the password is wrong, or there is no
    certificate or no private key in it, and ImportError, which names the extra to install, if
    `cryptography` is missing. Any thread.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            pkcs12,
        )
    except ImportError as exc:
        raise ImportError(
            f'PKCS#12 needs cryptography: pip install "{EXTRA}"', name=exc.name
        ) from exc
    secret = password.encode() if isinstance(password, str) else password
    try:
        store = pkcs12.load_pkcs12(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise _unusable(str(exc)) from exc
    if store.key is None or store.cert is None:
        missing = "private key" if store.key is None else "certificate that belongs to its key"
        raise _unusable(f"there is no {missing} in it")
    chain = [store.cert, *store.additional_certs]
    return Identity(
        b"".join(entry.certificate.public_bytes(Encoding.PEM) for entry in chain),
        store.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _unusable(detail: str) -> errors.AwsIoError:
    return errors.make(ErrorCode.IO_TLS_CTX_ERROR, f"PKCS#12: {detail}")
