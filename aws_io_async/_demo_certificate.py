"""A certificate for `localhost`, made on the spot, and TLS contexts that use it.

Neither the standard library nor our one dependency makes certificates: the package `trustme`
does, and so does the `openssl` command that most systems have.
"""

import importlib.util
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

HOST = "localhost"

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


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts for a server on `localhost` and for a client that trusts it alone.

    Raises RuntimeError if there is neither `trustme` nor `openssl`, or if that fails.
    """
    if importlib.util.find_spec("trustme"):
        return _by_trustme()
    if command := shutil.which("openssl"):
        return _by_openssl(command)
    raise RuntimeError(
        'no way to make a certificate: install "aws-io-async[cli]", or the openssl command'
    )


def _by_trustme() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import trustme

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(server)
    client = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    return server, client


def _by_openssl(command: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    with tempfile.TemporaryDirectory() as folder:
        configuration, key, certificate = (Path(folder, name) for name in ("conf", "key", "cert"))
        configuration.write_text(_CONFIGURATION)
        make = [command, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "1"]
        make += ["-config", f"{configuration}", "-keyout", f"{key}", "-out", f"{certificate}"]
        done = subprocess.run(make, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command} failed to make a certificate:\n{done.stderr}")
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(certificate, key)
        return server, ssl.create_default_context(cafile=certificate)
