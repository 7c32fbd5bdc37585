"""Private keys for OpenSSL of which it knows the public half only, and asks Python for signatures.

Theory of operation. Python's `ssl` takes private keys from files. OpenSSL itself takes any key, and
signs with a key's *method*: a table of C functions that can be replaced. So the public key of the
certificate is copied, given a method whose function for signing is Python's, by `ctypes`, and put
into the context in the private key's place. There is one method for RSA and one for EC in a
process; its function finds out by the key's address whose it is.

RSA keys sign by PKCS #1 version 1.5, as everywhere in aws-c-io. TLS 1.3 has done away with that for
handshakes, so a context with such a key stays with TLS 1.2, as aws-c-io's do.

The one thing that OpenSSL and `ctypes` cannot say is where the SSL_CTX of an `ssl.SSLContext` is.
CPython has it right behind the object's header, in every version so far; with a Python that has not
been tried, this module refuses to guess.

Sources: OpenSSL's manual pages RSA_meth_set_sign, EC_KEY_METHOD_get_sign, SSL_CTX_use_certificate;
CPython's Modules/_ssl.c (PySSLContext).
"""

import ctypes
import ssl
import sys
import weakref
from collections.abc import Callable
from typing import Any

from . import errors
from ._failure_of_key import failure_of_key
from .errors import CommonErrorCode, ErrorCode
from .shared_library import SharedLibrary
from .tls_key_operations import (
    CustomKeyOpHandler,
    TlsHashAlgorithm,
    TlsKeyOperation,
    TlsSignatureAlgorithm,
    perform,
)

NEWEST_PYTHON = (3, 15)
"""The newest with which this has been tried."""

_HASHES = {
    64: TlsHashAlgorithm.SHA1,
    672: TlsHashAlgorithm.SHA256,
    673: TlsHashAlgorithm.SHA384,
    674: TlsHashAlgorithm.SHA512,
    675: TlsHashAlgorithm.SHA224,
}
"""By OpenSSL's number (`openssl/obj_mac.h`, NID_...)."""

_RSA_SIGNATURES = b"RSA+SHA256:RSA+SHA384:RSA+SHA512"
_SET_CLIENT_SIGNATURES = 102  # SSL_CTRL_SET_CLIENT_SIGALGS_LIST

_P, _I, _BYTES = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_SIZE = ctypes.POINTER(ctypes.c_uint)

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ERR_clear_error": (None, ()),
    "CRYPTO_free": (None, (_P, _BYTES, _I)),
    "SSL_CTX_use_certificate_chain_file": (_I, (_P, _BYTES)),
    "SSL_CTX_get0_certificate": (_P, (_P,)),
    "SSL_CTX_use_PrivateKey": (_I, (_P, _P)),
    "SSL_CTX_ctrl": (ctypes.c_long, (_P, _I, ctypes.c_long, _BYTES)),
    "X509_get_X509_PUBKEY": (_P, (_P,)),
    "i2d_X509_PUBKEY": (_I, (_P, ctypes.POINTER(_P))),
    "d2i_RSA_PUBKEY": (_P, (_P, ctypes.POINTER(_P), ctypes.c_long)),
    "d2i_EC_PUBKEY": (_P, (_P, ctypes.POINTER(_P), ctypes.c_long)),
    "EVP_PKEY_new": (_P, ()),
    "EVP_PKEY_free": (None, (_P,)),
    "EVP_PKEY_set1_RSA": (_I, (_P, _P)),
    "EVP_PKEY_set1_EC_KEY": (_I, (_P, _P)),
    "RSA_free": (None, (_P,)),
    "RSA_size": (_I, (_P,)),
    "RSA_set_method": (_I, (_P, _P)),
    "RSA_get_default_method": (_P, ()),
    "RSA_meth_dup": (_P, (_P,)),
    "RSA_meth_set_sign": (_I, (_P, _P)),
    "EC_KEY_free": (None, (_P,)),
    "EC_KEY_get_default_method": (_P, ()),
    "EC_KEY_set_method": (_I, (_P, _P)),
    "EC_KEY_METHOD_new": (_P, (_P,)),
    "EC_KEY_METHOD_set_sign": (None, (_P, _P, _P, _P)),
    "ECDSA_size": (_I, (_P,)),
}

