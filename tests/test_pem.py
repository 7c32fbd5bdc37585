"""PEM: every kind of object, chains, comments, line ends, and damage that is named by its line."""

import base64
import datetime
import os
import ssl
import subprocess
from functools import cache
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates
from cryptography.x509.oid import NameOID

from aws_io_async import pem
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.pem import PemObject, PemObjectType


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def dsa_key() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(2048)


@cache
def chain() -> tuple[x509.Certificate, ...]:
    """A leaf, an intermediate and a root."""
    root = trustme.CA()
    intermediate = root.create_child_ca()
    leaf = intermediate.issue_cert("leaf.example")
    blobs = [*leaf.cert_chain_pems, root.cert_pem]
    return tuple(x509.load_pem_x509_certificate(blob.bytes()) for blob in blobs)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def chain_pem() -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain())


def same_key(one: PrivateKeyTypes, other: PrivateKeyTypes) -> bool:
    clear = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return one.private_bytes(*clear) == other.private_bytes(*clear)


def block(label: str, data: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(data).decode()}-----END {label}-----\n"


def certificate(data: bytes) -> PemObject:
    return PemObject(PemObjectType.X509, "CERTIFICATE", data)


def detail_of(source: str | bytes) -> str:
    """How `parse` says what is wrong."""
    with pytest.raises(AwsIoError) as caught:
        pem.parse(source)
    assert caught.value.code is ErrorCode.ERROR_PEM_MALFORMED
    assert isinstance(caught.value, ValueError)
    return caught.value.detail


# aws-c-io's cases


def test_pem_cert_parse_from_file(tmp_path: Path) -> None:
    path = tmp_path / "one.crt"
    path.write_bytes(chain()[0].public_bytes(Encoding.PEM))
    assert pem.parse_file(path) == [certificate(der(chain()[0]))]


def test_pem_cert_parse_from_file_crlf(tmp_path: Path) -> None:
    path = tmp_path / "crlf.crt"
    path.write_bytes(chain()[0].public_bytes(Encoding.PEM).replace(b"\n", b"\r\n"))
    assert pem.parse_file(str(path)) == [certificate(der(chain()[0]))]


