"""What a token signs and what it answers, in the forms that TLS and X.509 want. No I/O.

Sources: RFC 8017, section 9.2 (DigestInfo); RFC 3279, section 2.2.3 (Ecdsa-Sig-Value).
"""

from .. import errors
from ..errors import ErrorCode
from ..tls_key_operations import TlsHashAlgorithm as HashAlgorithm
from ..tls_key_operations import TlsSignatureAlgorithm as SignatureAlgorithm

__all__ = ["HashAlgorithm", "SignatureAlgorithm", "der", "digest_info", "ecdsa_signature"]


_OBJECT_IDENTIFIERS = {
    HashAlgorithm.SHA1: bytes.fromhex("2b0e03021a"),
    HashAlgorithm.SHA224: bytes.fromhex("608648016503040204"),
    HashAlgorithm.SHA256: bytes.fromhex("608648016503040201"),
    HashAlgorithm.SHA384: bytes.fromhex("608648016503040202"),
    HashAlgorithm.SHA512: bytes.fromhex("608648016503040203"),
}

_INTEGER, _OCTET_STRING, _NULL, _OBJECT_IDENTIFIER, _SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30


def digest_info(digest: bytes, hash_algorithm: HashAlgorithm) -> bytes:
    """A digest with the name of what made it: what PKCS #1 1.5 pads and signs."""
    algorithm = der(_OBJECT_IDENTIFIER, _OBJECT_IDENTIFIERS[hash_algorithm]) + der(_NULL, b"")
    return der(_SEQUENCE, der(_SEQUENCE, algorithm) + der(_OCTET_STRING, digest))


def ecdsa_signature(raw: bytes) -> bytes:
    """The two numbers that a token answers, one behind the other, as a sequence in DER.

    Raises `AwsIoError` ERROR_PKCS11_ENCODING_ERROR if these are not two numbers of one length.
    """
    half, odd = divmod(len(raw), 2)
    if not half or odd:
        detail = f"an ECDSA signature of {len(raw)} bytes is not two numbers"
        raise errors.make(ErrorCode.ERROR_PKCS11_ENCODING_ERROR, detail)
    return der(_SEQUENCE, unsigned_integer(raw[:half]) + unsigned_integer(raw[half:]))


def unsigned_integer(number: bytes) -> bytes:
    """A big-endian number as an INTEGER, as short as it can be, and never negative."""
    stripped = number.lstrip(b"\0")
    if not stripped or stripped[0] & 0x80:
        stripped = b"\0" + stripped
    return der(_INTEGER, stripped)


def der(tag: int, content: bytes) -> bytes:
    """A value in DER."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
