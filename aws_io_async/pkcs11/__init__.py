"""PKCS#11: private keys that stay in a token (a hardware security module, a TPM, a smart card).

    with Pkcs11Library("/usr/lib/softhsm/libsofthsm2.so") as library:
        with library.open_session(library.find_slot(token_label="my-token")) as session:
            session.login("0000")
            key = session.find_private_key("my-key")
            signature = key.sign(hashlib.sha256(data).digest(), HashAlgorithm.SHA256)

Needs the extra `pkcs11`: python-pkcs11. Of the two bindings that are maintained it is the one that
an Apache-licensed library can ask for (it is MIT, PyKCS11 is GPL), is typed, and runs its tests
with SoftHSM. What it does not do as aws-c-io does is in `_cryptoki`.

TLS with such a key: `client_mtls_options` for clients; `key_pem` and `load_provider` for whatever
reads keys from files. Both are in docs/pkcs11.md.

Source: aws-c-io, `pkcs11.h` and `pkcs11_lib.c`.
"""

from ._library import (
    KeyType,
    LibraryBehavior,
    Pkcs11Library,
    Pkcs11PrivateKey,
    Pkcs11Session,
)
from ._openssl import key_pem, key_uri, load_provider, provider_configuration
from ._signatures import HashAlgorithm, SignatureAlgorithm
from ._tls import Pkcs11KeyOpHandler, client_mtls_options

__all__ = [
    "HashAlgorithm",
    "KeyType",
    "LibraryBehavior",
    "Pkcs11KeyOpHandler",
    "Pkcs11Library",
    "Pkcs11PrivateKey",
    "Pkcs11Session",
    "SignatureAlgorithm",
    "client_mtls_options",
    "key_pem",
    "key_uri",
    "load_provider",
    "provider_configuration",
]
