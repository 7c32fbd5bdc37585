"""What fails in this library: aws-c-io's codes, as the exceptions that Python people catch.

Each error is an `AwsIoError` and carries aws-c-io's number and name. Its class is also the builtin
for the same failure: a refused connection is a `ConnectionRefusedError`, and whoever catches that
need not know this library. Several codes may share a class; `code` tells them apart.

`make` makes the error for a code. `translate` is the border where exceptions of the operating
system, of OpenSSL and of asyncio become ours. Errors can be pickled and copied.

Source: aws-c-io's `aws/io/io.h`, `aws/io/tls_channel_handler.h`, `aws/io/retry_strategy.h`.
Any thread may call everything here.
"""

import errno
import io
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from . import _error_causes as causes
from ._error_codes import TRANSIENT
from ._error_codes import Code as Code
from ._error_codes import CommonErrorCode as CommonErrorCode
from ._error_codes import ErrorCode as ErrorCode
from ._error_codes import RetryErrorType as RetryErrorType
from ._error_codes import error_name as error_name
from ._error_codes import error_str as error_str
from ._error_codes import is_retryable as is_retryable

_CLASSES: dict[int, type["AwsIoError"]] = {}

# What an OSError made from a code has as its errno: the first of the table, so read it backwards.
_ERRNO: dict[Code, int] = {code: number for number, code in reversed([*causes.BY_EAI.items()])}
_ERRNO |= {code: number for number, code in reversed([*causes.BY_ERRNO.items()])}
_ERRNO[ErrorCode.IO_BROKEN_PIPE] = errno.EPIPE
_ERRNO[ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT] = errno.ETIMEDOUT
_ERRNO[ErrorCode.DEPRECATED_AWS_IO_INVALID_FILE_HANDLE] = errno.EBADF