_RSA_SIGN = ctypes.CFUNCTYPE(_I, _I, _P, ctypes.c_uint, _P, _SIZE, _P)
_EC_SIGN = ctypes.CFUNCTYPE(_I, _I, _P, _I, _P, _SIZE, _P, _P, _P)

_handlers: dict[int, CustomKeyOpHandler] = {}
"""By the address of a key."""

_made: "dict[type[_OpenSsl], _OpenSsl]" = {}
"""The one for all, for good: keys have pointers to its functions."""


def use_key(context: ssl.SSLContext, chain_path: str, handler: CustomKeyOpHandler) -> None:
    """Have `context` present the certificates of a PEM file, and `handler` sign for the first.

    Raises ERROR_PLATFORM_NOT_SUPPORTED where Python's OpenSSL cannot be reached, IO_TLS_CTX_ERROR,
    with OpenSSL's reason, if it does not take the certificate or that has neither an RSA nor an EC
    key, and IO_TLS_VERSION_UNSUPPORTED for an RSA key if the context insists on TLS 1.3.
    Thread: any; nobody else may use the context yet.
    """
    openssl = _openssl()
    address = _address_of_ssl_ctx(context)
    if openssl.SSL_CTX_use_certificate_chain_file(address, chain_path.encode()) != 1:
        raise _refused(f"certificate: {openssl.reason()}")
    key, is_rsa = openssl.copy_public_key(openssl.SSL_CTX_get0_certificate(address))
    if is_rsa and context.minimum_version is ssl.TLSVersion.TLSv1_3:
        openssl.RSA_free(key)
        detail = "RSA keys that OpenSSL does not have sign up to TLS 1.2: use an EC key"
        raise errors.make(ErrorCode.IO_TLS_VERSION_UNSUPPORTED, detail)
    private = openssl.EVP_PKEY_new()
    try:
        set_key = openssl.EVP_PKEY_set1_RSA if is_rsa else openssl.EVP_PKEY_set1_EC_KEY
        if set_key(private, key) != 1 or openssl.SSL_CTX_use_PrivateKey(address, private) != 1:
            raise _refused(f"key of the certificate: {openssl.reason()}")
        _handlers[key] = handler
        weakref.finalize(context, _handlers.pop, key, None)  # before the SSL_CTX and its key go
    finally:
        openssl.EVP_PKEY_free(private)
        (openssl.RSA_free if is_rsa else openssl.EC_KEY_free)(key)  # the context has it, too
    if is_rsa:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        openssl.SSL_CTX_ctrl(address, _SET_CLIENT_SIGNATURES, 0, _RSA_SIGNATURES)


def reason(openssl: SharedLibrary) -> str:
    """What is at the top of OpenSSL's queue of errors, which is then empty."""
    last = openssl.find_function("ERR_peek_last_error", ctypes.c_ulong)
    text = openssl.find_function(
        "ERR_error_string_n", None, [ctypes.c_ulong, ctypes.c_char_p, ctypes.c_size_t]
    )
    clear = openssl.find_function("ERR_clear_error")
    buffer = ctypes.create_string_buffer(256)
    text(last(), buffer, len(buffer))
    clear()
    return buffer.value.decode(errors="replace")


def _address_of_ssl_ctx(context: ssl.SSLContext) -> int:
    if sys.implementation.name != "cpython" or sys.version_info[:2] > NEWEST_PYTHON:
        raise errors.make(
            CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED,
            f"custom key operations have not been tried with {sys.implementation.name} "
            f"{sys.version_info.major}.{sys.version_info.minor}",
        )
    address = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    assert address is not None
    return address


def _refused(detail: str) -> errors.AwsIoError:
    return errors.make(ErrorCode.IO_TLS_CTX_ERROR, detail)


