"""SoftHSM2, a token in software: its tokens lie in a folder of the test's own."""

import glob
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PLACES = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/*/softhsm/libsofthsm2.so",
    "/usr/lib*/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
]


def softhsm() -> str:
    """The library, from TEST_PKCS11_LIB or where packages put it; skips the test without."""
    found = [os.environ.get("TEST_PKCS11_LIB", ""), *(p for g in PLACES for p in glob.glob(g))]
    module = next(filter(None, found), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed (Debian: softhsm2)")
    return module


class Hsm:
    """Tokens in `folder`, and the tool that makes them."""

    def __init__(self, module: str, folder: Path) -> None:
        self.module = module
        self.configuration = folder / "softhsm2.conf"
        self._tokens = folder / "tokens"
        self._tokens.mkdir()
        self.configuration.write_text(f"directories.tokendir = {self._tokens}\n")

    def clear(self) -> None:
        """Forget all tokens."""
        shutil.rmtree(self._tokens)
        self._tokens.mkdir()

    def init_token(self, label: str, pin: str, so_pin: str) -> None:
        self._util("--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", so_pin)

    def import_key(
        self, token: str, pin: str, key: PrivateKeyTypes, label: str, identifier: str
    ) -> None:
        """Put a key into a token; `identifier` is in hexadecimal digits."""
        path = self.configuration.with_name("key.p8")
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._util(
            "--import", str(path), "--token", token, "--pin", pin, "--label", label,
            "--id", identifier,
        )  # fmt: skip

    def _util(self, *arguments: str) -> None:
        subprocess.run(
            ["softhsm2-util", "--module", self.module, *arguments],
            check=True,
            capture_output=True,
            timeout=30,
            env={**os.environ, "SOFTHSM2_CONF": str(self.configuration)},
        )
