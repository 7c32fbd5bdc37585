"""Which code of aws-c-io stands for an exception of Python's, and what the exception adds to it.

Sockets come first, as in aws-c-io's `posix/socket.c`: EPIPE is a closed socket (a pipe's owner
knows better). What has no code of aws-c-io's own gets one of aws-c-common's, as there.
"""

import errno
import os
import re
import socket
import ssl
import sys
from collections.abc import Mapping

from ._error_codes import Code, CommonErrorCode, ErrorCode

BY_ERRNO: Mapping[int, Code] = {
    errno.ECONNREFUSED: ErrorCode.IO_SOCKET_CONNECTION_REFUSED,
    errno.ECONNRESET: ErrorCode.IO_SOCKET_CLOSED,
    errno.EPIPE: ErrorCode.IO_SOCKET_CLOSED,
    errno.ESHUTDOWN: ErrorCode.IO_SOCKET_CLOSED,
    errno.ENETRESET: ErrorCode.IO_SOCKET_CLOSED,
    errno.ETIMEDOUT: ErrorCode.IO_SOCKET_TIMEOUT,
    errno.EHOSTUNREACH: ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST,
    errno.ENETUNREACH: ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST,
    errno.EHOSTDOWN: ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST,
    errno.ENETDOWN: ErrorCode.IO_SOCKET_NETWORK_DOWN,
    errno.EADDRINUSE: ErrorCode.IO_SOCKET_ADDRESS_IN_USE,
    errno.EADDRNOTAVAIL: ErrorCode.IO_SOCKET_INVALID_ADDRESS,
    errno.ECONNABORTED: ErrorCode.IO_SOCKET_CONNECT_ABORTED,
    errno.ENOTCONN: ErrorCode.IO_SOCKET_NOT_CONNECTED,
    errno.EAFNOSUPPORT: ErrorCode.IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY,
    errno.EOPNOTSUPP: ErrorCode.IO_SOCKET_INVALID_OPERATION_FOR_TYPE,
    errno.EAGAIN: ErrorCode.IO_READ_WOULD_BLOCK,
    errno.ECANCELED: ErrorCode.ERROR_IO_OPERATION_CANCELLED,
    errno.EINVAL: CommonErrorCode.ERROR_INVALID_ARGUMENT,
    errno.EACCES: CommonErrorCode.ERROR_NO_PERMISSION,
    errno.EPERM: CommonErrorCode.ERROR_NO_PERMISSION,
    errno.ENOENT: CommonErrorCode.ERROR_FILE_INVALID_PATH,
    errno.ENOTDIR: CommonErrorCode.ERROR_FILE_INVALID_PATH,
    errno.EISDIR: CommonErrorCode.ERROR_FILE_INVALID_PATH,
    errno.ENAMETOOLONG: CommonErrorCode.ERROR_FILE_INVALID_PATH,
    errno.EMFILE: CommonErrorCode.ERROR_MAX_FDS_EXCEEDED,
    errno.ENFILE: CommonErrorCode.ERROR_MAX_FDS_EXCEEDED,
    errno.ENOMEM: CommonErrorCode.ERROR_OOM,
    errno.ENOBUFS: CommonErrorCode.ERROR_OOM,
    errno.ENOSPC: CommonErrorCode.ERROR_NO_SPACE,
    errno.EBADF: CommonErrorCode.ERROR_INVALID_FILE_HANDLE,
}

_SAYS_MORE = {errno.EADDRNOTAVAIL}
"""Of an address that is valid, but not of this machine, or has no port left to connect from."""

BY_CLASS: Mapping[type[BaseException], Code] = {
    ConnectionRefusedError: ErrorCode.IO_SOCKET_CONNECTION_REFUSED,
    ConnectionAbortedError: ErrorCode.IO_SOCKET_CONNECT_ABORTED,
    ConnectionError: ErrorCode.IO_SOCKET_CLOSED,
    TimeoutError: ErrorCode.IO_SOCKET_TIMEOUT,
    BlockingIOError: ErrorCode.IO_READ_WOULD_BLOCK,
    PermissionError: CommonErrorCode.ERROR_NO_PERMISSION,
    FileNotFoundError: CommonErrorCode.ERROR_FILE_INVALID_PATH,
    MemoryError: CommonErrorCode.ERROR_OOM,
    NotImplementedError: CommonErrorCode.ERROR_UNIMPLEMENTED,
}
"""For what has no errno, such as those that asyncio raises itself; the first match counts."""

