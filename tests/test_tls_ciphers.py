"""Protocol versions and cipher policies, by what peers agree on."""

import re
import ssl
from typing import Any

import pytest
import trustme

from aws_io_async import _tls_ciphers, errors
from aws_io_async._tls_engine import TlsEngine
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_context import (
    TlsCipherPreference,
    TlsContext,
    TlsContextOptions,
    TlsMinimumVersion,
    is_cipher_pref_supported,
)
from tests.certificates import identity
from tests.tls_messages import ClientHello
from tests.tls_peers import HOST, handshake, trusting

TLS10, TLS11 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

HYBRID = [TlsCipherPreference.PQ_DEFAULT, TlsCipherPreference.PQ_TLSV1_2_2024_10]
CLASSICAL = [TlsCipherPreference.NON_PQ_DEFAULT, TlsCipherPreference.TLSV1_0_2023_06]
WITHDRAWN = [preference for preference in TlsCipherPreference if 1 <= preference.value <= 6]

ANCIENT = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")


def client(
    ca: trustme.CA,
    minimum: TlsMinimumVersion | None = None,
    preference: TlsCipherPreference | None = None,
) -> TlsContext:
    options = trusting(ca)
    if minimum is not None:
        options.set_minimum_tls_version(minimum)
    if preference is not None:
        options.set_tls_cipher_preference(preference)
    return TlsContext.client(options)


def server(
    ca: trustme.CA, version: ssl.TLSVersion | None = None, ciphers: str | None = None
) -> TlsContext:
    """One that agrees on `version` alone, and on `ciphers` below TLS 1.3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST, key_type=trustme.KeyType.RSA).configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return TlsContext.from_ssl_context(context, server_side=True)


def agreed(client: TlsContext, server: TlsContext) -> str | None:
    """The protocol version that the two agree on, if any."""
    try:
        return handshake(client, server)[0].version
    except ssl.SSLError:
        return None


def suites(context: TlsContext) -> list[str]:
    """Those below TLS 1.3, in their order."""
    ciphers = context.ssl_context.get_ciphers()
    return [cipher["name"] for cipher in ciphers if not cipher["name"].startswith("TLS_")]


def offered_groups(context: TlsContext) -> list[int]:
    """The numbers of the groups in a client's first message."""
    engine = TlsEngine(context.ssl_context, server_side=False, server_hostname=HOST)
    engine.handshake()
    return ClientHello.parse(engine.data_to_send()).groups


P256 = 23


# Versions


def test_tls_1_2_is_the_least_by_default(ca: trustme.CA) -> None:
    for context in (client(ca), client(ca, TlsMinimumVersion.SYSTEM_DEFAULT)):
        assert agreed(context, server(ca)) == "TLSv1.3"
        assert agreed(context, server(ca, TLS12)) == "TLSv1.2"
        assert context.ssl_context.minimum_version is TLS12


def test_a_stricter_system_stays_strict() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = TLS13
    _tls_ciphers.configure(
        context, TlsMinimumVersion.SYSTEM_DEFAULT, TlsCipherPreference.SYSTEM_DEFAULT
    )
    assert context.minimum_version is TLS13
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    _tls_ciphers.configure(
        context, TlsMinimumVersion.SYSTEM_DEFAULT, TlsCipherPreference.SYSTEM_DEFAULT
    )
    assert context.minimum_version is TLS12


@pytest.mark.parametrize("protocol", [ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER])
def test_a_python_with_the_suites_of_openssl_itself(protocol: int) -> None:
    """That is how distributions build it, RSA key exchange, SHA-1 and pre-shared keys included."""
    context = ssl.SSLContext(protocol)
    context.set_ciphers("DEFAULT")
    before = {each["name"] for each in context.get_ciphers()}
    assert {"AES128-SHA", "ECDHE-RSA-AES128-SHA"} <= before
    _tls_ciphers.configure(
        context, TlsMinimumVersion.SYSTEM_DEFAULT, TlsCipherPreference.SYSTEM_DEFAULT
    )
    old = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    modern = "(ECDHE|DHE)-(ECDSA|RSA)-(AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305)"
    if protocol is ssl.PROTOCOL_TLS_CLIENT:
        modern += "|(ECDHE|DHE)-(ECDSA|RSA)-AES(128|256)-SHA(256|384)"
    assert all(re.fullmatch(modern, name) for name in old), old
    assert "ECDHE-RSA-AES128-GCM-SHA256" in old


