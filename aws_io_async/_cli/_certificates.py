"""What a peer's certificates say, read by OpenSSL itself, whether they are trusted or not.

Python's `ssl` shows the contents of certificates that were verified. The connection object beneath
it shows all that the peer has sent, on every Python from 3.10 on; that has no public name before
3.13, and for the contents none at all. Where it is missing, no certificate is shown.
"""

import hashlib
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

DER = 2
"""OpenSSL's binary form, as `_ssl` numbers it."""

DAY = 86400.0


@dataclass(frozen=True)
class Certificate:
    """One certificate of a chain."""

    subject: str
    issuer: str
    names: list[str]
    """Those of the subject's alternative names that are hosts or addresses."""
    not_before: str
    not_after: str
    """In ISO 8601, UTC."""
    serial: str
    sha256: str
    key: str | None
    """Kind and size; None if the package `cryptography` is not there to tell."""
    days_left: float
    """Negative if it has expired."""
    validity: str
    """"valid", "expired" or "not yet valid", by this machine's clock."""

    def document(self) -> dict[str, Any]:
        """In types that JSON has."""
        return asdict(self)


def chain_of(connection: ssl.SSLObject) -> list[Certificate]:
    """What the peer has sent, its own certificate first."""
    inner: Any = getattr(connection, "_sslobj", None)
    get_chain = getattr(inner, "get_unverified_chain", None)
    now = datetime.now(UTC).timestamp()
    chain = get_chain() if get_chain is not None else None
    return [_read(each.get_info(), each.public_bytes(DER), now) for each in chain or ()]


def _read(info: dict[str, Any], der: bytes, now: float) -> Certificate:
    begin, end = (ssl.cert_time_to_seconds(info[name]) for name in ("notBefore", "notAfter"))
    return Certificate(
        subject=_name(info.get("subject", ())),
        issuer=_name(info.get("issuer", ())),
        names=[*_hosts(info.get("subjectAltName", ()))],
        not_before=_iso(begin),
        not_after=_iso(end),
        serial=info.get("serialNumber", ""),
        sha256=hashlib.sha256(der).hexdigest(),
        key=_key(der),
        days_left=(end - now) / DAY,
        validity="expired" if now > end else "not yet valid" if now < begin else "valid",
    )


def _hosts(alternatives: Any) -> Iterator[str]:
    for kind, text in alternatives:
        if kind == "DNS":
            yield text
        elif kind == "IP Address":  # OpenSSL writes IPv6 in full
            yield f"{ipaddress.ip_address(text.strip())}"


_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
}


def _name(parts: Any) -> str:
    """A distinguished name as people write it: CN=example.org, O=Example."""
    pairs = [pair for part in parts for pair in part]
    return ", ".join(f"{_SHORT.get(kind, kind)}={text}" for kind, text in reversed(pairs))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(der: bytes) -> str | None:
    try:
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
    except ImportError:
        return None
    try:
        key: Any = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    kind = type(key).__name__.lstrip("_").removesuffix("PublicKey").replace("EllipticCurve", "EC")
    return f"{kind} {key.key_size}" if hasattr(key, "key_size") else kind
