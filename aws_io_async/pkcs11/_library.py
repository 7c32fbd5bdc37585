"""Tokens, sessions and keys."""

import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import anyio.to_thread

from .. import errors, log
from ..errors import ErrorCode
from ._cryptoki import Cryptoki
from ._return_values import translate
from ._signatures import HashAlgorithm, SignatureAlgorithm, digest_info, ecdsa_signature

if TYPE_CHECKING:
    import pkcs11

logger = log.logger(log.LogSubject.PKCS11)


class LibraryBehavior(enum.Enum):
    """Who lets a library begin and end, which happens once in a process."""

    DEFAULT = enum.auto()
    """It begins if it has not yet, and is never ended: others may still use it."""

    OMIT_INITIALIZE = enum.auto()
    """The application has let it begin, and will end it."""

    STRICT_INITIALIZE_FINALIZE = enum.auto()
    """It begins here, which is an error if it has already, and ends when this is closed."""


class KeyType(enum.Enum):
    """The kinds of keys that can sign here."""

    RSA = "RSA"
    EC = "EC"


class Pkcs11Library:
    """A loaded PKCS#11 library. Any thread; its calls block, some for as long as the token works.

    Once it is closed, its sessions and keys raise ERROR_PKCS11_CKR_CRYPTOKI_NOT_INITIALIZED.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        behavior: LibraryBehavior = LibraryBehavior.DEFAULT,
    ) -> None:
        """Load the library at `path` and let it begin, as `behavior` says.

        Raises `ImportError` without the extra `pkcs11`, and `AwsIoError`:
        IO_SHARED_LIBRARY_LOAD_FAILURE, IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE if it is no PKCS#11
        library, ERROR_PKCS11_VERSION_UNSUPPORTED before 2.20, ERROR_PKCS11_CKR_... if it does not
        begin.
        """
        binding = _binding()
        self._behavior = behavior
        self._cryptoki = Cryptoki(path)
        try:
            if behavior is not LibraryBehavior.OMIT_INITIALIZE:
                already_is_ok = behavior is LibraryBehavior.DEFAULT
                self._cryptoki.initialize(already_is_ok=already_is_ok)
            self._cryptoki.check_initialized()
        except BaseException:
            self._cryptoki.library.close()
            raise
        # Made without its __init__, which would initialize the library once more.
        library_class = binding._pkcs11.lib
        self._tokens: Any = library_class.__new__(library_class, os.fspath(path))
        self.closed = False
        logger.debug("%s is loaded, %s", path, behavior.name)

    def find_slot(self, *, slot_id: int | None = None, token_label: str | None = None) -> int:
        """The slot with this number, or whose token has this label, or the only one with a token.

        Raises `AwsIoError` ERROR_PKCS11_TOKEN_NOT_FOUND if not exactly one does, with the tokens
        that there are.
        """
        tokens = self._tokens_by_slot()
        found = [
            slot
            for slot, token in tokens.items()
            if slot_id in (None, slot) and token_label in (None, token.label)
        ]
        if len(found) == 1:
            return found[0]
        there = ", ".join(f"{token.label!r} in slot {slot}" for slot, token in tokens.items())
        wanted = f"slot_id={slot_id}, token_label={token_label!r}"
        detail = f"{len(found)} tokens match {wanted}; there are: {there or 'none'}"
        raise errors.make(ErrorCode.ERROR_PKCS11_TOKEN_NOT_FOUND, detail)

    def open_session(self, slot_id: int) -> "Pkcs11Session":
        """A new read-only session with the token in this slot.

        Raises `AwsIoError` ERROR_PKCS11_CKR_SLOT_ID_INVALID if it has none, or another
        ERROR_PKCS11_CKR_... .
        """
        token = self._tokens_by_slot().get(slot_id)
        if token is None:
            code = ErrorCode.ERROR_PKCS11_CKR_SLOT_ID_INVALID
            raise errors.make(code, f"slot {slot_id} has no token")
        with self._call("C_OpenSession"):
            session = Pkcs11Session(self, token.open())
        logger.debug("a session with %r in slot %d", token.label, slot_id)
        return session

    def close(self) -> None:
        """Let go of the library; with STRICT_INITIALIZE_FINALIZE, end it. Idempotent.

        No other thread may be inside. Sessions that are open are closed by the end of the library.
        """
        if self.closed:
            return
        self.closed = True
        logger.debug("%s is closed, %s", self._cryptoki.library.path, self._behavior.name)
        self._tokens = None
        if self._behavior is LibraryBehavior.STRICT_INITIALIZE_FINALIZE:
            try:
                self._cryptoki.finalize()
            finally:
                self._cryptoki.library.close()
        elif self._behavior is LibraryBehavior.OMIT_INITIALIZE:
            self._cryptoki.library.close()
        # By default it goes on, and must stay in memory for that.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _tokens_by_slot(self) -> dict[int, "pkcs11.Token"]:
        with self._call("C_GetSlotList"):
            slots = self._tokens.get_slots(token_present=True)
            return {slot.slot_id: slot.get_token() for slot in slots}

    @contextmanager
    def _call(self, function: str) -> Iterator[None]:
        """What every use of the binding is wrapped in."""
        if self.closed:
            code = ErrorCode.ERROR_PKCS11_CKR_CRYPTOKI_NOT_INITIALIZED
            raise errors.make(code, f"{function}: the library is closed")
        try:
            yield
        except _binding().PKCS11Error as exc:
            raise translate(exc, function) from exc


class Pkcs11Session:
    """A session with a token. Any thread; its calls block."""

    def __init__(self, library: Pkcs11Library, session: "pkcs11.Session") -> None:
        self.library = library
        self._session: Any = session
        self._closed = False

    def login(self, pin: str | None) -> None:
        """Log the user in, with all of this process's sessions with the token.

        None leaves it to the token to ask for the PIN. Nothing is checked if the user is logged in
        already. Raises `AwsIoError` ERROR_PKCS11_CKR_PIN_INCORRECT, ..._PIN_LOCKED or another
        ERROR_PKCS11_CKR_... . Wrong PINs are counted by the token: do not try again with the same.
        """
        with self._call("C_Login"):
            encoded = None if pin is None else pin.encode()
            self.library._cryptoki.login(self._session.handle, encoded)
        logger.debug("the user is logged in")

    def find_private_key(self, label: str | None = None) -> "Pkcs11PrivateKey":
        """The private key with this label, or the only one that the session can see.

        Raises `AwsIoError`: ERROR_PKCS11_KEY_NOT_FOUND if not exactly one is there (before the
        login, none is), ERROR_PKCS11_KEY_TYPE_UNSUPPORTED if it is neither RSA nor EC, or
        ERROR_PKCS11_CKR_... .
        """
        binding = _binding()
        wanted: dict[Any, Any] = {binding.Attribute.CLASS: binding.ObjectClass.PRIVATE_KEY}
        if label is not None:
            wanted[binding.Attribute.LABEL] = label
        with self._call("C_FindObjects"):
            search: Any = self._session.get_objects(wanted)
            try:
                found = list(islice(search, 2))
            finally:
                search.close()
            if len(found) != 1:
                which = "no private key" if not found else "more than one private key"
                detail = f"{which} matches label={label!r} on {self._session.token.label!r}"
                raise errors.make(ErrorCode.ERROR_PKCS11_KEY_NOT_FOUND, detail)
            return Pkcs11PrivateKey(self, found[0])

    def close(self) -> None:
        """End the session, and with the last one of this process the user's login. Idempotent."""
        if not self._closed:
            if not self.library.closed:
                with self._call("C_CloseSession"):
                    self._session.close()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _call(self, function: str) -> Iterator[None]:
        with self.library._call(function):
            if self._closed:
                code = ErrorCode.ERROR_PKCS11_CKR_SESSION_HANDLE_INVALID
                raise errors.make(code, f"{function}: the session is closed")
            yield


