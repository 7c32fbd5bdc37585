"""A certificate for `localhost`, made on the spot, and TLS contexts that use it.

Neither the standard library nor our one dependency makes certificates: the package `trustme`
does, and so does the `openssl` command that most systems have.
"""

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from .tls_context import TlsContext, TlsContextOptions

HOST = "localhost"
PROTOCOL = "files/1"
"""The application protocol that both ends speak, as they say by ALPN."""

# Written out, as the system's own configuration may be missing, and LibreSSL lacks `-addext`.
_CONFIGURATION = f"""\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {HOST}
[extensions]
subjectAltName = DNS:{HOST}
basicConstraints = critical, CA:true
keyUsage = critical, digitalSignature, keyCertSign
subjectKeyIdentifier = hash
"""


def make_contexts() -> tuple[TlsContext, TlsContext]:
    """TLS contexts for a server on `localhost` and for a client that trusts it alone.

    Raises RuntimeError if there is neither `trustme` nor `openssl`, or if that fails.
    """
    if importlib.util.find_spec("trustme"):
        certificate, key, authority = _by_trustme()
    elif command := shutil.which("openssl"):
        certificate, key = _by_openssl(command)
        authority = certificate
    else:
        raise RuntimeError(
            'no way to make a certificate: install "aws-io-async[cli]", or the openssl command'
        )
    server = TlsContextOptions.default_server(certificate, key)
    server.set_alpn_list(PROTOCOL)
    client = TlsContextOptions.default_client()
    client.override_default_trust_store(authority)
    client.set_alpn_list(PROTOCOL)
    return TlsContext(server), TlsContext(client)


def _by_trustme() -> tuple[bytes, bytes, bytes]:
    """Certificate, private key and the certificate of who issued it, in PEM."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert(HOST)
    certificate = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    return certificate, issued.private_key_pem.bytes(), authority.cert_pem.bytes()


def _by_openssl(command: str) -> tuple[bytes, bytes]:
    """A certificate that issued itself, and its private key, in PEM."""
    with tempfile.TemporaryDirectory() as folder:
        configuration, key, certificate = (Path(folder, name) for name in ("conf", "key", "cert"))
        configuration.write_text(_CONFIGURATION)
        make = [command, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "1"]
        make += ["-config", f"{configuration}", "-keyout", f"{key}", "-out", f"{certificate}"]
        done = subprocess.run(make, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command} failed to make a certificate:\n{done.stderr}")
        return certificate.read_bytes(), key.read_bytes()
