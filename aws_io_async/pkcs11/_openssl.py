"""Keys in tokens for TLS handshakes, by OpenSSL's PKCS#11 provider.

Python's `ssl` reads private keys from PEM files and has no callback that signs, so a key that never
leaves its token cannot be handed to it. But OpenSSL 3 has the reading of PEM done by its providers,
and pkcs11-provider reads one with the URI of a key, which it then has the token sign with. What is
missing is that provider in the OpenSSL that Python uses: `load_provider`, or the text of
`provider_configuration` in a file that OPENSSL_CONF names when the process starts. docs/pkcs11.md
has the experiment.

Sources: RFC 7512 (PKCS#11 URIs); pkcs11-provider's documentation (its PEM files).
"""

import ctypes
import os
import tempfile
import threading
import urllib.parse
from collections.abc import Mapping

from .. import errors
from .._openssl_keys import reason as openssl_reason
from ..errors import ErrorCode
from ..pem import PemObject, PemObjectType
from ..shared_library import SharedLibrary
from ._signatures import der

PEM_LABEL = "PKCS#11 PROVIDER URI"
PROVIDER = "pkcs11"

_VISIBLE_STRING, _UTF8_STRING, _SEQUENCE = 0x1A, 0x0C, 0x30
_UNRESERVED = ":[]@!$'()*+,="  # what a path attribute of RFC 7512 may have beside letters

_lock = threading.Lock()


def key_uri(
    key_label: str | None = None,
    *,
    token_label: str | None = None,
    slot_id: int | None = None,
    pin: str | None = None,
    pin_source: str | None = None,
) -> str:
    """The URI of a private key (RFC 7512).

    `pin_source` is the URI of a file that holds the PIN: safer than `pin`, which then stands in the
    URI for all to read. Raises `ValueError` if neither a key nor a token is named, or both PINs.
    """
    if key_label is None and token_label is None and slot_id is None:
        raise ValueError("name the key by key_label, or its token by token_label or slot_id")
    if pin is not None and pin_source is not None:
        raise ValueError("pass either pin or pin_source")
    path = {"slot-id": slot_id, "token": token_label, "object": key_label, "type": "private"}
    query = {"pin-value": pin, "pin-source": pin_source}
    uri = "pkcs11:" + ";".join(_attributes(path))
    return "?".join((uri, *_attributes(query)))


def _attributes(attributes: Mapping[str, str | int | None]) -> list[str]:
    return [
        f"{name}={urllib.parse.quote(str(value), safe=_UNRESERVED)}"
        for name, value in attributes.items()
        if value is not None
    ]


def key_pem(uri: str) -> str:
    """A PEM file that stands for the key at `uri`, wherever OpenSSL reads a private key.

    For `TlsContextOptions.client_mtls` and `default_server`, `ssl.SSLContext.load_cert_chain` …
    It needs pkcs11-provider to be loaded. Raises `ValueError` for what is no PKCS#11 URI.
    """
    if not uri.startswith("pkcs11:"):
        # Not shown, as there may be a PIN in it.
        raise ValueError("this is no PKCS#11 URI, they begin with pkcs11: (key_uri() makes one)")
    description = der(_VISIBLE_STRING, b"PKCS#11 Provider URI v1.0")
    data = der(_SEQUENCE, description + der(_UTF8_STRING, uri.encode()))
    return PemObject(PemObjectType.UNKNOWN, PEM_LABEL, data).to_pem()


def provider_configuration(
    module: str | os.PathLike[str], provider: str | os.PathLike[str] = PROVIDER
) -> str:
    """What OpenSSL must be configured with, as a file for OPENSSL_CONF.

    `module` is the PKCS#11 library to use. `provider` is the file of pkcs11-provider, or its name
    in OpenSSL's own folder.
    """
    return f"""\
openssl_conf = openssl_init

[openssl_init]
providers = providers
alg_section = algorithms

[providers]
default = default_provider
{PROVIDER} = pkcs11_provider

[default_provider]
activate = 1

# Keys are not copied into sessions: with SoftHSM, the copy is gone with the first of two contexts
# that have the same key. The library is not ended with the process, when SoftHSM's own OpenSSL is
# gone already.
[pkcs11_provider]
module = {os.fspath(provider)}
pkcs11-module-path = {os.fspath(module)}
pkcs11-module-cache-keys = false
pkcs11-module-quirks = no-deinit
activate = 1

# The token does what only it can do. Without this, it is also asked for the keys of each handshake.
[algorithms]
default_properties = ?provider=default
"""


def load_provider(
    module: str | os.PathLike[str], provider: str | os.PathLike[str] = PROVIDER
) -> None:
    """Load pkcs11-provider into the OpenSSL that `ssl` uses, for the rest of the process.

    Does what OpenSSL does at its start with `provider_configuration(module, provider)`; see there.
    Call it before the first TLS context is made. Nothing happens if the provider is there already.

    Raises `AwsIoError`: IO_TLS_CTX_ERROR with OpenSSL's reason if it cannot be loaded, and
    IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE if Python's OpenSSL has no providers or is no shared
    library: then, OPENSSL_CONF is the way.
    """
    import _ssl

    # By the handle of Python's own module, so that it is this OpenSSL and not another one.
    with _lock, SharedLibrary(getattr(_ssl, "__file__", None)) as openssl:
        signature = (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p])
        is_available = openssl.find_function("OSSL_PROVIDER_available", *signature)
        load_configuration = openssl.find_function("OSSL_LIB_CTX_load_config", *signature)
        if is_available(None, PROVIDER.encode()):
            return
        with tempfile.NamedTemporaryFile("w", suffix=".cnf") as file:
            file.write(provider_configuration(module, provider))
            file.flush()
            loaded = load_configuration(None, os.fsencode(file.name))
        reason = openssl_reason(openssl)
        if not loaded or not is_available(None, PROVIDER.encode()):
            detail = f"OpenSSL cannot load the provider {os.fspath(provider)}: {reason}"
            raise errors.make(ErrorCode.IO_TLS_CTX_ERROR, detail)
