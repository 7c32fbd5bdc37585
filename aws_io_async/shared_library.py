"""Shared libraries that are loaded at run time, and the functions in them.

What this adds to `ctypes`: one kind of error, libraries that can be unloaded, and functions that
raise once theirs is, where calling into the unmapped memory would end the process.

Source: aws-c-io, `shared_library.h`.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

from . import errors, log
from .errors import ErrorCode

logger = log.logger(log.LogSubject.SHARED_LIBRARY)

# `ctypes` loads libraries and never unloads one; the C library can.
_dlclose: Callable[[ctypes.c_void_p], int] = ctypes.CDLL(None).dlclose


class SharedLibrary:
    """A loaded library. Any thread; one thread must not close it while another is inside."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Load the library at `path`, or the one of that name that the system's loader finds.

        None stands for the running program with all that it was linked with.
        Raises `AwsIoError` IO_SHARED_LIBRARY_LOAD_FAILURE with the path and the loader's reason.
        """
        self.path = None if path is None else os.fspath(path)
        self._library: ctypes.CDLL | None = None
        if self.path == "":
            self._cannot_load("the path is empty; None stands for the running program")
        try:
            self._library = ctypes.CDLL(self.path)
        except (OSError, ValueError) as exc:
            self._cannot_load(str(exc), exc)
        logger.debug("%r is loaded", self)

    def _cannot_load(self, reason: str, cause: Exception | None = None) -> NoReturn:
        detail = reason if str(self.path) in reason else f"{self.path}: {reason}"
        raise errors.make(ErrorCode.IO_SHARED_LIBRARY_LOAD_FAILURE, detail) from cause

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._library is None

    def find_function(
        self, name: str, restype: Any = None, argtypes: Sequence[Any] = ()
    ) -> "LibraryFunction":
        """The function `name`, which takes `argtypes` and returns `restype` (`ctypes` types).

        The library cannot tell what its functions take: a wrong signature corrupts memory. As in C,
        one that is not given is `void name(void)`.
        Raises `AwsIoError` IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE if the library has no such
        function or is closed.
        """
        if self._library is None:
            raise _cannot_find(self, name, "the library is closed")
        try:
            function = self._library[name]
        except (AttributeError, ValueError) as exc:
            raise _cannot_find(self, name, str(exc)) from exc
        function.restype = restype
        function.argtypes = argtypes
        return LibraryFunction(self, name, function)

    def close(self) -> None:
        """Unload the library, unless others have it loaded too. Idempotent."""
        library, self._library = self._library, None
        if library is not None:
            _dlclose(ctypes.c_void_p(library._handle))
            logger.debug("%r", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r}{' closed' if self.closed else ''}>"


class LibraryFunction:
    """A function of a library. The GIL is free while it runs."""

    __slots__ = ("_function", "library", "name")

    def __init__(self, library: SharedLibrary, name: str, function: Callable[..., Any]) -> None:
        self.library = library
        self.name = name
        self._function = function

    @property
    def address(self) -> int:
        """Where the function is, for `ctypes` types of function; of use until the library closes.

        Raises as calling the function does.
        """
        return ctypes.cast(self._callable(), ctypes.c_void_p).value or 0

    def __call__(self, *args: Any) -> Any:
        """Call it; raises `ctypes.ArgumentError` for arguments that do not fit `argtypes`.

        Raises `AwsIoError` IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE if the library was closed.
        """
        return self._callable()(*args)

    def _callable(self) -> Any:
        if self.library.closed:
            raise _cannot_find(self.library, self.name, "the library is closed")
        return self._function

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.library!r}>"


def _cannot_find(library: SharedLibrary, name: str, reason: str) -> errors.AwsIoError:
    detail = reason if name in reason else f"{name} in {library.path or 'this program'}: {reason}"
    return errors.make(ErrorCode.IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE, detail)
