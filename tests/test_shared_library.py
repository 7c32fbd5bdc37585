"""Shared libraries: loading, finding functions, and unloading for good."""

import ctypes
import ctypes.util
import shutil
import sys
from pathlib import Path

import pytest

from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.shared_library import SharedLibrary

MATH = ctypes.util.find_library("m") or "libm.so.6"
DOUBLE = (ctypes.c_double, [ctypes.c_double])


def mapped_file(name: str) -> str:
    """The file of a library that this process has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if Path(path).name == name:
            return path
    raise LookupError(name)


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.fixture
def own_library(tmp_path: Path) -> Path:
    """A library that only the test loads: a copy, which the loader takes for another one."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the system's libraries are no files")
    with SharedLibrary(MATH):
        return Path(shutil.copy(mapped_file(Path(MATH).name), tmp_path / "libown.so"))


# aws-c-io's cases


def test_shared_library_open_failure() -> None:
    with pytest.raises(OSError, match=r"not-a-real-library\.blah") as caught:
        SharedLibrary("not-a-real-library.blah")
    assert isinstance(caught.value, AwsIoError)
    assert caught.value.code is ErrorCode.IO_SHARED_LIBRARY_LOAD_FAILURE
    assert isinstance(caught.value.__cause__, OSError)


def test_shared_library_open_success() -> None:
    library = SharedLibrary(MATH)
    assert not library.closed
    assert library.path == MATH
    library.close()
    assert library.closed


def test_shared_library_find_function_success() -> None:
    with SharedLibrary(MATH) as library:
        cos = library.find_function("cos", *DOUBLE)
        assert cos(0.0) == 1.0
        assert cos.library is library
        same = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(cos.address)
        assert same(0.0) == 1.0


def test_shared_library_find_function_failure() -> None:
    with SharedLibrary(MATH) as library, pytest.raises(LookupError) as caught:
        library.find_function("not_a_real_function")
    assert isinstance(caught.value, AwsIoError)
    assert caught.value.code is ErrorCode.IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE
    assert "not_a_real_function" in caught.value.detail
    assert Path(MATH).name in caught.value.detail


# Loading


def test_a_path_is_loaded_from_a_file(own_library: Path) -> None:
    with SharedLibrary(own_library) as library:
        assert library.path == str(own_library)
        assert library.find_function("cos", *DOUBLE)(0.0) == 1.0


def test_none_is_the_running_program() -> None:
    with SharedLibrary(None) as program:
        get_version = program.find_function("Py_GetVersion", restype=ctypes.c_char_p)
        assert get_version().decode() == sys.version


@pytest.mark.parametrize("path", ["", "lib\0m.so", "/"])
def test_what_is_no_library(path: str) -> None:
    with pytest.raises(AwsIoError) as caught:
        SharedLibrary(path)
    assert caught.value.code is ErrorCode.IO_SHARED_LIBRARY_LOAD_FAILURE


def test_a_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("text")
    with pytest.raises(AwsIoError, match=r"text\.so"):
        SharedLibrary(path)


# Functions


@pytest.mark.parametrize("name", ["", "co\0s", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_names_that_no_function_has(name: str) -> None:
    with SharedLibrary(MATH) as library, pytest.raises(AwsIoError) as caught:
        library.find_function(name)
    assert caught.value.code is ErrorCode.IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE


def test_signatures_are_those_of_each_finding() -> None:
    with SharedLibrary(MATH) as library:
        cos = library.find_function("cos", *DOUBLE)
        without = library.find_function("cos")
        assert cos(0.0) == 1.0
        assert without() is None
        with pytest.raises(ctypes.ArgumentError):
            cos("text")


def test_a_function_of_a_closed_library_raises(own_library: Path) -> None:
    with SharedLibrary(own_library) as library:
        cos = library.find_function("cos", *DOUBLE)
    for use in (lambda: cos(0.0), lambda: cos.address, lambda: library.find_function("cos")):
        with pytest.raises(AwsIoError, match=r"cos .* the library is closed") as caught:
            use()
        assert caught.value.code is ErrorCode.IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE
    assert "closed" in repr(cos)


# Unloading


def test_closing_unloads(own_library: Path) -> None:
    first, second = SharedLibrary(own_library), SharedLibrary(own_library)
    assert is_mapped(own_library)
    first.close()
    first.close()
    assert is_mapped(own_library)
    assert second.find_function("cos", *DOUBLE)(0.0) == 1.0
    second.close()
    assert not is_mapped(own_library)
