"""The few functions of a PKCS#11 library that the binding does not call as we need them.

`python-pkcs11` initializes a library without telling it that there are threads, always does so,
finalizes it when its own object is gone, logs in only while it opens a session and logs everybody
out when it closes that one, and does not pass on the numbers of errors.

Source: PKCS#11 2.40, sections 3.6 and 5.4 (CK_FUNCTION_LIST, C_Initialize).
"""

import ctypes
import os

from .. import errors
from ..errors import ErrorCode
from ..shared_library import SharedLibrary
from ._return_values import CRYPTOKI_ALREADY_INITIALIZED, OK, USER_ALREADY_LOGGED_IN, error_of

_MAJOR, _MINIMUM_MINOR = 2, 20
_OS_LOCKING_OK = 0x2
_USER = 1

_INITIALIZE, _FINALIZE, _GET_INFO, _LOGIN = 0, 1, 2, 18
"""Where these stand in the list of functions."""

_WITH_POINTER = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
_WITH_PIN = ctypes.CFUNCTYPE(
    ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong
)


class _FunctionList(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_ubyte),
        ("minor", ctypes.c_ubyte),
        ("functions", ctypes.c_void_p * (_LOGIN + 1)),
    )


class _InitializeArgs(ctypes.Structure):
    _fields_ = (
        ("mutex_functions", ctypes.c_void_p * 4),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class Cryptoki:
    """A library, by its list of functions."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Load it. Raises as `SharedLibrary` does, and ERROR_PKCS11_VERSION_UNSUPPORTED."""
        self.library = SharedLibrary(path)
        try:
            self._list = self._function_list()
        except BaseException:
            self.library.close()
            raise

    def _function_list(self) -> _FunctionList:
        pointer = ctypes.POINTER(_FunctionList)
        get_function_list = self.library.find_function(
            "C_GetFunctionList", ctypes.c_ulong, [ctypes.POINTER(pointer)]
        )
        found = pointer()
        value = get_function_list(ctypes.byref(found))
        if value != OK:
            raise error_of(value, "C_GetFunctionList")
        functions = found.contents
        if functions.major != _MAJOR or functions.minor < _MINIMUM_MINOR:
            detail = (
                f"{self.library.path} has {functions.major}.{functions.minor}, "
                f"and not {_MAJOR}.{_MINIMUM_MINOR} or a later {_MAJOR}.x"
            )
            raise errors.make(ErrorCode.ERROR_PKCS11_VERSION_UNSUPPORTED, detail)
        return functions

    def initialize(self, *, already_is_ok: bool) -> None:
        """Let the library begin, with threads that use the system's locks."""
        args = _InitializeArgs(flags=_OS_LOCKING_OK)
        value = _WITH_POINTER(self._list.functions[_INITIALIZE])(ctypes.addressof(args))
        if value != OK and not (already_is_ok and value == CRYPTOKI_ALREADY_INITIALIZED):
            raise error_of(value, "C_Initialize")

    def check_initialized(self) -> None:
        """Raise unless somebody has let the library begin."""
        info = ctypes.create_string_buffer(128)  # a CK_INFO is smaller
        value = _WITH_POINTER(self._list.functions[_GET_INFO])(ctypes.addressof(info))
        if value != OK:
            raise error_of(value, "C_GetInfo")

    def finalize(self) -> None:
        """End the library, for all in this process."""
        value = _WITH_POINTER(self._list.functions[_FINALIZE])(None)
        if value != OK:
            raise error_of(value, "C_Finalize")

    def login(self, session: int, pin: bytes | None) -> None:
        """Log the user in, who may be already."""
        login = _WITH_PIN(self._list.functions[_LOGIN])
        value = login(session, _USER, pin, len(pin or b""))
        if value not in (OK, USER_ALREADY_LOGGED_IN):
            raise error_of(value, "C_Login")
