"""Certificates that nobody should accept, and what OpenSSL says of each.

All are of one authority, which the client trusts, unless that is what is wrong with them.
"""

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from aws_io_async.errors import ErrorCode
from tests.certificates import DAY, EXPIRED, FOR_CLIENTS, TODAY, TOMORROW, Identity, Key
from tests.tls_peers import HOST

ADDRESS = "127.0.0.1"

Extensions = Sequence[tuple[x509.ExtensionType, bool]]
"""Each critical or not."""


@dataclass(frozen=True)
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key
    sent: tuple[bytes, ...] = ()
    """What a server sends along: in PEM, the certificate and those that issued it, not the root."""

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def identity(self) -> Identity:
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return b"".join(self.sent), key


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def certify(
    issuer: Signed | None,
    names: Sequence[x509.GeneralName] = (),
    *,
    subject: str = "somebody",
    key: Key | None = None,
    valid: tuple[float, float] = TODAY,
    extensions: Extensions = (),
) -> Signed:
    """A certificate with no extensions but these; without an issuer, signed by its own key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + DAY * valid[0])
        .not_valid_after(now + DAY * valid[1])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signed = Signed(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)
    return replace(signed, sent=(signed.pem, *(issuer.sent if issuer else ())))


def usage(*names: str) -> tuple[x509.KeyUsage, bool]:
    """That a key is for these, and for nothing else."""
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every}), True


CAN_SIGN = usage("key_cert_sign", "crl_sign")


def an_authority(
    issuer: Signed | None,
    subject: str,
    *extensions: tuple[x509.ExtensionType, bool],
    ca: bool = True,
    path_length: int | None = None,
    key: Key | None = None,
    uses: tuple[x509.KeyUsage, bool] = CAN_SIGN,
) -> Signed:
    """One that may issue certificates, as far as the arguments let it."""
    basic = x509.BasicConstraints(ca, path_length)
    signed = certify(
        issuer, subject=subject, key=key, extensions=[(basic, True), uses, *extensions]
    )
    return signed if issuer else replace(signed, sent=())


@cache
def root() -> Signed:
    """The authority that clients trust."""
    return an_authority(None, "root")


@cache
def rsa_root() -> Signed:
    """Another that they trust, for signatures that are weak."""
    return an_authority(None, "RSA root", key=rsa_key(2048))


TRUSTED = (root, rsa_root)


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


def leaf(*names: str, issuer: Signed | None = None) -> Signed:
    return certify(issuer or root(), dns(*names or (HOST,)))


def weakly_signed(hash: hashes.HashAlgorithm, oid: int) -> Signed:
    """Signed by RSA with that hash, whose object identifier ends in this number (RFC 8017, C).

    No builder does that any more: what is signed is put together by hand.
    """
    issuer = rsa_root()
    good = certify(issuer, dns(HOST))
    rsa_with_sha256 = bytes.fromhex("06092a864886f70d01010b")
    weak = rsa_with_sha256[:-1] + bytes([oid])
    body = good.certificate.tbs_certificate_bytes.replace(rsa_with_sha256, weak)
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    signature = issuer.key.sign(body, padding.PKCS1v15(), hash)
    der = good.certificate.public_bytes(Encoding.DER)
    der = der.replace(rsa_with_sha256, weak).replace(good.certificate.signature, signature)
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.tbs_certificate_bytes == body
    return replace(good, certificate=certificate, sent=(certificate.public_bytes(Encoding.PEM),))


def altered() -> Signed:
    """Another name has been written over the one that was signed."""
    good = leaf(HOST.replace("peer", "evil"))
    der = good.certificate.public_bytes(Encoding.DER).replace(b"evil.", b"peer.")
    return replace(good, sent=(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM),))


def beyond_its_path_length() -> Signed:
    last_but_one = an_authority(root(), "no authorities below me", path_length=0)
    return leaf(issuer=an_authority(last_but_one, "an authority all the same"))


def constrained(*, permitted: str | None = None, excluded: str | None = None) -> Signed:
    """Of an authority that is for some names only."""
    trees = [None if name is None else dns(name) for name in (permitted, excluded)]
    return leaf(issuer=an_authority(root(), "constrained", (x509.NameConstraints(*trees), True)))


def of_an_authority_that(**has: object) -> Signed:
    return leaf(issuer=an_authority(root(), "not quite", **has))  # type: ignore[arg-type] # an_authority's own


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")


@dataclass(frozen=True)
class Bad:
    """A row of the table: what a server presents, whom it is taken for, and the verdict."""

    make: Callable[[], Signed]
    verify_code: int
    """OpenSSL's (x509_vfy.h)."""
    code: ErrorCode = ErrorCode.IO_TLS_BAD_CERTIFICATE
    name: str = HOST


