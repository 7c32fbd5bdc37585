"""PEM, DER and PKCS#12 with damage: to the parser, and to those who build TLS contexts of them.

The seeds are real certificates, keys and lists, made anew for each run: no private key is kept.
"""

from collections.abc import Callable
from functools import cache, partial

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from aws_io_async import pem
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_context import TlsContext, TlsContextOptions
from tests.certificates import identity, loaded, revocation_list
from tests.faults._report import Fault
from tests.fuzz import corpora
from tests.fuzz.mutations import MUTATIONS, Mutation, mutated
from tests.fuzz.outcomes import REFUSED, TAKEN, outcome
from tests.models.rounds import bounded, seeded

DAMAGED = Fault(
    "Input",
    "certificates, keys, revocation lists and PKCS#12 files with damage",
    "read for what they say, or refused with a documented error",
)

REFUSALS = (
    ErrorCode.ERROR_PEM_MALFORMED,
    ErrorCode.IO_FILE_VALIDATION_FAILURE,
    ErrorCode.IO_TLS_CTX_ERROR,
)


@cache
def seeds() -> dict[str, bytes]:
    """By what they are."""
    ca = trustme.CA()
    leaf = ca.issue_cert("peer.example")
    certificate, key = identity(leaf)
    another = ec.generate_private_key(ec.SECP256R1())
    old = another.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    secret = BestAvailableEncryption(b"secret")
    encrypted = another.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
    crl = revocation_list(ca, leaf)
    own = loaded(leaf)
    return {
        "certificate": certificate,
        "key": key,
        "old key": old,
        "encrypted key": encrypted,
        "authority": ca.cert_pem.bytes(),
        "list": crl.public_bytes(Encoding.PEM),
        "list in DER": crl.public_bytes(Encoding.DER),
        "certificate in DER": own.public_bytes(Encoding.DER),
        "all": b"# comments\n" + certificate + b"\n\n" + key.replace(b"\n", b"\r\n") + old,
        "PKCS#12": pkcs12_of(own),
    }


def pkcs12_of(certificate: x509.Certificate) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return pkcs12.serialize_key_and_certificates(b"", key, None, [certificate], NoEncryption())


def parse(data: bytes) -> None:
    """What is found can be written, and is the same when it is read again."""
    found = pem.parse(data)
    assert found
    assert all(each.data for each in found)
    assert pem.parse("".join(each.to_pem() for each in found)) == found
    assert pem.parse(pem.sanitize(data)) == found


def sanitize(data: bytes) -> None:
    assert pem.sanitize(data).startswith(b"-----BEGIN ")


def present(data: bytes) -> None:
    TlsContext.server(TlsContextOptions.default_server(data, seeds()["key"]))


def prove(data: bytes) -> None:
    TlsContext.server(TlsContextOptions.default_server(seeds()["certificate"], data))


def prove_and_present(data: bytes) -> None:
    options = TlsContextOptions.client_mtls(data, data)
    options.set_verify_peer(False)
    TlsContext.client(options)


def trust(data: bytes) -> None:
    options = TlsContextOptions.default_client()
    options.override_default_trust_store(data)
    TlsContext.client(options)


def revoke(data: bytes) -> None:
    options = TlsContextOptions.default_client()
    options.override_default_trust_store(seeds()["authority"])
    options.add_certificate_revocation_list(data)
    TlsContext.client(options)


def decrypt(data: bytes) -> None:
    options = TlsContextOptions.client_mtls_pkcs12(data, None)
    options.set_verify_peer(False)
    TlsContext.client(options)


READERS: tuple[Callable[[bytes], None], ...] = (
    parse,
    sanitize,
    present,
    prove,
    prove_and_present,
    trust,
    revoke,
    decrypt,
)


def outcome_of(read: Callable[[bytes], None], data: bytes) -> str:
    return outcome(partial(read, data), *REFUSALS)


@pytest.mark.parametrize("name", corpora.files("pem"))
def test_what_was_kept(name: str) -> None:
    for read in READERS:
        outcome_of(read, corpora.files("pem")[name])


def test_what_has_no_damage_is_read() -> None:
    expected = {
        "certificate": {parse, sanitize, present, trust},
        "key": {parse, sanitize, prove},
        "authority": {parse, sanitize, trust},
        "list": {parse, sanitize, revoke},
        "list in DER": {revoke},
    }
    for name, readers in expected.items():
        found = {read for read in READERS if outcome_of(read, seeds()[name]) == TAKEN}
        assert found == readers, name


@seeded
@given(
    name=st.sampled_from(sorted(seeds())),
    mutations=MUTATIONS,
    read=st.sampled_from(READERS),
)
@bounded(250)
def test_damage(name: str, mutations: list[Mutation], read: Callable[[bytes], None]) -> None:
    data = seeds()[name]
    damaged = mutated(data, mutations)
    what = outcome_of(read, damaged)
    if damaged != data:
        DAMAGED.seen(what)


@seeded
@given(der=st.binary(min_size=1, max_size=200), label=st.sampled_from(pem.PemObjectType))
@bounded(60)
def test_text_around_no_content(der: bytes, label: pem.PemObjectType) -> None:
    """The form is right, and what is in it is noise."""
    text = pem.PemObject(label, label.value or "X", der).to_pem().encode()
    assert outcome_of(parse, text) == TAKEN
    for read in READERS[2:]:
        assert outcome_of(read, text) == REFUSED
    DAMAGED.seen(REFUSED)


def test_nothing_is_kept() -> None:
    inputs = [*corpora.files("pem").values(), *seeds().values()]

    def one_round() -> None:
        for data in inputs:
            for read in READERS:
                outcome_of(read, data)
                outcome_of(read, data[: len(data) // 2])

    assert corpora.growth(one_round) < corpora.MOST