def test_tls_1_3_can_be_the_least(ca: trustme.CA) -> None:
    context = client(ca, TlsMinimumVersion.TLSv1_3)
    assert agreed(context, server(ca, TLS13)) == "TLSv1.3"
    assert agreed(context, server(ca, TLS12)) is None


@ANCIENT
@pytest.mark.skipif(not (ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1), reason="this OpenSSL is modern")
def test_older_versions_are_agreed_on_only_if_asked_for(ca: trustme.CA) -> None:
    old, older = (server(ca, version, "ALL:@SECLEVEL=0") for version in (TLS11, TLS10))
    assert agreed(client(ca), old) is None
    assert agreed(client(ca, TlsMinimumVersion.TLSv1_1), old) == "TLSv1.1"
    assert agreed(client(ca, TlsMinimumVersion.TLSv1_1), older) is None
    assert agreed(client(ca, TlsMinimumVersion.TLSv1), older) == "TLSv1"
    assert agreed(client(ca, TlsMinimumVersion.TLSv1), server(ca)) == "TLSv1.3"


def test_python_warns_of_older_versions(ca: trustme.CA) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        client(ca, TlsMinimumVersion.TLSv1)


@pytest.mark.parametrize("version", [v for v in TlsMinimumVersion if v.name.startswith("TLS")])
def test_a_version_that_openssl_lacks_is_refused(
    version: TlsMinimumVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TlsContextOptions.default_client()
    monkeypatch.setattr(ssl, f"HAS_{version.name}", False)
    with pytest.raises(errors.TlsContextError, match=version.name) as caught:
        options.set_minimum_tls_version(version)
    assert caught.value.code is ErrorCode.IO_TLS_VERSION_UNSUPPORTED


@pytest.mark.skipif(ssl.HAS_SSLv3, reason="this OpenSSL is ancient")
def test_ssl_3_is_refused() -> None:
    with pytest.raises(errors.TlsContextError, match="built without SSLv3") as caught:
        TlsContextOptions.default_client().set_minimum_tls_version(TlsMinimumVersion.SSLv3)
    assert caught.value.code is ErrorCode.IO_TLS_VERSION_UNSUPPORTED


# Policies


def test_tls_cipher_preference(ca: trustme.CA) -> None:
    assert is_cipher_pref_supported(TlsCipherPreference.TLSV1_2_2025_07)
    context = client(ca, preference=TlsCipherPreference.TLSV1_2_2025_07)
    assert suites(context) == [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ]
    assert offered_groups(context) == [P256]
    assert agreed(context, server(ca, TLS13)) == "TLSv1.3"
    assert agreed(context, server(ca, TLS12)) == "TLSv1.2"
    assert agreed(context, server(ca, TLS12, "ECDHE-RSA-CHACHA20-POLY1305")) is None
    assert agreed(context, server(ca, TLS12, "AES128-GCM-SHA256")) is None


@pytest.mark.parametrize("preference", CLASSICAL)
def test_the_broad_policies(ca: trustme.CA, preference: TlsCipherPreference) -> None:
    assert is_cipher_pref_supported(preference)
    context = client(ca, preference=preference)
    names = suites(context)
    assert len(names) == 20
    assert names[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert names[-1] == "AES256-SHA"
    assert not any("DHE-" in name and "ECDHE-" not in name for name in names)
    assert agreed(context, server(ca, TLS12, "ECDHE-RSA-AES128-SHA256")) == "TLSv1.2"
    assert agreed(context, server(ca, TLS12, "AES128-SHA")) == "TLSv1.2"
    assert agreed(context, server(ca, TLS12, "DHE-RSA-AES128-GCM-SHA256")) is None


def test_a_servers_policy_counts_as_well(ca: trustme.CA) -> None:
    leaf = ca.issue_cert(HOST, key_type=trustme.KeyType.RSA)
    options = TlsContextOptions.default_server(*identity(leaf))
    options.set_tls_cipher_preference(TlsCipherPreference.TLSV1_2_2025_07)
    strict = TlsContext(options)
    old = ssl.create_default_context()
    ca.configure_trust(old)
    old.maximum_version = TLS12
    assert agreed(TlsContext.from_ssl_context(old), strict) == "TLSv1.2"
    old.set_ciphers("ECDHE-RSA-CHACHA20-POLY1305")
    assert agreed(TlsContext.from_ssl_context(old), strict) is None


@ANCIENT
@pytest.mark.skipif(not ssl.HAS_TLSv1, reason="this OpenSSL is modern")
def test_a_policy_raises_the_minimum_version_but_never_lowers_it(ca: trustme.CA) -> None:
    old = server(ca, TLS10, "ALL:@SECLEVEL=0")
    broad, strict = TlsCipherPreference.TLSV1_0_2023_06, TlsCipherPreference.TLSV1_2_2025_07
    assert agreed(client(ca, preference=broad), old) is None
    assert agreed(client(ca, TlsMinimumVersion.TLSv1, broad), old) == "TLSv1"
    assert agreed(client(ca, TlsMinimumVersion.TLSv1, strict), old) is None
    assert agreed(client(ca, TlsMinimumVersion.TLSv1_3, broad), server(ca, TLS12)) is None
    assert client(ca, TlsMinimumVersion.TLSv1, strict).ssl_context.security_level > 0


@pytest.mark.parametrize("preference", WITHDRAWN)
def test_withdrawn_policies_are_refused(preference: TlsCipherPreference) -> None:
    assert not is_cipher_pref_supported(preference)
    with pytest.raises(errors.TlsContextError, match=f"{preference.name} is withdrawn") as caught:
        TlsContextOptions.default_client().set_tls_cipher_preference(preference)
    assert caught.value.code is ErrorCode.IO_TLS_CIPHER_PREF_UNSUPPORTED


@pytest.mark.parametrize("preference", HYBRID)
def test_post_quantum_policies_need_openssl_3_5(
    preference: TlsCipherPreference, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TlsContextOptions.default_client()
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 4, 0, 0, 0))
    assert not is_cipher_pref_supported(preference)
    with pytest.raises(errors.TlsContextError, match=r"ML-KEM.* 3\.5") as caught:
        options.set_tls_cipher_preference(preference)
    assert caught.value.code is ErrorCode.IO_TLS_CIPHER_PREF_UNSUPPORTED
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 5, 0, 0, 0))
    assert is_cipher_pref_supported(preference)
    options.set_tls_cipher_preference(preference)