_MISMATCH = ErrorCode.IO_TLS_HOST_NAME_MISMATCH
_UNKNOWN_ROOT = ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE


def misnamed(*names: str, name: str = HOST) -> Bad:
    """One for these names, where another one is looked for."""
    return Bad(lambda: leaf(*names), 62, _MISMATCH, name)


TABLE: dict[str, Bad] = {
    # Times
    "expired": Bad(
        lambda: certify(root(), dns(HOST), valid=EXPIRED), 10, ErrorCode.IO_TLS_CERTIFICATE_EXPIRED
    ),
    "not yet valid": Bad(
        lambda: certify(root(), dns(HOST), valid=TOMORROW),
        9,
        ErrorCode.IO_TLS_CERTIFICATE_NOT_YET_VALID,
    ),
    # Authorities
    "self-signed": Bad(lambda: certify(None, dns(HOST)), 18, _UNKNOWN_ROOT),
    "of an unknown authority": Bad(
        lambda: leaf(issuer=an_authority(None, "a stranger")), 20, _UNKNOWN_ROOT
    ),
    "of one that only has the root's name": Bad(lambda: leaf(issuer=an_authority(None, "root")), 7),
    "its authority is none": Bad(lambda: of_an_authority_that(ca=False), 79),
    "its authority may sign no certificates": Bad(
        lambda: of_an_authority_that(uses=usage("digital_signature")), 79
    ),
    "its authority has too small a key": Bad(lambda: of_an_authority_that(key=rsa_key(1024)), 67),
    "its authority is too far down": Bad(
        beyond_its_path_length, 25, ErrorCode.IO_TLS_INVALID_CERTIFICATE_CHAIN
    ),
    "not among the permitted names": Bad(lambda: constrained(permitted="other.example"), 47),
    "among the excluded names": Bad(lambda: constrained(excluded=HOST), 48),
    # Names
    "of another host": misnamed("other.example"),
    "of a name that begins with the host's": misnamed(f"{HOST}.evil.example"),
    "of a name that ends with the host's": misnamed(f"evil-{HOST}"),
    "a wildcard for a top-level domain": misnamed("*.example"),
    "a wildcard for everything": misnamed("*"),
    "a wildcard, two levels up": misnamed(f"*.{HOST}", name=f"a.b.{HOST}"),
    "a wildcard for the domain itself": misnamed(f"*.{HOST}"),
    "a wildcard for part of a label": misnamed(f"w*.{HOST}", name=f"www.{HOST}"),
    "a wildcard not at the left": misnamed("www.*.example", name=f"www.{HOST}"),
    "two wildcards": misnamed("*.*.example", name=f"www.{HOST}"),
    "a NUL in the name": misnamed(f"{HOST}\0.evil.example"),
    "a common name alone": Bad(lambda: certify(root(), subject=HOST), 62, _MISMATCH),
    "the name in a URI alone": Bad(
        lambda: certify(root(), [x509.UniformResourceIdentifier(f"https://{HOST}")]), 62, _MISMATCH
    ),
    "an address as common name": Bad(
        lambda: certify(root(), subject=ADDRESS), 64, _MISMATCH, ADDRESS
    ),
    "an address as host name": Bad(lambda: leaf(ADDRESS), 64, _MISMATCH, ADDRESS),
    "another address": Bad(
        lambda: certify(root(), [x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]),
        64,
        _MISMATCH,
        ADDRESS,
    ),
    # Purposes
    "for clients": Bad(lambda: certify(root(), dns(HOST), extensions=[(FOR_CLIENTS, False)]), 26),
    "its key is for signing certificates": Bad(
        lambda: certify(root(), dns(HOST), extensions=[CAN_SIGN]), 26
    ),
    "a critical extension that nobody knows": Bad(
        lambda: certify(root(), dns(HOST), extensions=[(UNKNOWN, True)]), 34
    ),
    # Keys and signatures
    "too small a key": Bad(lambda: certify(root(), dns(HOST), key=rsa_key(1024)), 66),
    "signed with MD5": Bad(lambda: weakly_signed(hashes.MD5(), 4), 68),
    "signed with SHA-1": Bad(lambda: weakly_signed(hashes.SHA1(), 5), 68),
    "altered": Bad(altered, 7),
}