class Pkcs11PrivateKey:
    """A private key, which stays in its token. Any thread; its calls block."""

    def __init__(self, session: Pkcs11Session, key: Any) -> None:
        binding = _binding()
        types = {binding.KeyType.RSA: KeyType.RSA, binding.KeyType.EC: KeyType.EC}
        if key.key_type not in types:
            detail = f"{key.label!r} is a key of type {key.key_type!r}; RSA and EC are supported"
            raise errors.make(ErrorCode.ERROR_PKCS11_KEY_TYPE_UNSUPPORTED, detail)
        self.session = session
        self.key_type: KeyType = types[key.key_type]
        self.label: str = key.label
        self._key = key

    def sign(
        self,
        digest: bytes,
        hash_algorithm: HashAlgorithm | None = None,
        signature_algorithm: SignatureAlgorithm | None = None,
    ) -> bytes:
        """The signature of a digest: PKCS #1 1.5 for RSA, a sequence in DER for EC.

        An RSA key must be told what made the digest. `signature_algorithm` says what is expected of
        the key. Raises `AwsIoError`: IO_TLS_DIGEST_ALGORITHM_UNSUPPORTED without that,
        IO_TLS_SIGNATURE_ALGORITHM_UNSUPPORTED if the key cannot do what is expected,
        ERROR_PKCS11_CKR_... if the token does not sign; `ValueError` if the digest has not the
        length of its algorithm.
        """
        own = SignatureAlgorithm.RSA if self.key_type is KeyType.RSA else SignatureAlgorithm.ECDSA
        if signature_algorithm not in (None, own):
            detail = f"{self.label!r} is a key for {own.value}"
            raise errors.make(ErrorCode.IO_TLS_SIGNATURE_ALGORITHM_UNSUPPORTED, detail)
        if hash_algorithm is not None and len(digest) != hash_algorithm.digest_size:
            raise ValueError(f"{len(digest)} bytes are no digest of {hash_algorithm.name}")
        mechanism = _binding().Mechanism
        if own is SignatureAlgorithm.ECDSA:
            return ecdsa_signature(self._use("sign", digest, mechanism.ECDSA))
        if hash_algorithm is None:
            detail = "an RSA key must be told what made the digest"
            raise errors.make(ErrorCode.IO_TLS_DIGEST_ALGORITHM_UNSUPPORTED, detail)
        return self._use("sign", digest_info(digest, hash_algorithm), mechanism.RSA_PKCS)

    async def sign_async(
        self,
        digest: bytes,
        hash_algorithm: HashAlgorithm | None = None,
        signature_algorithm: SignatureAlgorithm | None = None,
    ) -> bytes:
        """`sign` on a worker thread. Cancelled, the token may sign all the same."""
        return await anyio.to_thread.run_sync(
            self.sign, digest, hash_algorithm, signature_algorithm
        )

    def decrypt(self, encrypted: bytes) -> bytes:
        """What was encrypted with the public key by RSA, PKCS #1 1.5.

        Raises `AwsIoError`: ERROR_PKCS11_KEY_TYPE_UNSUPPORTED for an EC key, ERROR_PKCS11_CKR_...
        if the token does not decrypt.
        """
        if self.key_type is not KeyType.RSA:
            detail = f"{self.label!r} is an EC key, which cannot decrypt"
            raise errors.make(ErrorCode.ERROR_PKCS11_KEY_TYPE_UNSUPPORTED, detail)
        return self._use("decrypt", encrypted, _binding().Mechanism.RSA_PKCS)

    def _use(self, operation: str, data: bytes, mechanism: Any) -> bytes:
        with self.session._call(f"C_{operation.capitalize()}"):
            # The binding gives a key the methods that its attributes allow.
            method = getattr(self._key, operation, None)
            if method is None:
                code = ErrorCode.ERROR_PKCS11_CKR_KEY_FUNCTION_NOT_PERMITTED
                raise errors.make(code, f"{self.label!r} may not {operation}")
            result: bytes = method(data, mechanism=mechanism)
            return result


def _binding() -> Any:
    try:
        import pkcs11
        import pkcs11._pkcs11
    except ImportError as exc:
        raise ImportError(
            'PKCS#11 needs python-pkcs11: pip install "aws-io-async[pkcs11]"'
        ) from exc
    return pkcs11