class _OpenSsl:
    """The functions of the OpenSSL that `ssl` uses, and the two methods."""

    def __init__(self) -> None:
        import _ssl

        # By the handle of Python's own module, so that it is this OpenSSL and not another one.
        self._library = SharedLibrary(getattr(_ssl, "__file__", None))
        for name, (restype, argtypes) in _SIGNATURES.items():
            setattr(self, name, self._library.find_function(name, restype, argtypes))
        self._callbacks = _RSA_SIGN(_sign_rsa), _EC_SIGN(_sign_ec)
        rsa_sign, ec_sign = (ctypes.cast(callback, _P) for callback in self._callbacks)
        self._rsa_method = self.RSA_meth_dup(self.RSA_get_default_method())
        self.RSA_meth_set_sign(self._rsa_method, rsa_sign)
        self._ec_method = self.EC_KEY_METHOD_new(self.EC_KEY_get_default_method())
        self.EC_KEY_METHOD_set_sign(self._ec_method, ec_sign, None, None)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(name)  # for type checkers: the functions are attributes

    def reason(self) -> str:
        return reason(self._library)

    def copy_public_key(self, certificate: int) -> tuple[int, bool]:
        """The key of a certificate, with our method, and whether it is RSA. The caller frees it."""
        start, end = _P(), _P()
        size = self.i2d_X509_PUBKEY(self.X509_get_X509_PUBKEY(certificate), ctypes.byref(start))
        try:
            end.value = start.value
            key = self.d2i_RSA_PUBKEY(None, ctypes.byref(end), size)
            if key is not None:
                self.RSA_set_method(key, self._rsa_method)
                return key, True
            end.value = start.value
            key = self.d2i_EC_PUBKEY(None, ctypes.byref(end), size)
        finally:
            self.CRYPTO_free(start, None, 0)
            self.ERR_clear_error()
        if key is None:
            raise _refused("the certificate's key is neither RSA nor EC")
        self.EC_KEY_set_method(key, self._ec_method)
        return key, False


def _openssl() -> _OpenSsl:
    if not _made:
        try:
            made = _OpenSsl()
        except errors.SharedLibrarySymbolError as exc:
            raise errors.make(
                CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED,
                f"custom key operations need functions of {ssl.OPENSSL_VERSION} that Python's has "
                f"not, or hides: {exc.detail}",
            ) from exc
        _made.setdefault(_OpenSsl, made)  # another thread may have been faster
    return _made[_OpenSsl]


def _sign_rsa(
    hash_number: int, digest: int, digest_size: int, room: int, size: Any, key: int
) -> int:
    limit = _openssl().RSA_size(key)
    return _sign(
        key, hash_number, digest, digest_size, TlsSignatureAlgorithm.RSA, room, size, limit
    )


def _sign_ec(
    hash_number: int,
    digest: int,
    digest_size: int,
    room: int,
    size: Any,
    _kinv: int,
    _r: int,
    key: int,
) -> int:
    limit = _openssl().ECDSA_size(key)
    return _sign(
        key, hash_number, digest, digest_size, TlsSignatureAlgorithm.ECDSA, room, size, limit
    )


def _sign(
    key: int,
    hash_number: int,
    digest: int,
    digest_size: int,
    algorithm: TlsSignatureAlgorithm,
    room: int,
    size: Any,
    limit: int,
) -> int:
    """Called by OpenSSL, to which nothing may be raised: 1 is success, 0 is failure."""
    try:
        hash_algorithm = _HASHES.get(hash_number)
        if hash_algorithm is None:
            code = ErrorCode.IO_TLS_DIGEST_ALGORITHM_UNSUPPORTED
            raise errors.make(code, f"OpenSSL's number {hash_number}")
        operation = TlsKeyOperation(
            ctypes.string_at(digest, digest_size), hash_algorithm, algorithm
        )
        signature = perform(_handlers[key], operation)
        if not 0 < len(signature) <= limit:
            detail = f"a signature of {len(signature)} bytes, where {limit} are the most"
            raise errors.make(ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE, detail)
        ctypes.memmove(room, signature, len(signature))
        size[0] = len(signature)
    except BaseException as exc:
        failure_of_key.set(exc)
        return 0
    return 1
