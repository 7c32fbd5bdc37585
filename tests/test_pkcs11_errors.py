"""The errors of PKCS#11: each return value and each exception of the binding has its code."""

import pytest

from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.pkcs11._return_values import CODES, error_of, translate

pkcs11 = pytest.importorskip("pkcs11", reason="the extra pkcs11 is not installed")

PREFIX = "ERROR_PKCS11_CKR_"
UNKNOWN = ErrorCode.ERROR_PKCS11_UNKNOWN_CRYPTOKI_RETURN_VALUE

WITHOUT_A_NUMBER = {
    "MultipleObjectsReturned",
    "MultipleTokensReturned",
    "NoSuchKey",
    "NoSuchToken",
    "PKCS11Error",
}
"""The binding's own, about its own searches."""

EXCEPTIONS = [
    found
    for found in vars(pkcs11.exceptions).values()
    if isinstance(found, type) and issubclass(found, pkcs11.PKCS11Error)
]


def test_each_return_value_has_its_own_code() -> None:
    codes = {code for code in ErrorCode if code.name.startswith(PREFIX)}
    assert set(CODES.values()) == codes
    assert len(CODES) == len(codes)


@pytest.mark.parametrize("value", CODES)
def test_a_return_value_names_the_function(value: int) -> None:
    error = error_of(value, "C_Sign")
    assert (error.code, error.detail) == (CODES[value], "C_Sign")


def test_the_values_of_vendors_are_told() -> None:
    error = error_of(0x80000001, "C_Sign")
    assert (error.code, error.detail) == (UNKNOWN, "C_Sign returned 0x80000001")


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_each_exception_of_the_binding_has_its_code(kind: type[Exception]) -> None:
    error = translate(kind("why"), "C_Sign")
    if kind.__name__ in WITHOUT_A_NUMBER:
        assert error.code is UNKNOWN
    else:
        assert error.code in CODES.values()
    assert error.detail == "C_Sign: why"
    assert isinstance(error.__cause__, kind)


def test_exceptions_are_told_apart() -> None:
    named = [kind for kind in EXCEPTIONS if kind.__name__ not in WITHOUT_A_NUMBER]
    assert len({translate(kind(), "").code for kind in named}) == len(named)


def test_numbers_that_the_binding_has_no_class_for() -> None:
    unmapped = pkcs11.PKCS11Error("Unmapped error code 0x68")
    error = translate(unmapped, "C_Sign")
    assert error.code is ErrorCode.ERROR_PKCS11_CKR_KEY_FUNCTION_NOT_PERMITTED
    unmapped = pkcs11.PKCS11Error("Unmapped error code 0x80000002")
    assert translate(unmapped, "C_Sign").detail == "C_Sign returned 0x80000002"


def test_ours_pass() -> None:
    error = error_of(0xA0, "C_Login")
    assert isinstance(error, AwsIoError)
    assert translate(error, "C_Sign") is error