BY_EAI: Mapping[int, Code] = {
    socket.EAI_NONAME: ErrorCode.IO_DNS_INVALID_NAME,
    socket.EAI_SERVICE: ErrorCode.IO_DNS_INVALID_NAME,
    socket.EAI_AGAIN: ErrorCode.IO_DNS_QUERY_AGAIN,
    socket.EAI_FAIL: ErrorCode.IO_DNS_QUERY_FAILED,
    socket.EAI_NODATA: ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST,
    socket.EAI_ADDRFAMILY: ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST,
    socket.EAI_MEMORY: CommonErrorCode.ERROR_OOM,
    socket.EAI_FAMILY: ErrorCode.IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY,
}

BY_VERIFY_CODE: Mapping[int, ErrorCode] = {
    2: ErrorCode.IO_TLS_NO_ROOT_CERTIFICATE_FOUND,  # an issuer of the chain is missing
    9: ErrorCode.IO_TLS_CERTIFICATE_NOT_YET_VALID,
    10: ErrorCode.IO_TLS_CERTIFICATE_EXPIRED,
    18: ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,  # self-signed
    19: ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,  # self-signed, in the chain
    20: ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,  # the issuer is not in the trust store
    21: ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,  # the leaf's signature cannot be verified
    22: ErrorCode.IO_TLS_INVALID_CERTIFICATE_CHAIN,  # too long
    23: ErrorCode.IO_TLS_PEER_CERTIFICATE_REVOKED,
    24: ErrorCode.IO_TLS_INVALID_CERTIFICATE_CHAIN,  # the issuer is no CA
    25: ErrorCode.IO_TLS_INVALID_CERTIFICATE_CHAIN,  # the CA's path length is exceeded
    27: ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,  # not trusted for this purpose
    29: ErrorCode.IO_TLS_INVALID_CERTIFICATE_CHAIN,  # subject and issuer do not match
    32: ErrorCode.IO_TLS_INVALID_CERTIFICATE_CHAIN,  # the CA may not sign certificates
    62: ErrorCode.IO_TLS_HOST_NAME_MISMATCH,
    64: ErrorCode.IO_TLS_HOST_NAME_MISMATCH,  # of an IP address
}
"""OpenSSL's X509_V_ERR_* numbers (`openssl/x509_vfy.h`); the others are bad certificates."""

BY_SSL_CLASS: Mapping[type[ssl.SSLError], ErrorCode] = {
    ssl.SSLZeroReturnError: ErrorCode.IO_TLS_CLOSED_GRACEFUL,
    ssl.SSLEOFError: ErrorCode.IO_TLS_CLOSED_ABORT,
    ssl.SSLWantReadError: ErrorCode.IO_READ_WOULD_BLOCK,
    ssl.SSLWantWriteError: ErrorCode.IO_READ_WOULD_BLOCK,
}

BY_REASON: Mapping[str, ErrorCode] = {
    "SSLV3_ALERT_HANDSHAKE_FAILURE": ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE,
    "TLSV1_ALERT_PROTOCOL_VERSION": ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE,
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE,
    "TLSV1_UNRECOGNIZED_NAME": ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE,
    "SSLV3_ALERT_BAD_CERTIFICATE": ErrorCode.IO_TLS_BAD_PEER_CERTIFICATE,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": ErrorCode.IO_TLS_BAD_PEER_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ErrorCode.IO_TLS_PEER_CERTIFICATE_EXPIRED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN,
    "TLSV1_ALERT_UNKNOWN_CA": ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN,
    "INTERNAL_ERROR": ErrorCode.IO_TLS_INTERNAL_ERROR,
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": ErrorCode.IO_TLS_ERROR_READ_FAILURE,
    "PEM_LIB": ErrorCode.IO_TLS_CTX_ERROR,
    "KEY_VALUES_MISMATCH": ErrorCode.IO_TLS_CTX_ERROR,
    "NO_CERTIFICATE_OR_CRL_FOUND": ErrorCode.IO_TLS_CTX_ERROR,
    "NO_CIPHER_MATCH": ErrorCode.IO_TLS_CIPHER_PREF_UNSUPPORTED,
}
"""OpenSSL's reasons, as `ssl.SSLError.reason` has them. A reason named ALERT came from the peer:
what it says about a certificate, it says about ours."""


_OPENSSL_TEXT = re.compile(r"\[\w+\] (?P<words>.*) \(_ssl\.c:\d+\)")


def code_of(exc: BaseException, fallback: Code | None = None) -> Code:
    """The code for an exception; `fallback` where only a general one would be left.

    The general ones are ERROR_SYS_CALL_FAILURE for an OSError, ERROR_INVALID_ARGUMENT for EINVAL,
    IO_DNS_QUERY_FAILED for an error of `getaddrinfo`, IO_TLS_ERROR_NEGOTIATION_FAILURE for an
    ssl.SSLError, and ERROR_UNKNOWN for all else.
    """
    exact, general = _exact_and_general(exc)
    return exact or fallback or general


