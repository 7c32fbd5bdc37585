"""PEM: certificates and keys as text, read into objects and written from DER.

A PEM file holds objects between `-----BEGIN label-----` and `-----END label-----` lines; anything
outside them is comment. Lines may end as on Unix, Windows or old Macs, be indented, and be of any
length. What is damaged is never passed over in silence: a chain that lost a certificate fails here
with the number of the line, not in a later handshake.

Sources: RFC 7468; aws-c-io, `pem.h`, which hands back the objects before a damaged one where this
module raises, and lets the labels of BEGIN and END differ.
"""

import base64
import binascii
import enum
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from . import errors
from .errors import ErrorCode

Source = bytes | bytearray | memoryview | str

# Anchored at line starts, and with no two ways to match the same text: the time it takes grows
# with the length of the text, whatever the text.
_MARKER = re.compile(rb"^[ \t\v\f]*-----(BEGIN|END)([^\n]*)\n?", re.MULTILINE)
_LABEL = re.compile(rb" ([!-,.-~](?:[- ]?[!-,.-~])*+)-----[ \t\v\f]*")
_NEAR_MARKER = re.compile(rb"^[ \t\v\f]*-*[ ]?(?:BEGIN|END) [^\n]*", re.MULTILINE)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/\s]")
_BLANK = b" \t\v\f\n"
_BASE64_LINE = 64
_DER_SEQUENCE = b"\x30\x82"


class PemObjectType(enum.Enum):
    """What an object is, by its label; the value is the label."""

    UNKNOWN = ""
    X509_OLD = "X509 CERTIFICATE"
    X509 = "CERTIFICATE"
    X509_TRUSTED = "TRUSTED CERTIFICATE"
    X509_REQ_OLD = "NEW CERTIFICATE REQUEST"
    X509_REQ = "CERTIFICATE REQUEST"
    X509_CRL = "X509 CRL"
    EVP_PKEY = "ANY PRIVATE KEY"
    PUBLIC_KEY = "PUBLIC KEY"
    PRIVATE_RSA_PKCS1 = "RSA PRIVATE KEY"
    PUBLIC_RSA_PKCS1 = "RSA PUBLIC KEY"
    PRIVATE_DSA_PKCS1 = "DSA PRIVATE KEY"
    PUBLIC_DSA_PKCS1 = "DSA PUBLIC KEY"
    PKCS7 = "PKCS7"
    PKCS7_SIGNED_DATA = "PKCS #7 SIGNED DATA"
    PRIVATE_PKCS8_ENCRYPTED = "ENCRYPTED PRIVATE KEY"
    PRIVATE_PKCS8 = "PRIVATE KEY"
    DH_PARAMETERS = "DH PARAMETERS"
    DH_PARAMETERS_X942 = "X9.42 DH PARAMETERS"
    SSL_SESSION_PARAMETERS = "SSL SESSION PARAMETERS"
    DSA_PARAMETERS = "DSA PARAMETERS"
    ECDSA_PUBLIC = "ECDSA PUBLIC KEY"
    EC_PARAMETERS = "EC PARAMETERS"
    EC_PRIVATE = "EC PRIVATE KEY"
    PARAMETERS = "PARAMETERS"
    CMS = "CMS"
    SM2_PARAMETERS = "SM2 PARAMETERS"


_TYPES = {type_.value: type_ for type_ in PemObjectType}


@dataclass(frozen=True, slots=True)
class PemObject:
    """One object of a PEM file."""

    type: PemObjectType
    """UNKNOWN for a label that is not in the list."""

    type_string: str
    """The label, as it stands between BEGIN and the dashes."""

    data: bytes = field(repr=False)
    """The content, in DER; it may be a private key, and is not shown by `repr`."""

    def to_pem(self) -> str:
        """The object as text, in lines of 64 characters that end in a newline."""
        return _encode(self.data, self.type_string)


def parse(pem: Source) -> list[PemObject]:
    """The objects of `pem`, at least one, in their order. Any thread.

    Raises `AwsIoError` ERROR_PEM_MALFORMED, which names the line: if there is no object, a BEGIN or
    END line is damaged, alone or of another label than its counterpart, or what is between them is
    not base64. Raises TypeError for what is neither str nor bytes-like.
    """
    text = _normalized(pem)
    return [
        PemObject(_TYPES.get(block.label, PemObjectType.UNKNOWN), block.label, _decode(text, block))
        for block in _blocks(text)
    ]


def parse_file(path: str | os.PathLike[str]) -> list[PemObject]:
    """The objects of the file at `path`. Reads the file in the caller's thread.

    Raises what `parse` does, with the path in the message, and `AwsIoError` if the file cannot be
    read: ERROR_FILE_INVALID_PATH, which is a `FileNotFoundError`, ERROR_NO_PERMISSION, which is a
    `PermissionError`, or another that is an `OSError`.
    """
    try:
        return parse(Path(path).read_bytes())
    except OSError as exc:
        raise errors.translate(exc, str(path)) from exc
    except errors.AwsIoError as exc:
        raise errors.make(exc.code, f"{path}: {exc.detail}") from exc


