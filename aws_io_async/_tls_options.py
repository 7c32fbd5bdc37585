"""`TlsContextOptions`: what a TLS context should be made of, checked as it is said.

Options collect a `Settings`, a value that never changes; a setter replaces it by another one. A
context keeps the value that it was built of, and no key is in two places.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from . import _pkcs12, errors, pem
from ._tls_ciphers import (
    TlsCipherPreference,
    TlsMinimumVersion,
    check_cipher_preference,
    check_minimum_version,
)
from .errors import CommonErrorCode, ErrorCode
from .pem import PemObjectType
from .tls_key_operations import CustomKeyOpHandler

AlpnList = str | Sequence[str]
"""Application protocols, the preferred one first: "h2;http/1.1", or ["h2", "http/1.1"]."""

PathLike = str | os.PathLike[str]

_CERTIFICATES = (PemObjectType.X509, PemObjectType.X509_OLD)
_PRIVATE_KEYS = (
    PemObjectType.PRIVATE_PKCS8,
    PemObjectType.PRIVATE_RSA_PKCS1,
    PemObjectType.PRIVATE_DSA_PKCS1,
    PemObjectType.EC_PRIVATE,
)
_REVOCATION_LISTS = (PemObjectType.X509_CRL,)


def parse_alpn_list(protocols: AlpnList) -> tuple[str, ...]:
    """The protocols of an ALPN list (RFC 7301), at least one. Any thread.

    Raises IO_TLS_CTX_ERROR if there is none, or one is not 1 to 255 printable ASCII characters
    without spaces, or all together are too long for TLS (65,535 bytes); TypeError for what is not
    a list of strings.
    """
    names = tuple(protocols.split(";") if isinstance(protocols, str) else protocols)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"an ALPN protocol is a str, got {name!r}")
        if not 1 <= len(name) <= 255 or not all("!" <= char <= "~" for char in name):
            raise errors.make(
                ErrorCode.IO_TLS_CTX_ERROR,
                f"{name!r} in the ALPN list {protocols!r} is not 1 to 255 printable ASCII"
                " characters without spaces",
            )
    if not names or sum(len(name) + 1 for name in names) > 0xFFFF:
        raise errors.make(
            ErrorCode.IO_TLS_CTX_ERROR, f"an ALPN list of {len(names)} protocols does not fit TLS"
        )
    return names


@dataclass(frozen=True)
class Settings:
    """What a context is built of. The bytes are PEM."""

    server_side: bool = False
    certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    key_handler: CustomKeyOpHandler | None = None
    """Who has the private key, if it is not here."""
    verify_peer: bool | None = None
    """None: clients do, servers do not."""
    ca_certificates: bytes | None = None
    ca_path: str | None = None
    revocation_lists: tuple[bytes, ...] = ()
    no_certificate_revocation: bool = False
    minimum_tls_version: TlsMinimumVersion = TlsMinimumVersion.SYSTEM_DEFAULT
    cipher_preference: TlsCipherPreference = TlsCipherPreference.SYSTEM_DEFAULT
    alpn_list: tuple[str, ...] = ()

    @property
    def verifies(self) -> bool:
        """Whether the peer must present a certificate that is trusted."""
        return not self.server_side if self.verify_peer is None else self.verify_peer


class TlsContextOptions:
    """How to make a `TlsContext`. `TlsContextOptions()` is `default_client()`.

    Files are read when they are named here. Once a context was built of them, options do not change
    any more: a setter then raises ERROR_INVALID_STATE, and `copy()` gives options that do change.

    Certificates and keys are in PEM; what surrounds them there is ignored. A private key may be in
    PKCS#8, PKCS#1 or SEC 1 form, and must not be encrypted. Whatever takes them raises
    ERROR_PEM_MALFORMED for what is no PEM, IO_FILE_VALIDATION_FAILURE for what holds other things,
    and what `open()` does if it reads files. Whether key and certificate belong together is found
    out when a context is built.

    Thread: any, one at a time.
    """

    __slots__ = ("_frozen", "_settings")

    def __init__(self) -> None:
        self._settings = Settings()
        self._frozen = False

    def __repr__(self) -> str:
        side = "server" if self._settings.server_side else "client"
        identity = "with" if self._settings.certificate else "without"
        return f"<TlsContextOptions of a {side} {identity} certificate>"

    # Constructors

    @classmethod
    def default_client(cls) -> Self:
        """A client that verifies servers by the system's trust store, and presents nothing."""
        return cls()

    @classmethod
    def client_mtls(cls, certificate: bytes, private_key: bytes) -> Self:
        """A client that presents a certificate: its own first, then those that issued it."""
        return cls._with_identity(certificate, private_key, server_side=False)

    @classmethod
    def client_mtls_from_path(cls, certificate_path: PathLike, private_key_path: PathLike) -> Self:
        """As `client_mtls`, with the contents of two files, or of one that has both."""
        return cls.client_mtls(_read(certificate_path), _read(private_key_path))

    @classmethod
    def client_mtls_with_custom_key_operations(
        cls, handler: CustomKeyOpHandler, certificate: bytes
    ) -> Self:
        """A client that presents a certificate, RSA or EC, whose private key `handler` has.

        The context raises IO_TLS_CTX_ERROR for a certificate with another key, and
        ERROR_PLATFORM_NOT_SUPPORTED where Python's OpenSSL cannot be reached to ask for this: no
        function of `ssl` does. With an RSA key, it is for TLS 1.2 only, as all of them are in
        aws-c-io. Raises TypeError if `handler` is no `CustomKeyOpHandler`.
        """
        if not isinstance(handler, CustomKeyOpHandler):
            raise TypeError(f"handler must be a CustomKeyOpHandler, got {handler!r}")
        options = cls()
        options._settings = Settings(
            certificate=_only(_CERTIFICATES, certificate, "certificate"), key_handler=handler
        )
        return options

    @classmethod
    def client_mtls_pkcs12(cls, data: bytes, password: str | bytes | None) -> Self:
        """A client that presents what PKCS#12 data holds; `password` is None if it has none.

        Raises IO_TLS_CTX_ERROR if the data is damaged or has no key, or the password is wrong, and
        ImportError if "aws-io-async[pkcs12]" is not installed. aws-c-io can do this on Apple's
        systems only.
        """
        return cls.client_mtls(*_pkcs12.decode(_bytes(data, "PKCS#12 data"), password))

    @classmethod
    def client_mtls_pkcs12_from_path(cls, path: PathLike, password: str | bytes | None) -> Self:
        """As `client_mtls_pkcs12`, with the contents of a file."""
        return cls.client_mtls_pkcs12(_read(path), password)

    @classmethod
    def default_server(cls, certificate: bytes, private_key: bytes) -> Self:
        """A server with its certificate, then those that issued it; it asks clients for none."""
        return cls._with_identity(certificate, private_key, server_side=True)

    @classmethod
    def default_server_from_path(
        cls, certificate_path: PathLike, private_key_path: PathLike
    ) -> Self:
        """As `default_server`, with the contents of two files, or of one that has both."""
        return cls.default_server(_read(certificate_path), _read(private_key_path))

    @classmethod
    def server_pkcs12(cls, data: bytes, password: str | bytes | None) -> Self:
        """As `default_server`, with what PKCS#12 data holds; raises as `client_mtls_pkcs12`."""
        return cls.default_server(*_pkcs12.decode(_bytes(data, "PKCS#12 data"), password))

    @classmethod
    def server_pkcs12_from_path(cls, path: PathLike, password: str | bytes | None) -> Self:
        """As `server_pkcs12`, with the contents of a file."""
        return cls.server_pkcs12(_read(path), password)

    @classmethod
    def _with_identity(cls, certificate: bytes, private_key: bytes, *, server_side: bool) -> Self:
        options = cls()
        options._settings = Settings(
            server_side=server_side,
            certificate=_only(_CERTIFICATES, certificate, "certificate"),
            private_key=_only(_PRIVATE_KEYS, private_key, "private key"),
        )
        return options

    def copy(self) -> Self:
        """The same options, free to be changed."""
        other = type(self)()
        other._settings = self._settings
        return other

    # Whom to trust

    def set_verify_peer(self, verify_peer: bool) -> None:
        """Whether to verify the peer's certificate and, as a client, its name.

        False for a client lets anyone answer in the server's place: for tests only. True for a
        server refuses clients without a certificate that the trust store vouches for: override that
        with the authority of your clients, unless whoever has a public certificate is welcome.
        """
        self._change(verify_peer=bool(verify_peer))

    def override_default_trust_store(self, ca: bytes) -> None:
        """Trust these certificates, and no longer those of the system.

        Raises ERROR_INVALID_STATE if it was overridden before.
        """
        self._refuse_second_trust_store(self._settings.ca_certificates)
        self._change(ca_certificates=_only(_CERTIFICATES, ca, "trust store"))

    def override_default_trust_store_from_path(
        self, ca_path: PathLike | None = None, ca_file: PathLike | None = None
    ) -> None:
        """Trust the certificates of a folder, of a file, or of both, and no longer the system's.

        The folder is one that `openssl rehash` has prepared; OpenSSL looks issuers up there as it
        needs them. Raises NotADirectoryError, and ERROR_INVALID_STATE for what was overridden
        before.
        """
        if ca_path is None and ca_file is None:
            raise TypeError("name a folder (ca_path) or a file (ca_file) with trusted certificates")
        changes: dict[str, Any] = {}
        if ca_path is not None:
            self._refuse_second_trust_store(self._settings.ca_path)
            os.listdir(ca_path)  # OpenSSL itself would not complain about a folder it cannot read
            changes["ca_path"] = os.fspath(ca_path)
        if ca_file is not None:
            self._refuse_second_trust_store(self._settings.ca_certificates)
            what = f"trust store {os.fspath(ca_file)}"
            changes["ca_certificates"] = _only(_CERTIFICATES, _read(ca_file), what)
        self._change(**changes)

    def add_certificate_revocation_list(self, crl: bytes) -> None:
        """Refuse peers whose own certificate this list (RFC 5280), in PEM or DER, revokes.

        From the first list on, a certificate is refused too if its issuer has no list here, or one
        that has expired. Certificates of intermediate authorities are not looked up.
        aws-c-io has nothing like it.
        """
        crl = _bytes(crl, "revocation list")
        if not crl or b"-----BEGIN" in crl:  # nothing is no list in any form
            crl = _only(_REVOCATION_LISTS, crl, "revocation list")
        else:
            label = PemObjectType.X509_CRL
            crl = pem.PemObject(label, label.value, crl).to_pem().encode()
        self._change(revocation_lists=(*self._settings.revocation_lists, crl))

    def add_certificate_revocation_list_from_path(self, path: PathLike) -> None:
        """As `add_certificate_revocation_list`, with the contents of a file."""
        self.add_certificate_revocation_list(_read(path))

    def set_no_certificate_revocation(self, no_certificate_revocation: bool) -> None:
        """True ignores revocation lists, also those that were added.

        Without lists nothing is checked, either way: Python's `ssl` neither asks for stapled OCSP
        responses, as s2n does, nor fetches lists, as Windows does.
        """
        self._change(no_certificate_revocation=bool(no_certificate_revocation))

    # What to agree on

    def set_minimum_tls_version(self, version: TlsMinimumVersion) -> None:
        """The lowest version to agree on.

        Raises IO_TLS_VERSION_UNSUPPORTED if OpenSSL was built without it.
        """
        check_minimum_version(version)
        self._change(minimum_tls_version=version)

    def set_tls_cipher_preference(self, preference: TlsCipherPreference) -> None:
        """The policy for ciphers and key exchange; it may raise the minimum version.

        Raises IO_TLS_CIPHER_PREF_UNSUPPORTED, which says why.
        """
        check_cipher_preference(preference)
        self._change(cipher_preference=preference)

    def set_alpn_list(self, protocols: AlpnList) -> None:
        """The application protocols, the preferred one first; raises as `parse_alpn_list` does."""
        self._change(alpn_list=parse_alpn_list(protocols))

    # For the context

    @property
    def settings(self) -> Settings:
        """What has been said so far."""
        return self._settings

    def freeze(self) -> None:
        """Refuse changes from now on."""
        self._frozen = True

    def _refuse_second_trust_store(self, first: object) -> None:
        if first is not None:
            raise errors.make(
                CommonErrorCode.ERROR_INVALID_STATE,
                "the trust store was overridden already: give all certificates in one call",
            )

    def _change(self, **changes: Any) -> None:
        if self._frozen:
            raise errors.make(
                CommonErrorCode.ERROR_INVALID_STATE,
                "a TlsContext was built of these options: change a copy(), and build another",
            )
        self._settings = replace(self._settings, **changes)


def _bytes(data: bytes, what: str) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{what} must be bytes, got {type(data).__name__}")
    return bytes(data)


def _read(path: PathLike) -> bytes:
    return Path(path).read_bytes()


def _only(wanted: Sequence[PemObjectType], data: bytes, what: str) -> bytes:
    """The objects of the wanted types in PEM data, without what is around them."""
    try:
        found = pem.parse(_bytes(data, what))
    except errors.AwsIoError as exc:
        raise errors.make(exc.code, f"{what}: {exc.detail}") from exc
    objects = [each.to_pem() for each in found if each.type in wanted]
    if not objects:
        labels = ", ".join(each.type_string for each in found)
        hint = "; decrypt it, or use PKCS#12" if "ENCRYPTED" in labels else ""
        raise errors.make(
            ErrorCode.IO_FILE_VALIDATION_FAILURE, f"{what}: none among {labels}{hint}"
        )
    return "".join(objects).encode()
