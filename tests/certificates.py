"""Certificates that trustme would not make, and what authorities revoke."""

import datetime
from collections.abc import Sequence

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

Identity = tuple[bytes, bytes]
"""Certificate chain and private key, as `client_mtls` and `default_server` take them."""

FOR_CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
FOR_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

DAY = datetime.timedelta(days=1)

EXPIRED = (-3.0, -1.0)
TODAY = (-1.0, 1.0)
TOMORROW = (1.0, 3.0)
"""When a certificate begins and ends to be valid, in days from now."""


def identity(leaf: trustme.LeafCert) -> Identity:
    """What trustme has made."""
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()


def loaded(leaf: trustme.LeafCert) -> x509.Certificate:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())


def authority(ca: trustme.CA) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The authority's own certificate, and the key that it signs with."""
    key = load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(ca.cert_pem.bytes()), key


def issue(
    ca: trustme.CA | None,
    *names: str,
    common_name: str = "",
    organization: str = "",
    key: Key | None = None,
    hash: hashes.HashAlgorithm | None = None,
    valid: tuple[float, float] = TODAY,
    extensions: Sequence[x509.ExtensionType] = (),
) -> Identity:
    """A certificate of the authority, or signed by itself, for host names; by default with an EC
    key, SHA-256, and an empty subject."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    parts = {NameOID.ORGANIZATION_NAME: organization, NameOID.COMMON_NAME: common_name}
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in parts.items() if text])
    issuer, issuer_key = authority(ca) if ca else (None, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + DAY * valid[0])
        .not_valid_after(now + DAY * valid[1])
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=not subject.rdns)
    issuer_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    for extension in (issuer_identifier, *extensions):
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(issuer_key, hash or hashes.SHA256())  # type: ignore[arg-type] # those that signatures are made with
    return certificate.public_bytes(Encoding.PEM), key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def revocation_list(
    ca: trustme.CA, *revoked: trustme.LeafCert, issued_days_ago: float = 1
) -> x509.CertificateRevocationList:
    """A list of `ca`'s, good for two days from when it was issued."""
    issuer, key = authority(ca)
    issued = datetime.datetime.now(datetime.UTC) - DAY * issued_days_ago
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(issued)
        .next_update(issued + DAY * 2)
    )
    for leaf in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(loaded(leaf).serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(issued).build())
    return builder.sign(key, hashes.SHA256())
