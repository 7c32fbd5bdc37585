"""What the system, asyncio and the resolver raise, translated into the library's errors.

Real failures where they can be had; those of a broken network are made from their errno.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import os
import resource
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from aws_io_async import errors
from aws_io_async.errors import Code, CommonErrorCode, ErrorCode


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client, accepted:
        yield client, accepted


class TestSystem:
    def test_a_refused_connection(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
        with pytest.raises(OSError) as caught:
            socket.create_connection(address)
        error = errors.translate(caught.value, "127.0.0.1:1")
        assert isinstance(error, errors.SocketConnectionRefusedError)
        assert error.code is ErrorCode.IO_SOCKET_CONNECTION_REFUSED
        assert error.errno == errno.ECONNREFUSED
        assert error.__cause__ is caught.value
        expected = "connection refused: 127.0.0.1:1 (AWS_IO_SOCKET_CONNECTION_REFUSED)"
        assert str(error) == expected

    def test_a_reset_connection_is_closed(self) -> None:
        with tcp_pair() as (client, accepted):
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            with pytest.raises(OSError) as caught:
                client.recv(1)
        error = errors.translate(caught.value)
        assert error.code is ErrorCode.IO_SOCKET_CLOSED
        assert isinstance(error, ConnectionResetError)
        assert error.errno == errno.ECONNRESET

    def test_a_write_to_a_closed_connection_is_closed_too(self) -> None:
        with tcp_pair() as (client, _):
            client.shutdown(socket.SHUT_WR)
            with pytest.raises(OSError) as caught:
                client.send(b"x")
        error = errors.translate(caught.value)
        assert error.code is ErrorCode.IO_SOCKET_CLOSED
        assert isinstance(error, BrokenPipeError)
        assert error.errno == errno.EPIPE
        assert error.args[0] == errno.EPIPE

    def test_an_address_in_use(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.socket() as other,
            pytest.raises(OSError) as caught,
        ):
            other.bind(server.getsockname())
        assert errors.translate(caught.value).code is ErrorCode.IO_SOCKET_ADDRESS_IN_USE

    def test_an_address_of_another_machine(self) -> None:
        with socket.socket() as sock, pytest.raises(OSError) as caught:
            sock.bind(("192.0.2.1", 0))
        assert errors.translate(caught.value).code is ErrorCode.IO_SOCKET_INVALID_ADDRESS

    def test_not_connected(self) -> None:
        with socket.socket() as sock, pytest.raises(OSError) as caught:
            sock.getpeername()
        assert errors.translate(caught.value).code is ErrorCode.IO_SOCKET_NOT_CONNECTED

    def test_nothing_to_read(self) -> None:
        with tcp_pair() as (client, _):
            client.setblocking(False)
            with pytest.raises(OSError) as caught:
                client.recv(1)
        error = errors.translate(caught.value)
        assert error.code is ErrorCode.IO_READ_WOULD_BLOCK
        assert isinstance(error, BlockingIOError)

    def test_a_socket_s_own_timeout(self) -> None:
        with tcp_pair() as (client, _):
            client.settimeout(0.001)
            with pytest.raises(TimeoutError) as caught:
                client.recv(1)
        assert errors.translate(caught.value).code is ErrorCode.IO_SOCKET_TIMEOUT

    def test_an_operation_that_the_type_has_not(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(OSError) as caught:
            sock.listen()
        code = errors.translate(caught.value).code
        assert code is ErrorCode.IO_SOCKET_INVALID_OPERATION_FOR_TYPE

    def test_no_unix_socket_at_a_path(self, tmp_path: Path) -> None:
        path = tmp_path / "nobody"
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError) as caught:
            sock.connect(str(path))
        error = errors.translate(caught.value, str(path))
        assert error.code is CommonErrorCode.ERROR_FILE_INVALID_PATH
        assert isinstance(error, FileNotFoundError)

    def test_a_closed_descriptor(self) -> None:
        with socket.socket() as sock:
            pass
        with pytest.raises(OSError) as caught:
            sock.getsockname()
        assert errors.translate(caught.value).code is CommonErrorCode.ERROR_INVALID_FILE_HANDLE

    def test_too_many_open_files(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(OSError) as caught:
                socket.socket()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        error = errors.translate(caught.value)
        assert error.code is CommonErrorCode.ERROR_MAX_FDS_EXCEEDED
        assert isinstance(error, OSError)
        assert error.errno == errno.EMFILE

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (errno.ETIMEDOUT, ErrorCode.IO_SOCKET_TIMEOUT),
            (errno.EHOSTUNREACH, ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST),
            (errno.ENETUNREACH, ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST),
            (errno.ENETDOWN, ErrorCode.IO_SOCKET_NETWORK_DOWN),
            (errno.ECONNABORTED, ErrorCode.IO_SOCKET_CONNECT_ABORTED),
            (errno.EAFNOSUPPORT, ErrorCode.IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY),
            (errno.EINVAL, CommonErrorCode.ERROR_INVALID_ARGUMENT),
            (errno.EACCES, CommonErrorCode.ERROR_NO_PERMISSION),
            (errno.EPERM, CommonErrorCode.ERROR_NO_PERMISSION),
            (errno.ENFILE, CommonErrorCode.ERROR_MAX_FDS_EXCEEDED),
            (errno.ENOBUFS, CommonErrorCode.ERROR_OOM),
            (errno.ENOSPC, CommonErrorCode.ERROR_NO_SPACE),
            (errno.EIO, CommonErrorCode.ERROR_SYS_CALL_FAILURE),
        ],
        ids=lambda value: errno.errorcode.get(value, "") if type(value) is int else str(value),
    )
    def test_an_errno_keeps_its_number(self, number: int, code: Code) -> None:
        cause = OSError(number, os.strerror(number))
        error = errors.translate(cause, "10.0.0.1:80")
        assert error.code is code
        assert isinstance(error, OSError)
        assert error.errno == number
        assert error.__cause__ is cause

    def test_a_general_code_leaves_the_word_to_the_system(self) -> None:
        error = errors.translate(OSError(errno.EIO, os.strerror(errno.EIO)), "reading")
        assert error.detail == f"reading: {os.strerror(errno.EIO)}"

    async def test_what_asyncio_raises_with_an_address_keeps_it(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
        with pytest.raises(OSError) as caught:
            await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, port)
        error = errors.translate(caught.value)
        assert error.code is ErrorCode.IO_SOCKET_CONNECTION_REFUSED
        assert error.__cause__ is caught.value

    @pytest.mark.parametrize(
        ("exc", "code"),
        [
            (ConnectionResetError("Connection lost"), ErrorCode.IO_SOCKET_CLOSED),
            (BrokenPipeError(), ErrorCode.IO_SOCKET_CLOSED),
            (ConnectionAbortedError("handshake"), ErrorCode.IO_SOCKET_CONNECT_ABORTED),
            (TimeoutError(), ErrorCode.IO_SOCKET_TIMEOUT),
            (OSError("several exceptions"), CommonErrorCode.ERROR_SYS_CALL_FAILURE),
            (MemoryError(), CommonErrorCode.ERROR_OOM),
            (NotImplementedError(), CommonErrorCode.ERROR_UNIMPLEMENTED),
            (ZeroDivisionError("division"), CommonErrorCode.ERROR_UNKNOWN),
        ],
        ids=repr,
    )
    def test_without_an_errno_the_class_tells(self, exc: Exception, code: Code) -> None:
        error = errors.translate(exc)
        assert error.code is code
        assert error.detail == str(exc)


class TestTranslate:
    def test_an_error_of_ours_comes_back_as_it_is(self) -> None:
        error = errors.make(ErrorCode.IO_SOCKET_CLOSED, "first")
        assert errors.translate(error, "second") is error
        assert error.detail == "first"
        assert error.__cause__ is None

    @pytest.mark.parametrize(
        "exc",
        [OSError(errno.EIO, "?"), OSError(errno.EINVAL, "?"), ssl.SSLError("?"), KeyError("?")],
        ids=repr,
    )
    def test_a_fallback_is_better_than_a_general_code(self, exc: Exception) -> None:
        fallback = ErrorCode.IO_SOCKET_INVALID_OPTIONS
        assert errors.translate(exc, fallback=fallback).code is fallback

    def test_an_exact_code_is_better_than_a_fallback(self) -> None:
        exc = ConnectionRefusedError(errno.ECONNREFUSED, "no")
        error = errors.translate(exc, fallback=ErrorCode.IO_SOCKET_INVALID_OPTIONS)
        assert error.code is ErrorCode.IO_SOCKET_CONNECTION_REFUSED

    async def test_cancellation_and_timeouts_of_asyncio(self) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        error = errors.translate(cancelled.value, "waiting")
        assert error.code is ErrorCode.ERROR_IO_OPERATION_CANCELLED
        assert isinstance(error, Exception)
        assert error.detail == "waiting"
        with pytest.raises(TimeoutError) as late:
            await asyncio.wait_for(asyncio.Event().wait(), 0)
        assert errors.translate(late.value).code is ErrorCode.IO_SOCKET_TIMEOUT

    def test_cancellation_of_a_thread_s_future(self) -> None:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.cancel()
        with pytest.raises(concurrent.futures.CancelledError) as cancelled:
            future.result()
        code = errors.translate(cancelled.value).code
        assert code is ErrorCode.ERROR_IO_OPERATION_CANCELLED


class TestNames:
    def test_what_getaddrinfo_raises(self) -> None:
        with pytest.raises(socket.gaierror) as caught:
            socket.getaddrinfo("no address", 80, flags=socket.AI_NUMERICHOST)
        error = errors.translate(caught.value, "no address")
        assert error.code is ErrorCode.IO_DNS_INVALID_NAME
        assert isinstance(error, socket.gaierror)
        assert error.errno == socket.EAI_NONAME
        assert error.detail == f"no address: {caught.value.strerror}"

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (socket.EAI_AGAIN, ErrorCode.IO_DNS_QUERY_AGAIN),
            (socket.EAI_FAIL, ErrorCode.IO_DNS_QUERY_FAILED),
            (socket.EAI_NODATA, ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST),
            (socket.EAI_SERVICE, ErrorCode.IO_DNS_INVALID_NAME),
            (socket.EAI_MEMORY, CommonErrorCode.ERROR_OOM),
            (socket.EAI_FAMILY, ErrorCode.IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY),
            (socket.EAI_BADFLAGS, ErrorCode.IO_DNS_QUERY_FAILED),
        ],
    )
    def test_each_of_its_numbers(self, number: int, code: Code) -> None:
        error = errors.translate(socket.gaierror(number, "text of the resolver"), "a.example")
        assert error.code is code
        assert error.detail == "a.example: text of the resolver"
