"""Byte sources that answer at once: bytes in memory, a file at a path, a file that is open.

An `InputStream` is what a request's body is read from: it knows its length and can be wound back
for a retry. `aws_io_async.async_stream` reads one without blocking an event loop.

Source: aws-c-io, `stream.h`. Where that lets a file be positioned past its end, to be found empty
there, all streams here refuse such a position.
"""

import enum
import io
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import BinaryIO, Self, cast

from . import errors
from .errors import ErrorCode

Writable = bytearray | memoryview


class SeekBasis(enum.Enum):
    """What the offset of a seek counts from."""

    BEGIN = os.SEEK_SET
    END = os.SEEK_END


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Where a stream stands after the last read."""

    is_end_of_stream: bool
    """All has been read. A file is known to have ended once a read came back empty."""

    is_valid: bool
    """False for good once a read failed or the stream was closed."""


class InputStream(ABC):
    """A source of bytes. Used by one thread at a time, any thread.

    A subclass has `_read` and `get_status`, and `_seek`, `get_length` and `_close` where it has
    something to say.
    """

    blocks = True
    """Whether a read may wait for a device: an event loop then has a worker thread do it."""

    _closed = False

    @staticmethod
    def from_bytes(data: bytes | bytearray | memoryview) -> "InputStream":
        """The bytes of `data`, which is not copied: it must not change meanwhile."""
        return _MemoryStream(data)

    @staticmethod
    def from_path(path: str | os.PathLike[str]) -> "InputStream":
        """The bytes of the file at `path`, which is opened now and closed with the stream.

        Raises `AwsIoError` if it cannot be opened: ERROR_FILE_INVALID_PATH, which is a
        `FileNotFoundError`, ERROR_NO_PERMISSION, which is a `PermissionError`, or another that is
        an `OSError`.
        """
        try:
            file = open(path, "rb")  # noqa: SIM115  # the stream closes it
        except OSError as exc:
            raise errors.translate(exc, str(path)) from exc
        return _FileStream(file, str(path), owned=True)

    @staticmethod
    def from_open_file(file: BinaryIO) -> "InputStream":
        """What `file` has from its position on. Closing the stream leaves `file` open.

        Raises `TypeError` for a file in text mode, whose positions are not bytes.
        """
        if isinstance(cast(object, file), io.TextIOBase):
            raise TypeError("a stream reads bytes: open the file in mode 'rb', or pass its .buffer")
        return _FileStream(file, str(getattr(file, "name", file)), owned=False)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes.

        Empty says that there are none now; `get_status().is_end_of_stream` whether there will be.

        Raises `AwsIoError` IO_STREAM_READ_FAILED if the source failed, and `ValueError` for a
        negative size and on a closed stream.
        """
        self._check_open()
        if size < 0:
            raise ValueError(f"size is {size}: pass how many bytes there is room for")
        data = self._read(size) if size else b""
        if len(data) > size:
            detail = f"{type(self).__name__}._read({size}) returned {len(data)} bytes"
            raise errors.make(ErrorCode.IO_STREAM_READ_FAILED, detail)
        return data

    def read_into(self, buffer: Writable) -> int:
        """Fill `buffer` from its start as far as there are bytes, and return how many.

        Raises as `read` does; the buffer is unchanged then.
        """
        with memoryview(buffer).cast("B") as view:
            data = self.read(len(view))
            view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, basis: SeekBasis = SeekBasis.BEGIN) -> None:
        """Go to `offset` bytes from the beginning, or to -`offset` bytes before the end.

        Raises `AwsIoError`: IO_STREAM_INVALID_SEEK_POSITION if that lies outside the stream,
        IO_STREAM_SEEK_UNSUPPORTED if the source cannot be positioned, IO_STREAM_SEEK_FAILED if it
        failed to; the position is as before. Raises `ValueError` on a closed stream.
        """
        self._check_open()
        self._seek(offset, basis)

    @abstractmethod
    def get_status(self) -> StreamStatus:
        """Whether the stream has ended, and whether it can be used at all. Never raises."""

    def get_length(self) -> int:
        """The bytes of the whole stream, wherever its position is.

        Raises `AwsIoError`: IO_STREAM_GET_LENGTH_UNSUPPORTED if the source has no known length,
        IO_STREAM_GET_LENGTH_FAILED if it failed to tell. Raises `ValueError` on a closed stream.
        """
        raise errors.make(ErrorCode.IO_STREAM_GET_LENGTH_UNSUPPORTED, type(self).__name__)

    def close(self) -> None:
        """Let go of the source: closes what the stream opened itself. Idempotent."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @abstractmethod
    def _read(self, size: int) -> bytes:
        """Up to `size` bytes, which is at least 1."""

    def _seek(self, offset: int, basis: SeekBasis) -> None:
        raise errors.make(ErrorCode.IO_STREAM_SEEK_UNSUPPORTED, type(self).__name__)

    def _close(self) -> None:  # noqa: B027  # not every stream has something to close
        """Called once."""

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this stream is closed: make a new one from its source")


def _position(offset: int, basis: SeekBasis, length: int) -> int:
    """Where a seek leads in a source of `length` bytes."""
    position = offset + (length if basis is SeekBasis.END else 0)
    if not 0 <= position <= length:
        detail = f"{offset} from the {basis.name.lower()} of {length} bytes"
        raise errors.make(ErrorCode.IO_STREAM_INVALID_SEEK_POSITION, detail)
    return position


class _MemoryStream(InputStream):
    """Bytes in memory."""

    blocks = False

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self._at = 0

    def get_status(self) -> StreamStatus:
        ended = self._closed or self._at == len(self._view)
        return StreamStatus(is_end_of_stream=ended, is_valid=not self._closed)

    def get_length(self) -> int:
        self._check_open()
        return len(self._view)

    def _read(self, size: int) -> bytes:
        data = bytes(self._view[self._at : self._at + size])
        self._at += len(data)
        return data

    def _seek(self, offset: int, basis: SeekBasis) -> None:
        self._at = _position(offset, basis, len(self._view))

    def _close(self) -> None:
        self._view.release()


class _FileStream(InputStream):
    """A binary file, or an object that reads like one."""

    def __init__(self, file: BinaryIO, name: str, *, owned: bool) -> None:
        self._file = file
        self._name = name
        self._owned = owned
        self._ended = False
        self._failed = False

    def get_status(self) -> StreamStatus:
        return StreamStatus(
            is_end_of_stream=self._ended or self._closed,
            is_valid=not (self._failed or self._closed),
        )

    def get_length(self) -> int:
        self._check_open()
        try:
            return self._measure()
        except io.UnsupportedOperation as exc:
            code = ErrorCode.IO_STREAM_GET_LENGTH_UNSUPPORTED
            raise errors.make(code, self._what(exc)) from exc
        except Exception as exc:
            raise errors.make(ErrorCode.IO_STREAM_GET_LENGTH_FAILED, self._what(exc)) from exc

    def _read(self, size: int) -> bytes:
        try:
            data: bytes | None = self._file.read(size)
        except Exception as exc:
            self._failed = True
            raise errors.make(ErrorCode.IO_STREAM_READ_FAILED, self._what(exc)) from exc
        if data is None:  # a non-blocking file that has nothing now
            return b""
        self._ended = not data
        return data

    def _seek(self, offset: int, basis: SeekBasis) -> None:
        try:
            length = self._measure()
            position = _position(offset, basis, length)
            self._file.seek(position)
        except errors.AwsIoError:
            raise
        except io.UnsupportedOperation as exc:
            raise errors.make(ErrorCode.IO_STREAM_SEEK_UNSUPPORTED, self._what(exc)) from exc
        except Exception as exc:
            raise errors.make(ErrorCode.IO_STREAM_SEEK_FAILED, self._what(exc)) from exc
        self._ended = False

    def _measure(self) -> int:
        """The file's length, found by going to its end and back: that serves every kind of file."""
        if not self._file.seekable():
            raise io.UnsupportedOperation("the file cannot be positioned")
        here = self._file.tell()
        try:
            self._file.seek(0, os.SEEK_END)
            return self._file.tell()
        finally:
            self._file.seek(here)

    def _what(self, exc: Exception) -> str:
        """The failure in words, with the name of the file in it."""
        return f"{self._name}: {(isinstance(exc, OSError) and exc.strerror) or exc}"

    def _close(self) -> None:
        if self._owned:
            self._file.close()