def pkcs1(encoding: Encoding) -> bytes:
    return rsa_key().private_bytes(encoding, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def test_pem_private_key_parse_from_file(tmp_path: Path) -> None:
    path = tmp_path / "unittests.key"
    path.write_bytes(pkcs1(Encoding.PEM))
    (key,) = pem.parse_file(path)
    assert key == PemObject(PemObjectType.PRIVATE_RSA_PKCS1, "RSA PRIVATE KEY", pkcs1(Encoding.DER))


def test_pem_single_cert_parse() -> None:
    text = chain()[0].public_bytes(Encoding.PEM).rstrip(b"\n")
    assert pem.parse(text) == [certificate(der(chain()[0]))]


def test_pem_cert_chain_parse() -> None:
    assert pem.parse(chain_pem()) == [certificate(der(one)) for one in chain()]


def test_pem_private_key_parse() -> None:
    (key,) = pem.parse(pkcs1(Encoding.PEM).rstrip(b"\n"))
    assert key.type is PemObjectType.PRIVATE_RSA_PKCS1
    assert key.type_string == "RSA PRIVATE KEY"
    assert same_key(load_der_private_key(key.data, None), rsa_key())


def test_pem_dsa_private_key_parse() -> None:
    (key,) = pem.parse(
        dsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    assert (key.type, key.type_string) == (PemObjectType.PRIVATE_DSA_PKCS1, "DSA PRIVATE KEY")
    assert same_key(load_der_private_key(key.data, None), dsa_key())


def test_pem_dsa_public_key_parse() -> None:
    data = dsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (key,) = pem.parse(block("DSA PUBLIC KEY", data))
    assert key == PemObject(PemObjectType.PUBLIC_DSA_PKCS1, "DSA PUBLIC KEY", data)


def test_pem_cert_chain_comments_and_whitespace() -> None:
    first, second, third = (one.public_bytes(Encoding.PEM).decode() for one in chain())
    text = (
        "# -----Comment\n// Style\n/* from */\n''' multiple\n!* languages\n"
        + first.rstrip("\n")
        + "               \n            \n              \n\n    "
        + second.replace("\n", "  \n\t ")
        + "\n"
        + third.rstrip("\n")
    )
    assert pem.parse(text) == [certificate(der(one)) for one in chain()]


def test_pem_invalid_parse() -> None:
    text = chain()[0].public_bytes(Encoding.PEM).decode()
    last = text.count("\n")
    assert detail_of(text[1:]).startswith(f"line {last}: END CERTIFICATE without a BEGIN")


def with_surplus(text: bytes) -> tuple[bytes, int]:
    """The base64 of the last object, a character too long, and the number of that line."""
    before, end = text.rsplit(b"\n-----END", 1)
    return before + b"q\n-----END" + end, before.count(b"\n") + 1


def test_pem_valid_data_invalid_parse() -> None:
    broken, line = with_surplus(chain()[0].public_bytes(Encoding.PEM))
    assert detail_of(broken).startswith(f"line {line}: ")


def test_pem_invalid_in_chain_parse() -> None:
    broken, line = with_surplus(chain_pem())
    assert detail_of(broken).startswith(f"line {line}: ")


def test_der_cert_to_pem_typical() -> None:
    text = pem.der_cert_to_pem(der(chain()[0]))
    assert pem.parse(text) == [certificate(der(chain()[0]))]
    assert text.encode() == chain()[0].public_bytes(Encoding.PEM)
    assert text == ssl.DER_cert_to_PEM_cert(der(chain()[0]))


def test_der_cert_to_pem_small() -> None:
    small = bytes([0x30, 8, *range(1, 9)])
    text = pem.der_cert_to_pem(small)
    assert len(text.splitlines()) == 3
    assert pem.parse(text) == [certificate(small)]


def test_der_cert_to_pem_output_format() -> None:
    first, *body, last, rest = pem.der_cert_to_pem(b"\xab" * 96).split("\n")
    assert (first, last) == ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
    assert [len(line) for line in body] == [64, 64]
    assert rest == ""


def test_der_cert_to_pem_empty_input_fails() -> None:
    with pytest.raises(ValueError, match="no bytes"):
        pem.der_cert_to_pem(b"")


def test_pem_sanitize_comments_around_pem_object_removed() -> None:
    empty = b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
    dirty = b"# comments\r\n" + empty + b"# another comments\r\n" + empty + b"# final comments\r\n"
    assert pem.sanitize(dirty) == empty * 2


@pytest.mark.parametrize("dirty", [b"", "", b"\n\n"])
def test_pem_sanitize_empty_file_rejected(dirty: bytes | str) -> None:
    with pytest.raises(AwsIoError, match=r"line 1: .* no '-----BEGIN"):
        pem.sanitize(dirty)


def test_pem_sanitize_bad_format_rejected() -> None:
    with pytest.raises(AwsIoError, match="line 1: "):
        pem.sanitize(b"aaaaa-")


def test_pem_sanitize_wrong_format_rejected() -> None:
    with pytest.raises(AwsIoError, match="it may be DER"):
        pem.sanitize(der(chain()[0]))


# Every kind of object


@pytest.mark.parametrize("kind", [kind for kind in PemObjectType if kind.value])
def test_every_label_has_its_type(kind: PemObjectType) -> None:
    (found,) = pem.parse(block(kind.value, b"some data"))
    assert found == PemObject(kind, kind.value, b"some data")
    assert found.to_pem() == block(kind.value, b"some data")


def test_the_types_are_those_of_aws_c_io() -> None:
    assert len(PemObjectType) == 27


@pytest.mark.parametrize("label", ["SOMETHING ELSE", "certificate", "X", "A-B", "#1 {2} \\ ~"])
def test_other_labels_are_unknown(label: str) -> None:
    (found,) = pem.parse(block(label, b"data"))
    assert found == PemObject(PemObjectType.UNKNOWN, label, b"data")


def test_what_cryptography_writes_is_read_as_it_reads_it() -> None:
    keys: list[tuple[PrivateKeyTypes, PrivateFormat, PemObjectType]] = [
        (rsa_key(), PrivateFormat.TraditionalOpenSSL, PemObjectType.PRIVATE_RSA_PKCS1),
        (ec_key(), PrivateFormat.TraditionalOpenSSL, PemObjectType.EC_PRIVATE),
        (ec_key(), PrivateFormat.PKCS8, PemObjectType.PRIVATE_PKCS8),
        (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8, PemObjectType.PRIVATE_PKCS8),
    ]
    for key, form, kind in keys:
        (found,) = pem.parse(key.private_bytes(Encoding.PEM, form, NoEncryption()))
        assert found.type is kind
        assert found.data == key.private_bytes(Encoding.DER, form, NoEncryption())
        assert found.to_pem().encode() == key.private_bytes(Encoding.PEM, form, NoEncryption())


def test_other_things_that_cryptography_writes() -> None:
    public = rsa_key().public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "name")])
    now = datetime.datetime.now(datetime.UTC)
    request = x509.CertificateSigningRequestBuilder(name).sign(ec_key(), SHA256())
    revoked = x509.CertificateRevocationListBuilder(name, now, now + datetime.timedelta(1)).sign(
        ec_key(), SHA256()
    )
    password = BestAvailableEncryption(b"secret")
    encrypted = ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password)
    written = [
        (public.public_bytes(Encoding.PEM, PublicFormat.PKCS1), PemObjectType.PUBLIC_RSA_PKCS1),
        (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            PemObjectType.PUBLIC_KEY,
        ),
        (request.public_bytes(Encoding.PEM), PemObjectType.X509_REQ),
        (revoked.public_bytes(Encoding.PEM), PemObjectType.X509_CRL),
        (encrypted, PemObjectType.PRIVATE_PKCS8_ENCRYPTED),
        (serialize_certificates([chain()[0]], Encoding.PEM), PemObjectType.PKCS7),
    ]
    objects = pem.parse(b"\n".join(text for text, _ in written))
    assert [found.type for found in objects] == [kind for _, kind in written]
    assert objects[2].data == request.public_bytes(Encoding.DER)
    assert objects[3].data == revoked.public_bytes(Encoding.DER)
    assert same_key(load_der_private_key(objects[4].data, b"secret"), ec_key())


