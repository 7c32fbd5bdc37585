"""The library's errors: their codes, their texts, and the builtins that they are."""

import ast
import asyncio
import copy
import errno
import io
import pickle
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from aws_io_async import errors
from aws_io_async._error_codes import NOT_RAISED
from aws_io_async.errors import AwsIoError, Code, CommonErrorCode, ErrorCode, RetryErrorType
from aws_io_async.pkcs11._return_values import CODES

ALL: list[Code] = [*ErrorCode, *CommonErrorCode]


PACKAGE = Path(errors.__file__).parent


def codes_in(path: Path) -> set[str]:
    """The members of ErrorCode that a module names in its code."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name | ast.Attribute)
        and ast.unparse(node.value).endswith("ErrorCode")
    }


def broken(cause: BaseException | None) -> anyio.BrokenResourceError:
    """What a stream raises whose connection broke."""
    error = anyio.BrokenResourceError()
    error.__cause__ = cause
    return error


class TestCodes:
    def test_io_library_error_order(self) -> None:
        assert int(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT) == 1024
        assert int(ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT) == 1067
        assert int(ErrorCode.IO_TLS_HOST_NAME_MISMATCH) == 1194

    def test_io_library_init(self) -> None:
        """As in C, each number from the first to the last has a name and a text."""
        assert [int(code) for code in ErrorCode] == list(range(1024, 1196))
        for code in ALL:
            assert code.full_name
            assert code.text
            assert not code.text.endswith(".")
        assert len({code.text for code in ErrorCode}) == len(ErrorCode)

    def test_a_code_says_its_name_in_c(self) -> None:
        assert str(ErrorCode.IO_SOCKET_CLOSED) == "AWS_IO_SOCKET_CLOSED"
        assert errors.error_name(1051) == "AWS_IO_SOCKET_CLOSED"
        assert errors.error_name(1064) == "DEPRECATED_AWS_IO_INVALID_FILE_HANDLE"
        assert errors.error_name(CommonErrorCode.ERROR_OOM) == "AWS_ERROR_OOM"
        assert errors.error_name(34) == "AWS_ERROR_INVALID_ARGUMENT"

    def test_a_code_says_what_it_means(self) -> None:
        assert errors.error_str(1047) == "connection refused"
        assert errors.error_str(ErrorCode.ERROR_PKCS11_CKR_PIN_LOCKED).endswith("CKR_PIN_LOCKED")

    @pytest.mark.parametrize("number", [-1, 0, 33, 1023, 1196])
    def test_an_unknown_code_is_refused(self, number: int) -> None:
        with pytest.raises(ValueError, match=str(number)):
            errors.error_name(number)
        with pytest.raises(ValueError, match=str(number)):
            errors.error_str(number)


class TestMake:
    @pytest.mark.parametrize("code", ALL, ids=str)
    def test_every_code_makes_an_error_of_its_class(self, code: Code) -> None:
        error = errors.make(code, "what in particular")
        assert type(error) is errors.class_of(code)
        assert error.code is code
        assert error.name == code.full_name
        assert error.detail == "what in particular"
        assert str(error) == f"{code.text}: what in particular ({code.full_name})"

    def test_without_detail(self) -> None:
        error = errors.make(ErrorCode.IO_SOCKET_CLOSED)
        assert error.detail == ""
        assert str(error) == "the socket is closed (AWS_IO_SOCKET_CLOSED)"

    def test_the_repr_names_class_code_and_detail(self) -> None:
        error = errors.make(ErrorCode.IO_SOCKET_TIMEOUT, "10.0.0.1:80")
        assert repr(error) == "SocketTimeoutError(AWS_IO_SOCKET_TIMEOUT, '10.0.0.1:80')"

    @pytest.mark.parametrize(
        ("code", "builtins"),
        [
            (ErrorCode.IO_SOCKET_CONNECTION_REFUSED, [ConnectionRefusedError]),
            (ErrorCode.IO_SOCKET_TIMEOUT, [TimeoutError, OSError]),
            (ErrorCode.IO_SOCKET_CLOSED, [ConnectionResetError, BrokenPipeError]),
            (ErrorCode.IO_SOCKET_CONNECT_ABORTED, [ConnectionAbortedError]),
            (ErrorCode.IO_SOCKET_ADDRESS_IN_USE, [OSError]),
            (ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST, [OSError]),
            (ErrorCode.IO_SOCKET_INVALID_ADDRESS, [OSError, ValueError]),
            (ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE, [OSError, RuntimeError]),
            (ErrorCode.IO_SOCKET_INVALID_OPTIONS, [ValueError]),
            (ErrorCode.IO_READ_WOULD_BLOCK, [BlockingIOError]),
            (ErrorCode.IO_BROKEN_PIPE, [BrokenPipeError]),
            (ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST, [socket.gaierror]),
            (ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE, [ssl.SSLError]),
            (ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT, [ssl.SSLError, TimeoutError]),
            (ErrorCode.IO_TLS_HOST_NAME_MISMATCH, [ssl.SSLCertVerificationError]),
            (ErrorCode.IO_TLS_CTX_ERROR, [ssl.SSLError, ValueError]),
            (ErrorCode.IO_TLS_CLOSED_GRACEFUL, [ssl.SSLZeroReturnError]),
            (ErrorCode.IO_TLS_CLOSED_ABORT, [ssl.SSLEOFError]),
            (ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY, [RuntimeError]),
            (ErrorCode.IO_EVENT_LOOP_SHUTDOWN, [RuntimeError]),
            (ErrorCode.ERROR_PEM_MALFORMED, [ValueError]),
            (ErrorCode.IO_STREAM_SEEK_UNSUPPORTED, [io.UnsupportedOperation]),
            (ErrorCode.IO_STREAM_INVALID_SEEK_POSITION, [OSError, ValueError]),
            (ErrorCode.IO_SHARED_LIBRARY_LOAD_FAILURE, [OSError]),
            (ErrorCode.IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE, [LookupError]),
            (CommonErrorCode.ERROR_NO_PERMISSION, [PermissionError]),
            (CommonErrorCode.ERROR_FILE_INVALID_PATH, [FileNotFoundError]),
            (CommonErrorCode.ERROR_INVALID_ARGUMENT, [OSError, ValueError]),
            (CommonErrorCode.ERROR_UNIMPLEMENTED, [NotImplementedError]),
        ],
        ids=str,
    )
    def test_it_is_caught_as_the_builtin(self, code: Code, builtins: list[type[Exception]]) -> None:
        for builtin in [*builtins, AwsIoError]:
            with pytest.raises(builtin):
                raise errors.make(code)

    def test_what_is_no_failure_of_the_system_is_no_oserror(self) -> None:
        assert not isinstance(errors.make(ErrorCode.ERROR_IO_OPERATION_CANCELLED), OSError)
        assert not isinstance(errors.make(ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY), OSError)
        assert not isinstance(errors.make(ErrorCode.IO_MAX_RETRIES_EXCEEDED), OSError)

    @pytest.mark.parametrize(
        ("code", "number"),
        [
            (ErrorCode.IO_SOCKET_CLOSED, errno.ECONNRESET),
            (ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST, errno.EHOSTUNREACH),
            (ErrorCode.IO_BROKEN_PIPE, errno.EPIPE),
            (ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT, errno.ETIMEDOUT),
            (ErrorCode.IO_DNS_QUERY_AGAIN, socket.EAI_AGAIN),
            (CommonErrorCode.ERROR_NO_PERMISSION, errno.EACCES),
            (ErrorCode.IO_STREAM_READ_FAILED, None),
        ],
    )
    def test_an_oserror_has_the_errno_of_its_code(self, code: Code, number: int | None) -> None:
        error = errors.make(code, "here")
        assert isinstance(error, OSError)
        assert error.errno == number
        assert error.args == (number, f"{code.text}: here")

    @pytest.mark.parametrize("code", ALL, ids=str)
    def test_it_survives_a_pickle_and_a_copy(self, code: Code) -> None:
        error = errors.make(code, "here")
        for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(other) is type(error)
            assert str(other) == str(error)
            assert other.args == error.args
            assert other.code is error.code

    def test_a_pickle_keeps_what_the_system_said(self) -> None:
        error = errors.translate(BrokenPipeError(errno.EPIPE, "gone"), "10.0.0.1:80")
        error.add_note("while answering")
        other = pickle.loads(pickle.dumps(error))
        assert other.errno == errno.EPIPE
        assert str(other) == str(error)
        assert other.__notes__ == ["while answering"]

    def test_a_subclass_of_a_user_takes_no_code_away(self) -> None:
        class Own(errors.SocketClosedError):
            pass

        assert errors.class_of(ErrorCode.IO_SOCKET_CLOSED) is errors.SocketClosedError
        assert Own(ErrorCode.IO_SOCKET_CLOSED).errno == errno.ECONNRESET


class TestUse:
    def test_each_code_is_raised_by_somebody_or_says_why_not(self) -> None:
        used: set[str] = set()
        for path in PACKAGE.rglob("*.py"):
            if path.name not in ("errors.py", "_error_codes.py"):  # where they are only described
                used |= codes_in(path)
        unused = {code for code in ErrorCode if code.name not in used}
        assert unused == set(NOT_RAISED)

    def test_whatever_a_token_may_answer_has_its_code(self) -> None:
        answers = {code for code in ErrorCode if code.name.startswith("ERROR_PKCS11_CKR_")}
        assert set(CODES.values()) == answers


class TestQuestions:
    def test_retryable_codes_are_those_of_aws_c_io(self) -> None:
        assert {code for code in ALL if errors.is_retryable(code)} == {
            ErrorCode.IO_SOCKET_CLOSED,
            ErrorCode.IO_SOCKET_CONNECT_ABORTED,
            ErrorCode.IO_SOCKET_CONNECTION_REFUSED,
            ErrorCode.IO_SOCKET_NETWORK_DOWN,
            ErrorCode.IO_DNS_QUERY_AGAIN,
            ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST,
            ErrorCode.IO_SOCKET_TIMEOUT,
            ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT,
        }
        assert errors.is_retryable(1051)

    def test_tls_errors_are_those_of_aws_c_io(self) -> None:
        found = {int(code) for code in ALL if errors.is_tls_error(code)}
        assert found == {*range(1029, 1036), 1067, 1068, 1071, 1072, 1178, *range(1181, 1195)}
        assert not errors.is_tls_error(1)

    @pytest.mark.parametrize(
        ("failure", "expected"),
        [
            (ErrorCode.IO_SOCKET_TIMEOUT, RetryErrorType.TRANSIENT),
            (1067, RetryErrorType.TRANSIENT),
            (errors.make(ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST), RetryErrorType.TRANSIENT),
            (ConnectionResetError(errno.ECONNRESET, "gone"), RetryErrorType.TRANSIENT),
            (TimeoutError(), RetryErrorType.TRANSIENT),
            (anyio.EndOfStream(), RetryErrorType.TRANSIENT),
            (anyio.IncompleteRead(), RetryErrorType.TRANSIENT),
            (asyncio.IncompleteReadError(b"", 1), RetryErrorType.TRANSIENT),
            (broken(None), RetryErrorType.TRANSIENT),
            (broken(ConnectionResetError()), RetryErrorType.TRANSIENT),
            (broken(ValueError("of a handler")), RetryErrorType.CLIENT_ERROR),
            (anyio.ClosedResourceError(), RetryErrorType.CLIENT_ERROR),
            (ErrorCode.IO_TLS_HOST_NAME_MISMATCH, RetryErrorType.CLIENT_ERROR),
            (errors.make(ErrorCode.ERROR_IO_OPERATION_CANCELLED), RetryErrorType.CLIENT_ERROR),
            (ValueError("?"), RetryErrorType.CLIENT_ERROR),
        ],
        ids=repr,
    )
    def test_retry_error_type(self, failure: BaseException | int, expected: RetryErrorType) -> None:
        assert errors.retry_error_type(failure) is expected


def test_io_library_init_cleanup_init_cleanup() -> None:
    """Nothing is to be initialized: an interpreter, and another in the same process, import it."""
    program = (
        "import sys\n"
        "import aws_io_async.errors as first\n"
        "for name in [name for name in sys.modules if name.startswith('aws_io_async')]:\n"
        "    del sys.modules[name]\n"
        "import aws_io_async.errors as second\n"
        "assert first is not second\n"
        "for errors in first, second:\n"
        "    print(errors.make(errors.ErrorCode(1051)))\n"
        "assert 'asyncio' not in sys.modules, 'asyncio was imported'\n"
        "assert 'logging' not in sys.modules, 'logging was imported'\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout == "the socket is closed (AWS_IO_SOCKET_CLOSED)\n" * 2
