"""PEM that is damaged: named by its line, and found in a time that grows with its length only."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aws_io_async import pem
from aws_io_async.errors import AwsIoError, PemMalformedError
from aws_io_async.pem import PemObject, PemObjectType
from tests.test_pem import block, certificate, chain, detail_of, rsa_key, same_key


def parse_or_none(source: str | bytes) -> list[PemObject] | None:
    """The objects, or None if `source` is malformed; any other error is one."""
    try:
        return pem.parse(source)
    except PemMalformedError:
        return None


@pytest.mark.parametrize("source", [5, None, [45, 45], Path("server.pem")])
def test_what_is_no_text_is_refused(source: Any) -> None:
    for read in pem.parse, pem.sanitize:
        with pytest.raises(TypeError, match="bytes-like"):
            read(source)


GOOD = block("CERTIFICATE", b"data")  # three lines


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (GOOD + GOOD[:-2], "line 6: a line that starts as END must be '-----END label-----'"),
        (GOOD + "-----BEGIN CERTIFICATE----\n", "line 4: a line that starts as BEGIN must be"),
        (GOOD + "-----BEGINCERTIFICATE-----\n", "line 4: a line that starts as BEGIN must be"),
        (GOOD + "-----BEGIN A--B-----\n", "line 4: a line that starts as BEGIN must be"),
        (GOOD + "-----BEGIN -----\n", "line 4: a line that starts as BEGIN must be"),
        (GOOD + "-----BEGIN caf\xe9-----\n", "line 4: a line that starts as BEGIN must be"),
        ("\n" + GOOD.rsplit("-----END")[0], "line 2: BEGIN CERTIFICATE has no END"),
        (GOOD.rsplit("-----END")[0] + GOOD, "line 3: BEGIN CERTIFICATE inside the CERTIFICATE of "),
        (GOOD + "-----END X-----", "line 4: END X without a BEGIN before it"),
        (GOOD.replace("END C", "END X"), "line 3: END XERTIFICATE ends the CERTIFICATE of line 1"),
        (GOOD + GOOD.replace("ZGF", "Z*F"), "line 5: b'*' in the base64 of the CERTIFICATE"),
        (GOOD.replace("ZGF", "Z=F"), "line 2: b'=' in the base64 of the CERTIFICATE"),
        (GOOD.replace("ZGF", "\n\nZG\x00F"), "line 4: b'\\x00' in the base64 of the CERTIFICATE"),
        (GOOD.replace("==", "\n\n\n"), "line 2: the base64 of the CERTIFICATE ends wrongly"),
        (GOOD.replace("==", "===="), "line 2: the base64 of the CERTIFICATE ends wrongly"),
        (GOOD.replace("==", "\n="), "line 3: the base64 of the CERTIFICATE ends wrongly"),
        (GOOD.replace("ZGF0YQ==", " "), "line 1: the CERTIFICATE is empty"),
        ("x\n" + GOOD[1:].rsplit("-----END")[0], "line 2: no object found; did you mean '-----B"),
        ("garbage", "line 1: 7 bytes have no '-----BEGIN label-----' line"),
    ],
)  # fmt: skip
def test_damage_is_named_by_its_line(text: str, detail: str) -> None:
    found = detail_of(text)
    assert found.startswith(detail)
    assert detail_of(text.replace("\n", "\r\n")) == found.replace(
        f"{len(text)} bytes", f"{len(text.replace(chr(10), chr(13) + chr(10)))} bytes"
    )


def test_a_key_encrypted_in_the_old_way_says_how_to_convert_it() -> None:
    text = rsa_key().private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
    )
    assert b"Proc-Type" in text
    assert same_key(load_pem_private_key(text, b"secret"), rsa_key())
    assert "openssl pkcs8 -topk8" in detail_of(text)
    assert detail_of(b"\n" + text).startswith("line 3: ")


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.pem"
    path.write_text("\n\n-----BEGIN X-----\n")
    with pytest.raises(AwsIoError, match=r"bad\.pem: line 3: BEGIN X has no END"):
        pem.parse_file(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem") as caught:
        pem.parse_file(tmp_path / "nowhere.pem")
    assert isinstance(caught.value, AwsIoError)


@pytest.mark.parametrize(
    "unit",
    [
        b"\n",
        b" ",
        b"-",
        b"-----BEGIN",
        b" -----BEGIN X-----",
        b"-----BEGIN X----\n"[:5] + b" ",
        b"x-----BEGIN X-----\n",
        b"\n ----BEGIN",
        b"A",
        b"\r",
        b"\x00",
        os.urandom(64),
    ],
)
def test_ten_megabytes_of_garbage_take_time_by_their_length_only(unit: bytes) -> None:
    """Anything quadratic would run into the time limit of every test."""
    garbage = (unit * (10_000_000 // len(unit) + 1))[:10_000_000]
    assert detail_of(b"x" + garbage).startswith("line ")
    around = b"x" + garbage + b"\n" + GOOD.encode() + b"x" + garbage
    assert parse_or_none(around) in ([certificate(b"data")], None)


@pytest.mark.parametrize("inside", [b"A", b" ", b"*", b"=", b"-", b"A\n", b"-----BEGIN X\n"])
def test_ten_megabytes_inside_an_object_too(inside: bytes) -> None:
    body = inside * (10_000_000 // len(inside))
    text = b"-----BEGIN X-----\nA" + body + b"\n-----END X-----\n"
    assert len(parse_or_none(text) or [""]) == 1
    assert detail_of(b"-----BEGIN " + b"A " * 5_000_000).startswith("line 1: ")


def test_a_hundred_thousand_objects() -> None:
    assert pem.parse(GOOD * 100_000) == [certificate(b"data")] * 100_000


@settings(deadline=None)
@given(st.binary() | st.text())
def test_any_input_is_parsed_or_malformed(source: bytes | str) -> None:
    assert parse_or_none(source) is None or source


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([kind.value for kind in PemObjectType][1:]), st.binary(min_size=1)
        ),
        min_size=1,
    ),
    st.lists(st.text().filter(lambda text: "-----" not in text), min_size=1),
)
def test_what_is_written_is_read_among_any_comments(
    objects: list[tuple[str, bytes]], comments: list[str]
) -> None:
    written = [PemObject(PemObjectType(label), label, data) for label, data in objects]
    text = "".join(
        f"{comments[number % len(comments)]}\n{one.to_pem()}" for number, one in enumerate(written)
    )
    assert pem.parse(text) == written
    assert pem.parse(pem.sanitize(text)) == written


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([b"", b"-", b"\n", b"=", b"A", b"*"]))
def test_a_certificate_with_one_change(at: int, change: bytes) -> None:
    """It is found damaged, or it holds what the lines between BEGIN and END say."""
    text = chain()[0].public_bytes(Encoding.PEM)
    at %= len(text)
    changed = text[:at] + change + text[at + 1 :]
    found = parse_or_none(changed)
    if found is None:
        return
    lines = changed.decode().splitlines()
    assert [one.data for one in found] == [base64.b64decode("".join(lines[1:-1]))]
