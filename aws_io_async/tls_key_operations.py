"""Private keys that are somewhere else: TLS asks, by an operation, and somebody signs.

A `CustomKeyOpHandler` has the key, or knows who has: a token, a key management service, another
process. `TlsContextOptions.client_mtls_with_custom_key_operations` takes one in place of a private
key; `aws_io_async.pkcs11` has one for PKCS#11 tokens.

Source: aws-c-io, `tls_channel_handler.h`. There, an operation may be completed at any later time;
OpenSSL waits for it inside of the handshake.
"""

import enum
from abc import ABC, abstractmethod

from . import errors
from .errors import CommonErrorCode, ErrorCode


class TlsKeyOperationType(enum.Enum):
    """What is to be done with the key."""

    SIGN = "SIGN"
    DECRYPT = "DECRYPT"
    """Not asked for by clients, nor since TLS 1.3 by anyone."""

    def __str__(self) -> str:
        return self.value


class TlsHashAlgorithm(enum.Enum):
    """What made a digest that is to be signed; the value is its name in `hashlib`."""

    SHA1 = "sha1"
    SHA224 = "sha224"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    def __str__(self) -> str:
        return self.name

    @property
    def digest_size(self) -> int:
        """In bytes."""
        import hashlib

        return hashlib.new(self.value, usedforsecurity=False).digest_size


class TlsSignatureAlgorithm(enum.Enum):
    """How a digest is signed. RSA is PKCS #1 version 1.5."""

    RSA = "RSA"
    ECDSA = "ECDSA"

    def __str__(self) -> str:
        return self.value


class TlsKeyOperation:
    """Something to be done with the private key. It is completed once.

    - `type`: what.
    - `input`: the digest to sign.
    - `digest_algorithm`: what made it.
    - `signature_algorithm`: how to sign it.

    Thread: any.
    """

    __slots__ = ("digest_algorithm", "error", "input", "output", "signature_algorithm", "type")

    def __init__(
        self,
        input: bytes,
        digest_algorithm: TlsHashAlgorithm,
        signature_algorithm: TlsSignatureAlgorithm,
        type: TlsKeyOperationType = TlsKeyOperationType.SIGN,
    ) -> None:
        self.type = type
        self.input = input
        self.digest_algorithm = digest_algorithm
        self.signature_algorithm = signature_algorithm
        self.output: bytes | None = None
        """What it was completed with."""
        self.error: BaseException | None = None
        """What it failed with."""

    def __repr__(self) -> str:
        what = f"{self.type} {self.digest_algorithm} {self.signature_algorithm}"
        return f"<{type(self).__name__} {what}{' complete' if self.is_complete else ''}>"

    @property
    def is_complete(self) -> bool:
        """Whether one of the methods below was called."""
        return self.output is not None or self.error is not None

    def complete(self, output: bytes) -> None:
        """It is done: the signature, for RSA as long as the key, for ECDSA the sequence in DER.

        Raises ERROR_INVALID_STATE, a RuntimeError, if it is complete.
        """
        self._require_incomplete()
        self.output = bytes(output)

    def complete_with_error(self, error: BaseException) -> None:
        """It cannot be done: the handshake fails, with this as the cause of its error.

        Raises ERROR_INVALID_STATE, a RuntimeError, if it is complete, and TypeError for what is no
        exception.
        """
        if not isinstance(error, BaseException):
            raise TypeError(f"an exception is needed, not {error!r}")
        self._require_incomplete()
        self.error = error

    def _require_incomplete(self) -> None:
        if self.is_complete:
            raise errors.make(CommonErrorCode.ERROR_INVALID_STATE, f"{self!r}: it is done once")


class CustomKeyOpHandler(ABC):
    """Who has the private key. May serve any number of contexts and connections."""

    @abstractmethod
    def perform_operation(self, operation: TlsKeyOperation) -> None:
        """Do what `operation` asks for, and complete it before this returns.

        OpenSSL has no way to wait for it in another manner, so the loop of the connection stands
        still meanwhile: ask what is slow on a thread of your own, or connect on a loop of its own.
        What this raises fails the handshake, as `complete_with_error` does.

        Thread: that of the handshake; several at once if there are several loops.
        """


def perform(handler: CustomKeyOpHandler, operation: TlsKeyOperation) -> bytes:
    """What `handler` makes of `operation`.

    Raises what it fails with, and IO_TLS_ERROR_NEGOTIATION_FAILURE if it leaves it incomplete.
    """
    handler.perform_operation(operation)
    if operation.error is not None:
        raise operation.error
    if operation.output is None:
        detail = f"{handler!r} returned without completing {operation!r}"
        raise errors.make(ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE, detail)
    return operation.output