def _exact_and_general(exc: BaseException) -> tuple[Code | None, Code]:
    if _is_cancellation(exc):
        return ErrorCode.ERROR_IO_OPERATION_CANCELLED, CommonErrorCode.ERROR_UNKNOWN
    if isinstance(exc, ssl.SSLError):
        return _code_of_ssl(exc), ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
    if isinstance(exc, (socket.gaierror, socket.herror)):
        return BY_EAI.get(exc.errno or 0), ErrorCode.IO_DNS_QUERY_FAILED
    if isinstance(exc, OSError) and exc.errno == errno.EINVAL:
        return None, CommonErrorCode.ERROR_INVALID_ARGUMENT
    if isinstance(exc, OSError) and exc.errno is not None:
        return BY_ERRNO.get(exc.errno), CommonErrorCode.ERROR_SYS_CALL_FAILURE
    if isinstance(exc, OSError):
        return _code_by_class(exc), CommonErrorCode.ERROR_SYS_CALL_FAILURE
    return _code_by_class(exc), CommonErrorCode.ERROR_UNKNOWN


def _code_by_class(exc: BaseException) -> Code | None:
    return next((BY_CLASS[known] for known in BY_CLASS if isinstance(exc, known)), None)


def _code_of_ssl(exc: ssl.SSLError) -> ErrorCode | None:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return BY_VERIFY_CODE.get(verify_code_of(exc), ErrorCode.IO_TLS_BAD_CERTIFICATE)
    for known, code in BY_SSL_CLASS.items():
        if isinstance(exc, known):
            return code
    reason = reason_of(exc)
    if reason in BY_REASON:
        return BY_REASON[reason]
    if "_ALERT_" in reason:
        return ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED
    if getattr(exc, "library", None) in ("PEM", "X509", "ASN1"):  # what a context is loaded from
        return ErrorCode.IO_TLS_CTX_ERROR
    return None


def _is_cancellation(exc: BaseException) -> bool:
    """Whether this is a CancelledError of asyncio or of concurrent.futures."""
    return _is_one_of(exc, "asyncio.exceptions", "CancelledError") or _is_one_of(
        exc, "concurrent.futures", "CancelledError"
    )


def says_that_a_stream_ended(exc: BaseException) -> bool:
    """Whether this is how anyio's streams, or asyncio's, say that it broke, or ended too early.

    If it broke, the error of the connection is the cause.
    """
    return _is_one_of(
        exc, "anyio", "BrokenResourceError", "EndOfStream", "IncompleteRead"
    ) or _is_one_of(exc, "asyncio.exceptions", "IncompleteReadError")


def _is_one_of(exc: BaseException, module: str, *classes: str) -> bool:
    """Nobody has raised an exception of a module that is not imported, and to import takes long."""
    home = sys.modules.get(module)
    return home is not None and isinstance(exc, tuple(getattr(home, name) for name in classes))


def verify_code_of(exc: ssl.SSLError) -> int:
    """OpenSSL's verdict on the peer's certificate; 0 (X509_V_OK) where there is none."""
    return getattr(exc, "verify_code", 0)


def verify_message_of(exc: ssl.SSLError) -> str:
    """The same in OpenSSL's words; empty where there is none."""
    return getattr(exc, "verify_message", "")


def reason_of(exc: ssl.SSLError) -> str:
    """OpenSSL's name for what went wrong, such as WRONG_VERSION_NUMBER; empty where there is none.

    Python has names for the reasons it was built with; of others, only the text tells.
    """
    reason: str | None = getattr(exc, "reason", None)
    if reason is None and (found := _OPENSSL_TEXT.fullmatch(exc.strerror or "")):
        reason = found["words"].upper().replace(" ", "_")
    return reason or ""


def words_of(exc: BaseException) -> str:
    """What an exception says beyond its code: nothing, if that is the system's text for an errno
    that has a code of its own, which says the same."""
    if isinstance(exc, ssl.SSLError):
        if verify_code := verify_code_of(exc):
            return f"{verify_message_of(exc)} (OpenSSL verify code {verify_code})"
        return reason_of(exc) or str(exc.args[-1] if exc.args else "")
    if isinstance(exc, OSError) and exc.errno is not None:
        text = exc.strerror or ""
        if text == os.strerror(exc.errno):
            known = isinstance(BY_ERRNO.get(exc.errno), ErrorCode) and exc.errno not in _SAYS_MORE
            return "" if known else text
        return text
    return str(exc)
