"""PKCS#11 with SoftHSM2: libraries, tokens, sessions, keys and what goes wrong with each.

Signatures are checked by `cryptography` with the public keys. TLS is in test_pkcs11_tls.py.
"""

import ctypes.util
import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.pkcs11 import (
    HashAlgorithm,
    KeyType,
    LibraryBehavior,
    Pkcs11Library,
    Pkcs11PrivateKey,
    Pkcs11Session,
    SignatureAlgorithm,
)
from aws_io_async.pkcs11._signatures import ecdsa_signature, unsigned_integer
from tests.hsm import Hsm, softhsm

pytest.importorskip("pkcs11", reason="the extra pkcs11 is not installed")

STRICT = LibraryBehavior.STRICT_INITIALIZE_FINALIZE
SO_PIN, PIN = "1111", "0000"
DATA = b"ABCDEFGHIJKL"


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hsm:
    """An empty SoftHSM, for this test alone."""
    hsm = Hsm(softhsm(), tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.configuration))
    return hsm


@pytest.fixture
def session(hsm: Hsm) -> Iterator[Pkcs11Session]:
    """A session with the one token, which has an RSA and an EC key; the user is logged in."""
    hsm.init_token("my-token", PIN, SO_PIN)
    hsm.import_key("my-token", PIN, rsa_key(), "rsa", "AA")
    hsm.import_key("my-token", PIN, ec_key(), "ec", "BB")
    with (
        Pkcs11Library(hsm.module, STRICT) as library,
        library.open_session(library.find_slot(token_label="my-token")) as session,
    ):
        session.login(PIN)
        yield session


def code_of(caught: pytest.ExceptionInfo[AwsIoError]) -> ErrorCode:
    assert isinstance(caught.value.code, ErrorCode)
    return caught.value.code


# aws-c-io's cases


def test_pkcs11_lib_sanity_check(hsm: Hsm) -> None:
    with Pkcs11Library(hsm.module, STRICT) as library:
        assert not library.closed
    assert library.closed