class AwsIoError(Exception):
    """An error of this library: `code` says which, `detail` what in particular.

    The detail names the address, the option or the verify code. Made by `make`, which knows the
    class for each code; this class itself is for the codes that need none of their own.
    """

    code: Code
    detail: str

    def __init_subclass__(cls, codes: Iterable[Code] = (), **kwargs: Any) -> None:
        """Register a class for its codes."""
        super().__init_subclass__(**kwargs)
        _CLASSES.update(dict.fromkeys(codes, cls))

    def __init__(self, code: Code, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        text = f"{code.text}: {detail}" if detail else code.text
        if isinstance(self, OSError):
            super().__init__(_ERRNO.get(code), text)
        else:
            super().__init__(text)

    def __str__(self) -> str:
        return f"{self.args[-1]} ({self.code.full_name})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.full_name}, {self.detail!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**self.__dict__, "args": self.args}
        if isinstance(self, OSError):
            state["errno"] = self.errno
        return type(self), (self.code, self.detail), state

    @property
    def name(self) -> str:
        """The code's name in aws-c-io: `AWS_IO_SOCKET_CLOSED`."""
        return self.code.full_name


# Channels and event loops


class ChannelError(
    AwsIoError,
    codes=(
        ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT,
        ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE,
    ),
):
    """A channel cannot go on with a message."""


class ReadWindowExceededError(ChannelError, codes=[ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW]):
    """A handler sent more to the right than the next slot's read window allows."""


class AlpnError(
    ChannelError,
    codes=(
        ErrorCode.IO_MISSING_ALPN_MESSAGE,
        ErrorCode.IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE,
    ),
):
    """The negotiated protocol did not lead to a handler."""


class EventLoopError(
    AwsIoError,
    RuntimeError,
    codes=(
        ErrorCode.IO_EVENT_LOOP_ALREADY_ASSIGNED,
        ErrorCode.ERROR_IO_ALREADY_SUBSCRIBED,
        ErrorCode.ERROR_IO_NOT_SUBSCRIBED,
        ErrorCode.ERROR_IO_PINNED_EVENT_LOOP_MISMATCH,
        ErrorCode.IO_SOCKET_MISSING_EVENT_LOOP,
    ),
):
    """An event loop was used in a way it cannot be."""


class EventLoopShutdownError(EventLoopError, codes=[ErrorCode.IO_EVENT_LOOP_SHUTDOWN]):
    """The event loop is gone."""


class ThreadOnlyError(EventLoopError, codes=[ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY]):
    """Called from another thread than the event loop's. Nothing has happened."""


class OperationCancelledError(AwsIoError, codes=[ErrorCode.ERROR_IO_OPERATION_CANCELLED]):
    """Cancelled by its owner: not an `asyncio.CancelledError`, which is for who awaits."""


# Sockets and pipes


class ReadWouldBlockError(AwsIoError, BlockingIOError, codes=[ErrorCode.IO_READ_WOULD_BLOCK]):
    """There is nothing to read, or no room to write, for now."""


class PipeBrokenError(AwsIoError, BrokenPipeError, codes=[ErrorCode.IO_BROKEN_PIPE]):
    """The other end of a pipe, or this one, is closed."""


class InvalidOptionsError(AwsIoError, ValueError, codes=[ErrorCode.IO_SOCKET_INVALID_OPTIONS]):
    """Options contradict one another or the platform. Nothing has been made yet."""


class SocketError(
    AwsIoError,
    OSError,
    codes=(
        ErrorCode.IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY,
        ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST,
        ErrorCode.IO_SOCKET_NETWORK_DOWN,
        ErrorCode.IO_SOCKET_NOT_CONNECTED,
        ErrorCode.IO_SOCKET_ADDRESS_IN_USE,
    ),
):
    """A socket's operation failed; `errno` is the system's, where it gave one."""


class SocketConnectionRefusedError(
    SocketError, ConnectionRefusedError, codes=[ErrorCode.IO_SOCKET_CONNECTION_REFUSED]
):
    """Nobody listens at the address."""


class SocketTimeoutError(SocketError, TimeoutError, codes=[ErrorCode.IO_SOCKET_TIMEOUT]):
    """The peer, or the way to it, did not answer in time."""


class SocketClosedError(
    SocketError, ConnectionResetError, BrokenPipeError, codes=[ErrorCode.IO_SOCKET_CLOSED]
):
    """The connection is gone: reset, as readers see it, or broken, as writers do."""


class SocketConnectAbortedError(
    SocketError, ConnectionAbortedError, codes=[ErrorCode.IO_SOCKET_CONNECT_ABORTED]
):
    """A connection ended before it was established."""


class SocketInvalidAddressError(
    SocketError, ValueError, codes=[ErrorCode.IO_SOCKET_INVALID_ADDRESS]
):
    """The address is malformed, or not one of this machine's."""


class SocketIllegalOperationError(
    SocketError,
    RuntimeError,
    codes=(
        ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE,
        ErrorCode.IO_SOCKET_INVALID_OPERATION_FOR_TYPE,
    ),
):
    """The socket is in no state, or of no type, to do that."""


class DnsError(
    AwsIoError,
    socket.gaierror,
    codes=(
        ErrorCode.IO_DNS_QUERY_FAILED,
        ErrorCode.IO_DNS_INVALID_NAME,
        ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST,
        ErrorCode.IO_DNS_HOST_REMOVED_FROM_CACHE,
        ErrorCode.IO_DNS_QUERY_AGAIN,
    ),
):
    """A host name could not be resolved; `errno` is an `EAI_...` number, where there is one."""


# TLS


class TlsError(
    AwsIoError,
    ssl.SSLError,
    codes=(
        ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE,
        ErrorCode.IO_TLS_ERROR_NOT_NEGOTIATED,
        ErrorCode.IO_TLS_ERROR_WRITE_FAILURE,
        ErrorCode.IO_TLS_ERROR_READ_FAILURE,
        ErrorCode.IO_TLS_INTERNAL_ERROR,
    ),
):
    """TLS failed. What OpenSSL said about it is in the attributes, and in the text."""

    library: str = ""
    reason: str = ""
    """OpenSSL's name for the failure, such as WRONG_VERSION_NUMBER; empty if it gave none."""
    verify_code: int = 0
    """OpenSSL's verdict on the peer's certificate (X509_V_...); 0 if that was not the problem."""
    verify_message: str = ""


class TlsContextError(
    TlsError,
    ValueError,
    codes=(
        ErrorCode.IO_TLS_CTX_ERROR,
        ErrorCode.IO_TLS_VERSION_UNSUPPORTED,
        ErrorCode.IO_TLS_CIPHER_PREF_UNSUPPORTED,
        ErrorCode.IO_TLS_DIGEST_ALGORITHM_UNSUPPORTED,
        ErrorCode.IO_TLS_SIGNATURE_ALGORITHM_UNSUPPORTED,
        ErrorCode.IO_TLS_ERROR_DEFAULT_TRUST_STORE_NOT_FOUND,
    ),
):
    """No TLS context can be made of these options."""


class TlsCertificateError(
    TlsError,
    ssl.SSLCertVerificationError,
    codes=(
        ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE,
        ErrorCode.IO_TLS_NO_ROOT_CERTIFICATE_FOUND,
        ErrorCode.IO_TLS_CERTIFICATE_EXPIRED,
        ErrorCode.IO_TLS_CERTIFICATE_NOT_YET_VALID,
        ErrorCode.IO_TLS_BAD_CERTIFICATE,
        ErrorCode.IO_TLS_PEER_CERTIFICATE_REVOKED,
        ErrorCode.IO_TLS_INVALID_CERTIFICATE_CHAIN,
        ErrorCode.IO_TLS_HOST_NAME_MISMATCH,
    ),
):
    """The peer's certificate is not accepted."""


class TlsAlertError(
    TlsError,
    codes=(
        ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED,
        ErrorCode.IO_TLS_ALERT_NOT_GRACEFUL,
        ErrorCode.IO_TLS_PEER_CERTIFICATE_EXPIRED,
        ErrorCode.IO_TLS_BAD_PEER_CERTIFICATE,
        ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN,
    ),
):
    """The peer gave up, and said why: often that it does not accept our certificate."""


class TlsClosedError(TlsError, ssl.SSLZeroReturnError, codes=[ErrorCode.IO_TLS_CLOSED_GRACEFUL]):
    """The peer has ended the TLS connection in order."""


class TlsAbortedError(TlsError, ssl.SSLEOFError, codes=[ErrorCode.IO_TLS_CLOSED_ABORT]):
    """The network ended before the TLS connection did: data may be missing."""


class NegotiationTimeoutError(TlsError, TimeoutError, codes=[ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT]):
    """The TLS handshake was not finished in time."""


# Files, streams and libraries


class FileValidationError(AwsIoError, ValueError, codes=[ErrorCode.IO_FILE_VALIDATION_FAILURE]):
    """A file does not hold what it should."""


class PemMalformedError(AwsIoError, ValueError, codes=[ErrorCode.ERROR_PEM_MALFORMED]):
    """What was given as PEM is not."""


class InvalidFileHandleError(
    AwsIoError,
    OSError,
    codes=(
        ErrorCode.DEPRECATED_AWS_IO_INVALID_FILE_HANDLE,
        CommonErrorCode.ERROR_INVALID_FILE_HANDLE,
    ),
):
    """The file descriptor is not open, or cannot do this."""


class StreamError(
    AwsIoError,
    OSError,
    codes=(
        ErrorCode.IO_STREAM_READ_FAILED,
        ErrorCode.IO_STREAM_SEEK_FAILED,
        ErrorCode.IO_STREAM_GET_LENGTH_FAILED,
    ),
):
    """A stream's source failed."""


class StreamSeekPositionError(
    StreamError, ValueError, codes=[ErrorCode.IO_STREAM_INVALID_SEEK_POSITION]
):
    """A position before the stream's beginning or after its end."""


class StreamUnsupportedError(
    StreamError,
    io.UnsupportedOperation,
    codes=(
        ErrorCode.IO_STREAM_SEEK_UNSUPPORTED,
        ErrorCode.IO_STREAM_GET_LENGTH_UNSUPPORTED,
    ),
):
    """A stream's source has no such operation."""


class SharedLibraryLoadError(AwsIoError, OSError, codes=[ErrorCode.IO_SHARED_LIBRARY_LOAD_FAILURE]):
    """A shared library could not be loaded."""


class SharedLibrarySymbolError(
    AwsIoError, LookupError, codes=[ErrorCode.IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE]
):
    """A shared library has no such symbol."""


class Pkcs11Error(
    AwsIoError, codes=[code for code in ErrorCode if code.name.startswith("ERROR_PKCS11_")]
):
    """A PKCS#11 token, key or library failed."""


# Retries


class RetryError(AwsIoError):
    """A retry strategy says that an operation should not be tried again."""


class MaxRetriesExceededError(RetryError, codes=[ErrorCode.IO_MAX_RETRIES_EXCEEDED]):
    """This operation has been tried often enough."""


class RetryPermissionDeniedError(RetryError, codes=[ErrorCode.IO_RETRY_PERMISSION_DENIED]):
    """Too many operations have been tried again of late."""


# The system's, where aws-c-io has no code of its own


class InvalidArgumentError(
    AwsIoError, OSError, ValueError, codes=[CommonErrorCode.ERROR_INVALID_ARGUMENT]
):
    """The system, or this library, does not accept an argument."""


class NoPermissionError(AwsIoError, PermissionError, codes=[CommonErrorCode.ERROR_NO_PERMISSION]):
    """The system does not allow it."""


class InvalidPathError(
    AwsIoError, FileNotFoundError, codes=[CommonErrorCode.ERROR_FILE_INVALID_PATH]
):
    """No file, or no Unix socket, is at the path."""


class ResourceError(
    AwsIoError,
    OSError,
    codes=(
        CommonErrorCode.ERROR_MAX_FDS_EXCEEDED,
        CommonErrorCode.ERROR_OOM,
        CommonErrorCode.ERROR_NO_SPACE,
    ),
):
    """The system has run out of descriptors, memory or space."""


class SystemCallError(AwsIoError, OSError, codes=[CommonErrorCode.ERROR_SYS_CALL_FAILURE]):
    """Any other error of the system's: `errno` says which."""


class InvalidStateError(AwsIoError, RuntimeError, codes=[CommonErrorCode.ERROR_INVALID_STATE]):
    """The object cannot do that now."""


class UnsupportedError(
    AwsIoError,
    NotImplementedError,
    codes=(
        CommonErrorCode.ERROR_UNSUPPORTED_OPERATION,
        CommonErrorCode.ERROR_UNIMPLEMENTED,
        CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED,
    ),
):
    """Not here, or not on this platform."""


# Making errors, and asking about them


def class_of(code: Code) -> type[AwsIoError]:
    """The class of the errors with this code."""
    return _CLASSES.get(code, AwsIoError)


def make(code: Code, detail: str = "") -> AwsIoError:
    """The error for a code, of its class: `raise make(ErrorCode.IO_SOCKET_CLOSED, "10.0.0.1:80")`.

    Where the class is an OSError, `errno` is the usual number for the code, or None.
    """
    return class_of(code)(code, detail)


def translate(exc: BaseException, detail: str = "", *, fallback: Code | None = None) -> AwsIoError:
    """Python's, the system's or OpenSSL's exception as one of ours, with `exc` as its cause.

    An AwsIoError comes back as it is. `detail` says what was being done, with the address or the
    file; what `exc` has to add is put after it. `fallback` is the code for what only a general one
    would be left for: ERROR_SYS_CALL_FAILURE (any OSError), ERROR_INVALID_ARGUMENT (EINVAL),
    IO_DNS_QUERY_FAILED (any error of getaddrinfo), IO_TLS_ERROR_NEGOTIATION_FAILURE (any
    ssl.SSLError: say IO_TLS_ERROR_READ_FAILURE once the handshake is over), and ERROR_UNKNOWN.

    EPIPE and ECONNRESET are IO_SOCKET_CLOSED: who owns a pipe makes an IO_BROKEN_PIPE himself.
    CancelledError is ERROR_IO_OPERATION_CANCELLED; a coroutine should not swallow its own.
    """
    if isinstance(exc, AwsIoError):
        return exc
    details = filter(None, (detail, causes.words_of(exc)))
    error = make(causes.code_of(exc, fallback), ": ".join(details))
    if isinstance(error, TlsError) and isinstance(exc, ssl.SSLError):
        error.library = getattr(exc, "library", None) or ""
        error.reason = causes.reason_of(exc)
        error.verify_code = causes.verify_code_of(exc)
        error.verify_message = causes.verify_message_of(exc)
    if isinstance(error, OSError) and isinstance(exc, OSError) and exc.errno is not None:
        error.errno = exc.errno
        error.args = (exc.errno, *error.args[1:])
    error.__cause__ = exc
    return error


def is_tls_error(code: int) -> bool:
    """Whether TLS is what failed: negotiation, certificates, the context, or reading and writing.

    As in aws-c-io, a trust store that is not there does not count.
    """
    if code == ErrorCode.IO_TLS_ERROR_DEFAULT_TRUST_STORE_NOT_FOUND:
        return False
    return issubclass(_CLASSES.get(code, AwsIoError), TlsError)


def retry_error_type(failure: BaseException | int) -> RetryErrorType:
    """How a retry strategy should count an exception or a code.

    TRANSIENT for connections that failed or ended, as sockets, names, TLS and streams report them;
    CLIENT_ERROR for the rest. The other two are for the protocols above, which alone know them.
    """
    if isinstance(failure, BaseException) and causes.says_that_a_stream_ended(failure):
        failure = failure.__cause__ or ErrorCode.IO_SOCKET_CLOSED
    if isinstance(failure, AwsIoError):
        code: int = failure.code
    elif isinstance(failure, BaseException):
        code = causes.code_of(failure)
    else:
        code = failure
    return RetryErrorType.TRANSIENT if code in TRANSIENT else RetryErrorType.CLIENT_ERROR
