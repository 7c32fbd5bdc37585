"""A certificate for the TLS servers, made on the spot: a key on the curve P-256."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

_MAKE = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
)


def make(folder: Path) -> Path:
    """A file in `folder` with a certificate and its private key, in PEM.

    Raises RuntimeError if there is neither `trustme` nor the `openssl` command, or if that fails.
    """
    file = folder / "server.pem"
    if importlib.util.find_spec("trustme"):
        import trustme

        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
        return file
    command = shutil.which("openssl")
    if command is None:
        raise RuntimeError("no way to make a certificate: install trustme, or the openssl command")
    make = [command, *_MAKE.split(), "-keyout", f"{file}", "-out", f"{folder / 'certificate.pem'}"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed to make a certificate: {done.stderr.strip()}")
    with file.open("ab") as both:
        both.write((folder / "certificate.pem").read_bytes())
    return file