def test_pkcs11_lib_behavior_default(hsm: Hsm) -> None:
    """In a process of its own: by default, the library is never ended."""
    script = """
        import sys
        from aws_io_async.errors import AwsIoError
        from aws_io_async.pkcs11 import LibraryBehavior, Pkcs11Library

        first, second = Pkcs11Library(sys.argv[1]), Pkcs11Library(sys.argv[1])
        first.close()
        second.find_slot()
        second.close()
        with Pkcs11Library(sys.argv[1]) as third:
            third.find_slot()
        with Pkcs11Library(sys.argv[1], LibraryBehavior.OMIT_INITIALIZE) as fourth:
            fourth.find_slot()
        try:
            Pkcs11Library(sys.argv[1], LibraryBehavior.STRICT_INITIALIZE_FINALIZE)
        except AwsIoError as exc:
            print(exc.name)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), hsm.module],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["AWS_ERROR_PKCS11_CKR_CRYPTOKI_ALREADY_INITIALIZED"]


def test_pkcs11_lib_behavior_omit_initialize(hsm: Hsm) -> None:
    with pytest.raises(AwsIoError) as caught:
        Pkcs11Library(hsm.module, LibraryBehavior.OMIT_INITIALIZE)
    assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_CRYPTOKI_NOT_INITIALIZED
    with Pkcs11Library(hsm.module, STRICT) as owner:
        with Pkcs11Library(hsm.module, LibraryBehavior.OMIT_INITIALIZE) as guest:
            guest.find_slot()
        owner.find_slot()


def test_pkcs11_lib_behavior_strict_initialize_finalize(hsm: Hsm) -> None:
    for _ in range(2):
        with Pkcs11Library(hsm.module, STRICT):
            with pytest.raises(AwsIoError) as caught:
                Pkcs11Library(hsm.module, STRICT)
            assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_CRYPTOKI_ALREADY_INITIALIZED


def test_pkcs11_session_tests(hsm: Hsm) -> None:
    with Pkcs11Library(hsm.module, STRICT) as library:
        with pytest.raises(AwsIoError) as caught:
            library.open_session(1)
        assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_SLOT_ID_INVALID
    hsm.init_token("my-token", PIN, SO_PIN)
    with Pkcs11Library(hsm.module, STRICT) as library:
        slot = library.find_slot(token_label="my-token")
        with library.open_session(slot) as first, library.open_session(slot) as second:
            first.close()
            second.login(PIN)


def test_pkcs11_login_tests(hsm: Hsm) -> None:
    hsm.init_token("my-token", PIN, SO_PIN)
    with Pkcs11Library(hsm.module, STRICT) as library:
        slot = library.find_slot(token_label="my-token")
        closed = library.open_session(slot)
        closed.close()
        with pytest.raises(AwsIoError) as caught:
            closed.login(PIN)
        assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_SESSION_HANDLE_INVALID
        session = library.open_session(slot)
        with pytest.raises(AwsIoError) as caught:
            session.login("INVALID_PIN")
        assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_PIN_INCORRECT
        session.login(PIN)
        session.login(PIN)
        other = library.open_session(slot)
        other.login(PIN)
        session.close()
        other.login(PIN)
        other.close()


def test_pkcs11_find_private_key_for_different_rsa_types(hsm: Hsm) -> None:
    hsm.init_token("my-rsa-token", PIN, SO_PIN)
    sizes = (1024, 2048, 4096)
    for number, bits in enumerate(sizes):
        hsm.import_key("my-rsa-token", PIN, rsa_key(bits), f"{bits}_Key", f"0{number}")
    with Pkcs11Library(hsm.module, STRICT) as library:
        session = library.open_session(library.find_slot(token_label="my-rsa-token"))
        session.login(PIN)
        for bits in sizes:
            key = session.find_private_key(f"{bits}_Key")
            assert (key.key_type, key.label) == (KeyType.RSA, f"{bits}_Key")
            assert len(key.sign(digest_of(DATA), HashAlgorithm.SHA256)) == bits // 8


def test_pkcs11_find_private_key_for_ec(session: Pkcs11Session) -> None:
    key = session.find_private_key("ec")
    assert (key.key_type, key.label) == (KeyType.EC, "ec")


def test_pkcs11_find_multiple_private_key(session: Pkcs11Session) -> None:
    with pytest.raises(AwsIoError, match="more than one private key") as caught:
        session.find_private_key()
    assert code_of(caught) is ErrorCode.ERROR_PKCS11_KEY_NOT_FOUND
    assert session.find_private_key("rsa").key_type is KeyType.RSA
    assert session.find_private_key("ec").key_type is KeyType.EC


ODD_LABEL = "label!@#$%^&*-_=+{}[]<>?,./():_1"
LONG_PIN, LONG_SO_PIN = "341269504732", "qwertyuioplaksjdhfgbn341269504732"


def test_pkcs11_find_private_key(hsm: Hsm) -> None:
    hsm.init_token(ODD_LABEL, LONG_PIN, LONG_SO_PIN)
    hsm.import_key(ODD_LABEL, LONG_PIN, rsa_key(1024), "RSA_KEY", "BEEFCAFE")
    with Pkcs11Library(hsm.module, STRICT) as library:
        session = library.open_session(library.find_slot(token_label=ODD_LABEL))
        session.login(LONG_PIN)
        for key in (session.find_private_key("RSA_KEY"), session.find_private_key()):
            assert (key.key_type, key.label) == (KeyType.RSA, "RSA_KEY")


def test_pkcs11_find_slot(hsm: Hsm) -> None:
    with Pkcs11Library(hsm.module, STRICT) as library:
        library.find_slot()  # SoftHSM always has one token that is not initialized
        not_found(library, token_label=ODD_LABEL)
    hsm.init_token(ODD_LABEL, LONG_PIN, LONG_SO_PIN)
    with Pkcs11Library(hsm.module, STRICT) as library:
        not_found(library)
        slot = library.find_slot(token_label=ODD_LABEL)
        assert library.find_slot(slot_id=slot) == slot
    hsm.clear()
    with Pkcs11Library(hsm.module, STRICT) as library:
        not_found(library, token_label=ODD_LABEL)


def test_pkcs11_find_slot_many_tokens(hsm: Hsm) -> None:
    hsm.init_token("label_1", "ABCD", "ABCD")
    hsm.init_token("label_2", "0111", "0111")
    with Pkcs11Library(hsm.module, STRICT) as library:
        not_found(library)
        slots = [library.find_slot(token_label=f"label_{number}") for number in (1, 2)]
        assert slots[0] != slots[1]
        for number, slot in enumerate(slots):
            label, other = f"label_{number + 1}", f"label_{2 - number}"
            assert library.find_slot(slot_id=slot) == slot
            assert library.find_slot(slot_id=slot, token_label=label) == slot
            not_found(library, slot_id=slot, token_label=other)


def not_found(
    library: Pkcs11Library, slot_id: int | None = None, token_label: str | None = None
) -> None:
    with pytest.raises(AwsIoError, match="there are: ") as caught:
        library.find_slot(slot_id=slot_id, token_label=token_label)
    assert code_of(caught) is ErrorCode.ERROR_PKCS11_TOKEN_NOT_FOUND


def digest_of(data: bytes, algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> bytes:
    return hashlib.new(algorithm.value, data).digest()


def check_rsa(session: Pkcs11Session, algorithm: HashAlgorithm) -> None:
    key = session.find_private_key("rsa")
    signature = key.sign(digest_of(DATA, algorithm), algorithm, SignatureAlgorithm.RSA)
    kind: hashes.HashAlgorithm = getattr(hashes, algorithm.name)()
    public = rsa_key().public_key()
    public.verify(signature, DATA, padding.PKCS1v15(), kind)
    with pytest.raises(InvalidSignature):
        public.verify(signature, DATA + b"!", padding.PKCS1v15(), kind)
    with pytest.raises(AwsIoError) as caught:
        key.sign(digest_of(DATA, algorithm), algorithm, SignatureAlgorithm.ECDSA)
    assert code_of(caught) is ErrorCode.IO_TLS_SIGNATURE_ALGORITHM_UNSUPPORTED
    check_closed_session(key, algorithm)


def check_closed_session(key: Pkcs11PrivateKey, algorithm: HashAlgorithm | None) -> None:
    key.session.close()
    with pytest.raises(AwsIoError) as caught:
        key.sign(digest_of(DATA, algorithm or HashAlgorithm.SHA256), algorithm)
    assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_SESSION_HANDLE_INVALID


def test_pkcs11_sign_rsa_sha1(session: Pkcs11Session) -> None:
    check_rsa(session, HashAlgorithm.SHA1)


def test_pkcs11_sign_rsa_sha224(session: Pkcs11Session) -> None:
    check_rsa(session, HashAlgorithm.SHA224)


def test_pkcs11_sign_rsa_sha256(session: Pkcs11Session) -> None:
    check_rsa(session, HashAlgorithm.SHA256)


def test_pkcs11_sign_rsa_sha384(session: Pkcs11Session) -> None:
    check_rsa(session, HashAlgorithm.SHA384)


def test_pkcs11_sign_rsa_sha512(session: Pkcs11Session) -> None:
    check_rsa(session, HashAlgorithm.SHA512)


def test_pkcs11_sign_ec_256(session: Pkcs11Session) -> None:
    key = session.find_private_key("ec")
    public = ec_key().public_key()
    for _ in range(20):  # the numbers differ in length
        public.verify(key.sign(digest_of(DATA)), DATA, ec.ECDSA(hashes.SHA256()))
    signature = key.sign(digest_of(DATA), HashAlgorithm.SHA256, SignatureAlgorithm.ECDSA)
    public.verify(signature, DATA, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(AwsIoError) as caught:
        key.sign(digest_of(DATA), HashAlgorithm.SHA256, SignatureAlgorithm.RSA)
    assert code_of(caught) is ErrorCode.IO_TLS_SIGNATURE_ALGORITHM_UNSUPPORTED
    check_closed_session(key, None)


def test_pkcs11_rsa_decrypt(session: Pkcs11Session) -> None:
    key = session.find_private_key("rsa")
    encrypted = rsa_key().public_key().encrypt(DATA, padding.PKCS1v15())
    assert key.decrypt(encrypted) == DATA
    with pytest.raises(AwsIoError) as caught:
        session.find_private_key("ec").decrypt(encrypted)
    assert code_of(caught) is ErrorCode.ERROR_PKCS11_KEY_TYPE_UNSUPPORTED
    with pytest.raises(AwsIoError) as caught:
        key.decrypt(b"")
    assert code_of(caught).name.startswith("ERROR_PKCS11_CKR_")
    session.close()
    with pytest.raises(AwsIoError) as caught:
        key.decrypt(encrypted)
    assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_SESSION_HANDLE_INVALID


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        ("12345678", "020412345678"),
        ("00345678", "0203345678"),
        ("00005678", "02025678"),
        ("00000078", "020178"),
        ("00000000", "020100"),
        ("", "020100"),
        ("00845678", "020400845678"),
        ("82345678", "02050082345678"),
    ],
)
def test_pkcs11_asn1_bigint(number: str, encoded: str) -> None:
    assert unsigned_integer(bytes.fromhex(number)) == bytes.fromhex(encoded)


# Signatures


@given(st.integers(1, 70).flatmap(lambda n: st.tuples(*[st.binary(min_size=n, max_size=n)] * 2)))
def test_signatures_of_ec_keys_of_any_size(numbers: tuple[bytes, bytes]) -> None:
    r, s = (int.from_bytes(number, "big") for number in numbers)
    assert ecdsa_signature(b"".join(numbers)) == utils.encode_dss_signature(r, s)


@pytest.mark.parametrize("raw", [b"", b"odd"])
def test_what_is_no_pair_of_numbers(raw: bytes) -> None:
    with pytest.raises(AwsIoError) as caught:
        ecdsa_signature(raw)
    assert code_of(caught) is ErrorCode.ERROR_PKCS11_ENCODING_ERROR


def test_an_rsa_key_must_be_told_what_made_the_digest(session: Pkcs11Session) -> None:
    key = session.find_private_key("rsa")
    with pytest.raises(AwsIoError) as caught:
        key.sign(digest_of(DATA))
    assert code_of(caught) is ErrorCode.IO_TLS_DIGEST_ALGORITHM_UNSUPPORTED
    with pytest.raises(ValueError, match="32 bytes are no digest of SHA1"):
        key.sign(digest_of(DATA), HashAlgorithm.SHA1)


async def test_signing_on_a_worker_thread(session: Pkcs11Session) -> None:
    signature = await session.find_private_key("ec").sign_async(digest_of(DATA))
    ec_key().public_key().verify(signature, DATA, ec.ECDSA(hashes.SHA256()))


# What goes wrong


def test_what_is_no_pkcs11_library(tmp_path: Path) -> None:
    with pytest.raises(AwsIoError, match="nowhere") as caught:
        Pkcs11Library(tmp_path / "nowhere.so")
    assert code_of(caught) is ErrorCode.IO_SHARED_LIBRARY_LOAD_FAILURE
    with pytest.raises(AwsIoError, match="C_GetFunctionList") as caught:
        Pkcs11Library(ctypes.util.find_library("m") or "libm.so.6")
    assert code_of(caught) is ErrorCode.IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE


@pytest.mark.parametrize(
    ("version", "supported"), [((2, 19), False), ((2, 20), True), ((3, 0), False)]
)
def test_libraries_of_other_versions(
    tmp_path: Path, version: tuple[int, int], supported: bool
) -> None:
    """Of a library that says this version, and that it cannot begin for want of memory."""
    source, library = tmp_path / "module.c", tmp_path / "module.so"
    source.write_text(f"""
        static unsigned long initialize(void *args) {{ return 2; }}
        static struct {{ unsigned char major, minor; void *functions[68]; }} list =
            {{ {version[0]}, {version[1]}, {{ initialize }} }};
        unsigned long C_GetFunctionList(void **found) {{ *found = &list; return 0; }}
    """)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    with pytest.raises(AwsIoError) as caught:
        Pkcs11Library(library)
    expected = (
        ErrorCode.ERROR_PKCS11_CKR_HOST_MEMORY
        if supported
        else ErrorCode.ERROR_PKCS11_VERSION_UNSUPPORTED
    )
    assert code_of(caught) is expected


def test_nothing_is_seen_before_the_login(hsm: Hsm) -> None:
    hsm.init_token("my-token", PIN, SO_PIN)
    hsm.import_key("my-token", PIN, ec_key(), "ec", "BB")
    with Pkcs11Library(hsm.module, STRICT) as library:
        session = library.open_session(library.find_slot(token_label="my-token"))
        with pytest.raises(AwsIoError, match="no private key matches label='ec'") as caught:
            session.find_private_key("ec")
        assert code_of(caught) is ErrorCode.ERROR_PKCS11_KEY_NOT_FOUND
        session.login(PIN)
        session.find_private_key("ec")


def test_the_last_session_ends_the_login(hsm: Hsm) -> None:
    hsm.init_token("my-token", PIN, SO_PIN)
    hsm.import_key("my-token", PIN, ec_key(), "ec", "BB")
    with Pkcs11Library(hsm.module, STRICT) as library:
        slot = library.find_slot(token_label="my-token")
        first, second = library.open_session(slot), library.open_session(slot)
        first.login(PIN)
        first.close()
        second.find_private_key("ec")
        second.close()
        with library.open_session(slot) as third, pytest.raises(AwsIoError):
            third.find_private_key("ec")


def test_a_closed_library_is_not_called(session: Pkcs11Session) -> None:
    library, key = session.library, session.find_private_key("ec")
    library.close()
    library.close()
    for use in (
        library.find_slot,
        lambda: library.open_session(0),
        lambda: session.login(PIN),
        session.find_private_key,
        lambda: key.sign(digest_of(DATA)),
    ):
        with pytest.raises(AwsIoError, match="the library is closed") as caught:
            use()
        assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_CRYPTOKI_NOT_INITIALIZED
    session.close()


def test_keys_of_other_types_are_refused(hsm: Hsm) -> None:
    hsm.init_token("my-token", PIN, SO_PIN)
    key: PrivateKeyTypes = ed25519.Ed25519PrivateKey.generate()
    hsm.import_key("my-token", PIN, key, "ed", "CC")
    with Pkcs11Library(hsm.module, STRICT) as library:
        session = library.open_session(library.find_slot(token_label="my-token"))
        session.login(PIN)
        with pytest.raises(AwsIoError, match="RSA and EC are supported") as caught:
            session.find_private_key("ed")
        assert code_of(caught) is ErrorCode.ERROR_PKCS11_KEY_TYPE_UNSUPPORTED


def test_a_key_does_only_what_it_may(hsm: Hsm) -> None:
    import pkcs11

    hsm.init_token("my-token", PIN, SO_PIN)
    with Pkcs11Library(hsm.module, STRICT) as library:
        slot = library.find_slot(token_label="my-token")
        with library.open_session(slot) as session:
            session.login(PIN)
            with session._session.token.open(rw=True) as writable:
                writable.generate_keypair(
                    pkcs11.KeyType.RSA,
                    1024,
                    label="no-signatures",
                    store=True,
                    capabilities=pkcs11.MechanismFlag.DECRYPT | pkcs11.MechanismFlag.ENCRYPT,
                )
            key = session.find_private_key("no-signatures")
            with pytest.raises(AwsIoError, match="may not sign") as caught:
                key.sign(digest_of(DATA), HashAlgorithm.SHA256)
            assert code_of(caught) is ErrorCode.ERROR_PKCS11_CKR_KEY_FUNCTION_NOT_PERMITTED


def test_without_the_extra_the_error_says_what_to_install(hsm: Hsm) -> None:
    script = "import sys; sys.modules['pkcs11'] = None; from aws_io_async.pkcs11 import *;"
    done = subprocess.run(
        [sys.executable, "-c", f"{script} Pkcs11Library({hsm.module!r})"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert 'pip install "aws-io-async[pkcs11]"' in done.stderr