def sanitize(pem: Source) -> bytes:
    """`pem` without what is outside its objects, for a reader that stumbles over comments.

    Lines are not indented and end in a newline; what is between BEGIN and END is not looked at.
    Raises `AwsIoError` ERROR_PEM_MALFORMED as `parse` does, except for what is not base64.
    Source: aws-c-io, `private/pem_utils.h`.
    """
    text = _normalized(pem)
    lines: list[bytes] = []
    for block in _blocks(text):
        body = (line.strip(_BLANK) for line in text[block.start : block.end].split(b"\n"))
        label = block.label.encode()
        lines.append(b"-----BEGIN %b-----" % label)
        lines.extend(filter(None, body))
        lines.append(b"-----END %b-----" % label)
    return b"".join(line + b"\n" for line in lines)


def der_cert_to_pem(der: bytes | bytearray | memoryview) -> str:
    """A certificate in DER as text, in lines of 64 characters that end in a newline.

    Raises `ValueError` if `der` is empty; what it holds is not looked at.
    """
    return _encode(der, PemObjectType.X509.value)


class _Block(NamedTuple):
    """An object as it stands in the text."""

    label: str
    marker: int
    """Where the BEGIN line begins."""
    start: int
    """Where what is between BEGIN and END begins …"""
    end: int
    """… and where it ends."""


def _normalized(pem: Source) -> bytes:
    """The text in bytes, every line ending in a newline, without a byte order mark."""
    # Not `bytes(pem)`, which makes as many zeros as a number says.
    data = pem.encode(errors="replace") if isinstance(pem, str) else bytes(memoryview(pem))
    data = data.removeprefix(b"\xef\xbb\xbf")
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _blocks(text: bytes) -> Iterator[_Block]:
    """The objects of the text, at least one."""
    begin: _Block | None = None
    found = False
    for marker in _MARKER.finditer(text):
        kind = marker[1].decode()
        named = _LABEL.fullmatch(marker[2])
        if named is None:
            _malformed(text, marker.start(), f"a line that starts as {kind} must be {_shape(kind)}")
        label = named[1].decode()
        if kind == "BEGIN":
            if begin is not None:
                _malformed(
                    text, marker.start(), f"BEGIN {label} inside {_opened(text, begin)}, no END yet"
                )
            begin = _Block(label, marker.start(), marker.end(), marker.end())
            continue
        if begin is None:
            _malformed(text, marker.start(), f"END {label} without a BEGIN before it")
        if begin.label != label:
            _malformed(text, marker.start(), f"END {label} ends {_opened(text, begin)}")
        yield begin._replace(end=marker.start())
        begin, found = None, True
    if begin is not None:
        _malformed(text, begin.marker, f"BEGIN {begin.label} has no END")
    if not found:
        _nothing_found(text)


def _shape(kind: str) -> str:
    return f"'-----{kind} label-----'"


def _opened(text: bytes, begin: _Block) -> str:
    return f"the {begin.label} of line {_line_number(text, begin.marker)}"


def _nothing_found(text: bytes) -> NoReturn:
    near = _NEAR_MARKER.search(text)
    if near is not None:
        kind = "BEGIN" if b"BEGIN" in near[0] else "END"
        _malformed(text, near.start(), f"no object found; did you mean {_shape(kind)} here?")
    hint = "; it may be DER" if text.startswith(_DER_SEQUENCE) else ""
    _malformed(text, 0, f"{len(text)} bytes have no {_shape('BEGIN')} line{hint}")


def _decode(text: bytes, block: _Block) -> bytes:
    """What an object holds."""
    body = text[block.start : block.end]
    try:
        data = binascii.a2b_base64(body.translate(None, _BLANK), strict_mode=True)
    except binascii.Error as exc:
        _not_base64(text, block, exc)
    if not data:
        _malformed(text, block.marker, f"the {block.label} is empty")
    return data


def _not_base64(text: bytes, block: _Block, cause: Exception) -> NoReturn:
    """Find the line that is wrong."""
    body = text[block.start : block.end].rstrip(_BLANK)
    wrong = _NOT_BASE64.search(body, 0, len(body.rstrip(b"=" + _BLANK)))
    if wrong is None:
        at, detail = len(body) - 1, f"the base64 of the {block.label} ends wrongly"
    elif body.startswith(b"Proc-Type:"):
        at, detail = 0, "encrypted in OpenSSL's old way; `openssl pkcs8 -topk8` converts the key"
    else:
        at, detail = wrong.start(), f"{wrong[0]!r} in the base64 of the {block.label}"
    _malformed(text, block.start + at, detail, cause)


def _line_number(text: bytes, position: int) -> int:
    return text.count(b"\n", 0, position) + 1


def _malformed(text: bytes, position: int, detail: str, cause: Exception | None = None) -> NoReturn:
    line = _line_number(text, position)
    raise errors.make(ErrorCode.ERROR_PEM_MALFORMED, f"line {line}: {detail}") from cause


def _encode(der: bytes | bytearray | memoryview, label: str) -> str:
    if not der:
        raise ValueError(f"no bytes to encode as {label}: pass the object in DER")
    text = base64.b64encode(der).decode()
    lines = (text[at : at + _BASE64_LINE] for at in range(0, len(text), _BASE64_LINE))
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