def test_what_openssl_writes_is_read(tmp_path: Path) -> None:
    def openssl(*args: str) -> bytes:
        return subprocess.run(
            ["openssl", *args], check=True, capture_output=True, timeout=30
        ).stdout

    key = tmp_path / "key.pem"
    both = openssl("ecparam", "-name", "prime256v1", "-genkey")
    key.write_bytes(both)
    parameters, private = pem.parse(both)
    assert parameters.type is PemObjectType.EC_PARAMETERS
    assert private.type is PemObjectType.EC_PRIVATE
    assert private.data == openssl("ec", "-in", str(key), "-outform", "DER")
    (public,) = pem.parse(openssl("ec", "-in", str(key), "-pubout"))
    assert public.data == openssl("ec", "-in", str(key), "-pubout", "-outform", "DER")
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(chain()[0].public_bytes(Encoding.PEM))
    (trusted,) = pem.parse(openssl("x509", "-in", str(leaf), "-trustout"))
    assert trusted.type is PemObjectType.X509_TRUSTED
    # With -text, a certificate is preceded by what it says in words.
    assert pem.parse(openssl("x509", "-in", str(leaf), "-text")) == [certificate(der(chain()[0]))]


def test_the_trust_store_of_the_system_is_read_as_by_openssl() -> None:
    store = ssl.get_default_verify_paths().cafile
    if store is None:
        pytest.skip("the system has no trust store in one file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(store)
    objects = pem.parse_file(store)
    assert {found.type for found in objects} <= {PemObjectType.X509, PemObjectType.X509_TRUSTED}
    ours = {found.data for found in objects if found.type is PemObjectType.X509}
    assert set(context.get_ca_certs(binary_form=True)) <= ours


# Layout


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r", b" \t\n", b"\n\n"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, bytes.decode])
def test_line_ends_and_kinds_of_text(ending: bytes, kind: type) -> None:
    text = chain_pem().replace(b"\n", ending)
    assert pem.parse(kind(text)) == [certificate(der(one)) for one in chain()]


@pytest.mark.parametrize("width", [1, 3, 64, 76, 10_000])
def test_lines_of_any_length(width: int) -> None:
    data = os.urandom(500)
    body = base64.b64encode(data).decode()
    lines = "\n".join(body[at : at + width] for at in range(0, len(body), width))
    text = f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----"
    assert pem.parse(text) == [certificate(data)]


def test_a_byte_order_mark_and_comments_in_any_encoding() -> None:
    one = chain()[0].public_bytes(Encoding.PEM)
    assert pem.parse(b"\xef\xbb\xbf" + one) == [certificate(der(chain()[0]))]
    assert pem.parse(b"\xff\xfe caf\xe9\n" + one) == [certificate(der(chain()[0]))]
    assert pem.parse("caf\N{LATIN SMALL LETTER E WITH ACUTE} \udcff\n" + one.decode())


def test_sanitized_text_is_what_the_ssl_module_takes() -> None:
    dirty = "# caf\N{LATIN SMALL LETTER E WITH ACUTE}\n" + chain_pem().decode().replace(
        "\n", " \r\n "
    )
    clean = pem.sanitize(dirty)
    assert clean == chain_pem()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=clean.decode("ascii"))
    assert der(chain()[-1]) in context.get_ca_certs(binary_form=True)


def test_the_bytes_of_a_key_are_not_shown() -> None:
    (key,) = pem.parse(pkcs1(Encoding.PEM))
    assert "RSA PRIVATE KEY" in repr(key)
    assert repr(key.data)[:20] not in repr(key)
