"""Protocol versions and cipher policies: aws-c-io's names, and what they are in OpenSSL.

Theory of operation. aws-c-io names a security policy of s2n-tls, which fixes versions, cipher
suites, groups for the key exchange and signature algorithms. Python's `ssl` sets less: the lowest
version, the suites of TLS 1.2 and below, and one elliptic curve or OpenSSL's own list of groups.
So a policy here is, from the exact to the approximate:

- TLS 1.2 and below: the policy's suites, in its order, and no others.
- TLS 1.3: OpenSSL's three suites, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256 and
  TLS_AES_128_GCM_SHA256, in this order. Those are also the policies' suites, in another order;
  only TLSV1_2_2025_07 would leave ChaCha20 out, which is agreed on with nobody but a peer that
  offers nothing else, as both sides prefer AES.
- Groups: a policy that wants less than OpenSSL's list gets P-256 alone, its own first choice. That
  costs it TLS 1.2 peers whose certificate has a key on another curve; with TLS 1.3 it costs none.
- Signatures: OpenSSL's security level, 2 as Python sets it: RSA from 2048 bits, no SHA-1.
- Post-quantum key exchange is in OpenSSL's own list of groups, and first in it, from 3.5 on.

In aws-c-io a cipher preference sets the lowest version too, even below one that was asked for. Here
it may only raise it: below TLS 1.2 is where nobody gets without naming the version.

Sources: aws-c-io, `tls_channel_handler.h` and `s2n/s2n_tls_channel_handler.c`; s2n-tls,
`s2n_security_policies.c`.
"""

import enum
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from . import errors
from .errors import ErrorCode


class TlsMinimumVersion(enum.Enum):
    """The lowest protocol version to agree on; the values are aws-c-io's."""

    SSLv3 = 0
    """Broken (RFC 7568); almost no OpenSSL has it any more."""
    TLSv1 = 1
    """Deprecated (RFC 8996), as TLSv1_1 is, and Python warns of both. They need signatures by
    SHA-1, so that the context's OpenSSL security level is 0, with which weak keys pass as well."""
    TLSv1_1 = 2
    """Deprecated; see TLSv1."""
    TLSv1_2 = 3
    TLSv1_3 = 4
    SYSTEM_DEFAULT = 128
    """What Python and OpenSSL's configuration say, and at least TLS 1.2."""


class TlsCipherPreference(enum.Enum):
    """A named policy for cipher suites and key exchange; names and values are aws-c-io's.

    `is_cipher_pref_supported` says which of them work here; the head of this module, how exactly.
    """

    SYSTEM_DEFAULT = 0
    """Of Python's suites those with forward secrecy that do without SHA-1, for servers also without
    CBC, as in Mozilla's intermediate profile; and OpenSSL's groups. Together with a minimum version
    below TLS 1.2, the suites of TLSV1_0_2023_06, as Python's have none for those versions."""
    KMS_PQ_TLSv1_0_2019_06 = 1
    """Withdrawn, as all up to 6: draft algorithms that OpenSSL never had. Not supported."""
    KMS_PQ_SIKE_TLSv1_0_2019_11 = 2
    """Withdrawn; not supported."""
    KMS_PQ_TLSv1_0_2020_02 = 3
    """Withdrawn; not supported."""
    KMS_PQ_SIKE_TLSv1_0_2020_02 = 4
    """Withdrawn; not supported."""
    KMS_PQ_TLSv1_0_2020_07 = 5
    """Withdrawn; not supported."""
    PQ_TLSv1_0_2021_05 = 6
    """Withdrawn; not supported."""
    PQ_TLSV1_2_2024_10 = 7
    """The suites of TLSV1_0_2023_06 from TLS 1.2 on, with ML-KEM beside ECDHE in TLS 1.3. Needs
    OpenSSL 3.5."""
    PQ_DEFAULT = 8
    """The recommended policy with post-quantum key exchange: today as PQ_TLSV1_2_2024_10."""
    TLSV1_2_2025_07 = 9
    """ECDHE with AES-GCM only, from TLS 1.2 on, on P-256 (s2n's has P-384 as well)."""
    TLSV1_0_2023_06 = 10
    """AES and ChaCha20 by ECDHE, then AES by RSA; in GCM before CBC, with SHA-2 before SHA-1. No
    post-quantum key exchange. aws-c-io begins at TLS 1.0: here, set that as minimum version."""
    NON_PQ_DEFAULT = 11
    """The recommended policy without post-quantum key exchange: today as TLSV1_0_2023_06."""


_ECDHE_AES_GCM = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
)
_BROAD = (
    f"{_ECDHE_AES_GCM}:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:"
    "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:"
    "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:"
    "ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA:"
    "AES128-GCM-SHA256:AES256-GCM-SHA384:"
    "AES128-SHA256:AES256-SHA256:AES128-SHA:AES256-SHA"
)

_EPHEMERAL = ("kx-ecdhe", "kx-dhe")
"""Key exchanges with forward secrecy, as OpenSSL calls them."""

_P256 = "prime256v1"
_OPENSSL_WITH_ML_KEM = (3, 5)


