"""Where this system keeps the certificates of the authorities that it trusts.

OpenSSL has one place built in, which is wrong as soon as it was built for another system than the
one it runs on; then the places that the distributions use are tried. The environment variables
SSL_CERT_FILE and SSL_CERT_DIR come before all of them, as everywhere with OpenSSL.

Source of the places: aws-c-io, `s2n/s2n_tls_channel_handler.c`.
"""

import os
import ssl

from . import errors
from .errors import ErrorCode

CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat, older
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Red Hat
    "/etc/ssl/cert.pem",  # OpenBSD, Alpine, macOS
)
CA_FOLDERS = (
    "/etc/ssl/certs",  # Debian
    "/etc/pki/tls/certs",  # Red Hat
    "/system/etc/security/cacerts",  # Android
    "/usr/local/share/certs",  # FreeBSD
    "/etc/openssl/certs",  # NetBSD
)


def default_ca_file() -> str | None:
    """The file with the system's trusted certificates, if there is one. Any thread."""
    candidates = (ssl.get_default_verify_paths().cafile, *CA_FILES)
    return next((path for path in candidates if path and os.path.isfile(path)), None)


def default_ca_path() -> str | None:
    """The folder with the system's trusted certificates, if there is one that is not empty.

    Any thread.
    """
    candidates = (ssl.get_default_verify_paths().capath, *CA_FOLDERS)
    return next((path for path in candidates if path and _has_entries(path)), None)


def load_default(context: ssl.SSLContext) -> None:
    """Have `context` trust whom the system trusts.

    Raises IO_TLS_ERROR_DEFAULT_TRUST_STORE_NOT_FOUND if the system has no such certificates.
    """
    file, folder = default_ca_file(), default_ca_path()
    if file is None and folder is None:
        raise errors.make(
            ErrorCode.IO_TLS_ERROR_DEFAULT_TRUST_STORE_NOT_FOUND,
            "install the system's CA certificates, or override the default trust store",
        )
    try:
        context.load_verify_locations(file, folder)
    except OSError as exc:
        detail = f"the system's trust store, {file or folder}"
        raise errors.translate(exc, detail, fallback=ErrorCode.IO_TLS_CTX_ERROR) from exc


def _has_entries(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False
