"""A TLS 1.3 client that asks for new keys as often as it likes, which no OpenSSL lets one do.

It shakes hands by OpenSSL, and then writes with the keys of that connection by itself (RFC 8446,
sections 5.2, 7.2 and 7.3).
"""

import hmac
import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.tls_peers import HOST, TLS13, Peer

APPLICATION_DATA, HANDSHAKE = 23, 22
"""Types of content (section 5.1)."""

KEY_UPDATE = bytes([24, 0, 0, 1, 1])
"""A handshake message that asks for new keys of the other side as well (section 4.6.3)."""

HASH = "sha384"
"""Of TLS_AES_256_GCM_SHA384."""


def expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label without a context, for no more than one block."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2) + bytes([len(name)]) + name + b"\0"
    return hmac.digest(secret, info + b"\1", HASH)[:size]


class Records:
    """The client's records, encrypted by its traffic secret."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(expand(secret, "key", 32))
        self._iv = int.from_bytes(expand(secret, "iv", 12))
        self._number = 0

    def data(self, data: bytes, content_type: int = APPLICATION_DATA) -> bytes:
        """One record of plaintext."""
        inner = data + bytes([content_type])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        nonce = (self._iv ^ self._number).to_bytes(12)
        self._number += 1
        return header + self._cipher.encrypt(nonce, inner, header)

    def key_update(self) -> bytes:
        """One record that asks for new keys; the next ones are written with new keys."""
        record = self.data(KEY_UPDATE, HANDSHAKE)
        self._use(expand(self._secret, "traffic upd", 48))
        return record

    def key_updates(self, number: int) -> bytes:
        return b"".join(self.key_update() for _ in range(number))


class Client(Peer):
    """In memory. It shakes hands, and reads, by OpenSSL; after the handshake, `writer` writes."""

    def __init__(self, ca: trustme.CA, folder: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ca.configure_trust(context)
        context.minimum_version = TLS13
        self._log = folder / "keys"
        context.keylog_filename = str(self._log)
        self._context = context
        super().__init__(context, HOST)

    def writer(self) -> Records:
        """What is written with from now on; to be asked for once."""
        self._context.keylog_filename = None  # type: ignore[assignment]  # it can be: that closes it
        cipher = self.ssl.cipher()
        assert cipher is not None
        assert cipher[0] == "TLS_AES_256_GCM_SHA384"
        for line in self._log.read_text().splitlines():
            label, *_, secret = line.split()
            if label == "CLIENT_TRAFFIC_SECRET_0":
                return Records(bytes.fromhex(secret))
        raise AssertionError("there is no secret before the handshake is over")