@pytest.mark.skipif(ssl.OPENSSL_VERSION_INFO < (3, 5), reason="this OpenSSL has no ML-KEM")
@pytest.mark.parametrize("preference", [*HYBRID, TlsCipherPreference.SYSTEM_DEFAULT])
def test_post_quantum_groups_are_offered(ca: trustme.CA, preference: TlsCipherPreference) -> None:
    x25519_ml_kem_768 = 0x11EC
    assert x25519_ml_kem_768 in offered_groups(client(ca, preference=preference))


@pytest.mark.parametrize("preference", CLASSICAL)
def test_classical_policies_offer_no_post_quantum_groups(
    ca: trustme.CA, preference: TlsCipherPreference, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = offered_groups(client(ca, preference=preference))
    assert P256 in groups
    assert max(groups) < 0x200  # elliptic curves and finite fields only
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 5, 0, 0, 0))
    assert offered_groups(client(ca, preference=preference)) == [P256]


@pytest.mark.parametrize("wrong", [None, 9, "TLSV1_2_2025_07", TlsMinimumVersion.TLSv1_2])
def test_preferences_are_of_their_enum(wrong: Any) -> None:
    with pytest.raises(TypeError, match="TlsCipherPreference"):
        TlsContextOptions.default_client().set_tls_cipher_preference(wrong)
    if not isinstance(wrong, TlsMinimumVersion):
        with pytest.raises(TypeError, match="TlsMinimumVersion"):
            TlsContextOptions.default_client().set_minimum_tls_version(wrong)