class _Groups(enum.Enum):
    """What a policy wants of the key exchange."""

    OPENSSL = enum.auto()
    """OpenSSL's own list, whatever is in it."""
    P256 = enum.auto()
    CLASSICAL = enum.auto()
    """OpenSSL's own list unless that has post-quantum groups; then P-256."""
    HYBRID = enum.auto()
    """OpenSSL's own list, which must have post-quantum groups."""


@dataclass(frozen=True)
class _Policy:
    ciphers: str | None
    """For TLS 1.2 and below, in OpenSSL's language; None for Python's."""
    groups: _Groups
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.MINIMUM_SUPPORTED


_TLS_1_2 = ssl.TLSVersion.TLSv1_2

_POLICIES: Mapping[TlsCipherPreference, _Policy] = {
    TlsCipherPreference.SYSTEM_DEFAULT: _Policy(None, _Groups.OPENSSL),
    TlsCipherPreference.PQ_TLSV1_2_2024_10: _Policy(_BROAD, _Groups.HYBRID, _TLS_1_2),
    TlsCipherPreference.PQ_DEFAULT: _Policy(_BROAD, _Groups.HYBRID, _TLS_1_2),
    TlsCipherPreference.TLSV1_2_2025_07: _Policy(_ECDHE_AES_GCM, _Groups.P256, _TLS_1_2),
    TlsCipherPreference.TLSV1_0_2023_06: _Policy(_BROAD, _Groups.CLASSICAL),
    TlsCipherPreference.NON_PQ_DEFAULT: _Policy(_BROAD, _Groups.CLASSICAL),
}


def is_cipher_pref_supported(preference: TlsCipherPreference) -> bool:
    """Whether `set_tls_cipher_preference` takes this policy with the OpenSSL at hand. Any thread.

    Source: aws-c-io, `aws_tls_is_cipher_pref_supported`.
    """
    return _why_unsupported(preference) is None


def check_cipher_preference(preference: TlsCipherPreference) -> None:
    """Raise IO_TLS_CIPHER_PREF_UNSUPPORTED, which says why, for a policy that does not work here.

    Raises TypeError for what is not a policy.
    """
    if not isinstance(preference, TlsCipherPreference):
        raise TypeError(f"expected a TlsCipherPreference, got {preference!r}")
    if reason := _why_unsupported(preference):
        raise errors.make(ErrorCode.IO_TLS_CIPHER_PREF_UNSUPPORTED, f"{preference.name} {reason}")


def check_minimum_version(version: TlsMinimumVersion) -> None:
    """Raise IO_TLS_VERSION_UNSUPPORTED for a version that OpenSSL was built without.

    Raises TypeError for what is not a version.
    """
    if not isinstance(version, TlsMinimumVersion):
        raise TypeError(f"expected a TlsMinimumVersion, got {version!r}")
    if version is not TlsMinimumVersion.SYSTEM_DEFAULT and not getattr(ssl, f"HAS_{version.name}"):
        raise errors.make(
            ErrorCode.IO_TLS_VERSION_UNSUPPORTED,
            f"{ssl.OPENSSL_VERSION} was built without {version.name}",
        )


def configure(
    context: ssl.SSLContext, minimum: TlsMinimumVersion, preference: TlsCipherPreference
) -> None:
    """Set versions, suites and groups of a new context; both arguments have been checked.

    Python warns (DeprecationWarning) of a minimum below TLS 1.2.
    """
    policy = _POLICIES[preference]
    if minimum is TlsMinimumVersion.SYSTEM_DEFAULT:
        lowest = max(context.minimum_version, _TLS_1_2)
    else:
        lowest = ssl.TLSVersion[minimum.name]
    lowest = max(lowest, policy.minimum_version)
    context.minimum_version = lowest
    if lowest < _TLS_1_2:
        context.set_ciphers(f"@SECLEVEL=0:{policy.ciphers or _BROAD}")
    elif policy.ciphers is not None:
        context.set_ciphers(policy.ciphers)
    else:
        _keep_suites_of_the_profile(context)
    if policy.groups is _Groups.P256 or (policy.groups is _Groups.CLASSICAL and _has_ml_kem()):
        context.set_ecdh_curve(_P256)


def _keep_suites_of_the_profile(context: ssl.SSLContext) -> None:
    """Leave out what Mozilla's intermediate profile does: no forward secrecy, SHA-1, CBC.

    A client keeps CBC with SHA-2, as old servers have nothing better. Python's own list is like
    that, but distributions build Python with OpenSSL's.
    """
    server_side = context.protocol is ssl.PROTOCOL_TLS_SERVER
    suites = [suite for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"]
    kept = [
        suite["name"]
        for suite in suites
        if suite["kea"] in _EPHEMERAL
        and (suite["aead"] or not (server_side or suite["digest"] == "sha1"))
    ]
    if len(kept) < len(suites):
        context.set_ciphers(":".join(kept))


def _has_ml_kem() -> bool:
    return ssl.OPENSSL_VERSION_INFO >= _OPENSSL_WITH_ML_KEM


def _why_unsupported(preference: TlsCipherPreference) -> str | None:
    policy = _POLICIES.get(preference)
    if policy is None:
        return "is withdrawn: OpenSSL has none of its post-quantum drafts"
    if policy.groups is _Groups.HYBRID and not _has_ml_kem():
        return f"needs ML-KEM, which OpenSSL has from 3.5 on; this is {ssl.OPENSSL_VERSION}"
    return None
