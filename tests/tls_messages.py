"""TLS by hand: what a client offers, and a server that answers with what no OpenSSL would choose.

The server speaks TLS 1.2 (RFC 5246) up to the end of its first flight, which is where clients
refuse its ciphers and its groups.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.certificates import issue

ALERT, HANDSHAKE = 21, 22
"""Content types of records (RFC 5246, section 6.2.1)."""

CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE, SERVER_HELLO_DONE = 1, 2, 11, 12, 14
"""Types of handshake messages (section 7.4)."""

HANDSHAKE_FAILURE, ILLEGAL_PARAMETER = 40, 47
"""Descriptions of alerts (section 7.2)."""

RSA_WITH_RC4_128_MD5, RSA_WITH_RC4_128_SHA = 0x0004, 0x0005
RSA_WITH_NULL_SHA256 = 0x003B
DHE_RSA_WITH_AES_128_GCM_SHA256 = 0x009E
"""Cipher suites (RFC 5246, appendix A.5; RFC 5288)."""

TLS_1_2 = b"\x03\x03"
RSA_PKCS1_SHA256 = b"\x04\x01"
SECURE_RENEGOTIATION = b"\xff\x01\x00\x01\x00"
"""An extension (RFC 5746) that OpenSSL insists on."""


@dataclass(frozen=True)
class ClientHello:
    """What a client offers (RFC 8446, section 4.1.2)."""

    random: bytes
    cipher_suites: list[int]
    extensions: dict[int, bytes]

    @classmethod
    def parse(cls, record: bytes) -> "ClientHello":
        """The one that fills a whole record."""
        assert record[0] == HANDSHAKE
        assert record[5] == CLIENT_HELLO
        random, rest = record[11:43], record[43:]
        rest = rest[1 + rest[0] :]  # session
        size = 2 + int.from_bytes(rest[:2])
        suites, rest = numbers(rest[2:size]), rest[size:]
        rest = rest[1 + rest[0] + 2 :]  # compression methods
        extensions = {}
        while rest:
            size = 4 + int.from_bytes(rest[2:4])
            extensions[int.from_bytes(rest[:2])], rest = rest[4:size], rest[size:]
        return cls(random, suites, extensions)

    @property
    def groups(self) -> list[int]:
        """For the key exchange (section 4.2.7)."""
        return numbers(self.extensions[10][2:])


def numbers(data: bytes) -> list[int]:
    """A vector of two-byte numbers, without its length."""
    return [int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2)]


def sized(data: bytes, length_bytes: int) -> bytes:
    return len(data).to_bytes(length_bytes) + data


def record(content_type: int, data: bytes) -> bytes:
    return bytes([content_type]) + TLS_1_2 + sized(data, 2)


def message(kind: int, body: bytes) -> bytes:
    """A handshake message, in a record of its own."""
    return record(HANDSHAKE, bytes([kind]) + sized(body, 3))


def fatal(description: int) -> bytes:
    """An alert that ends the connection."""
    return record(ALERT, bytes([2, description]))


class HandMadeServer:
    """Answers a hello with a cipher suite that it does not look for in it; with a DHE suite, by
    Diffie-Hellman with the prime. Or else it answers with an alert."""

    def __init__(self, ca: trustme.CA, host: str, *, prime: int = 0) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        pem, _ = issue(ca, host, key=self._key)
        self._certificate = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        self._prime = prime

    def flight(self, hello: ClientHello, suite: int) -> bytes:
        """All that a server says before it hears from the client again."""
        random = os.urandom(32)
        chosen = b"\0" + suite.to_bytes(2) + b"\0" + sized(SECURE_RENEGOTIATION, 2)
        flight = message(SERVER_HELLO, TLS_1_2 + random + chosen)
        flight += message(CERTIFICATE, sized(sized(self._certificate, 3), 3))
        if self._prime:
            size = (self._prime.bit_length() + 7) // 8
            public = pow(2, 12345, self._prime)
            parameters = b"".join(
                sized(number.to_bytes(length), 2)
                for number, length in ((self._prime, size), (2, 1), (public, size))
            )
            signed = hello.random + random + parameters
            signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
            body = parameters + RSA_PKCS1_SHA256 + sized(signature, 2)
            flight += message(SERVER_KEY_EXCHANGE, body)
        return flight + message(SERVER_HELLO_DONE, b"")


@dataclass
class Conversation:
    """With one client: what it offered, and what it said to the answer."""

    port: int
    hello: "asyncio.Future[ClientHello]"
    reaction: "asyncio.Future[bytes]"


@asynccontextmanager
async def answering(answer: Callable[[ClientHello], bytes]) -> AsyncIterator[Conversation]:
    """A port that gives one client's hello an answer, and listens until it hangs up."""
    loop = asyncio.get_running_loop()
    hello: asyncio.Future[ClientHello] = loop.create_future()
    reaction: asyncio.Future[bytes] = loop.create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(5)
        body = await reader.readexactly(int.from_bytes(header[3:]))
        hello.set_result(ClientHello.parse(header + body))
        writer.write(answer(hello.result()))
        reaction.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Conversation(server.sockets[0].getsockname()[1], hello, reaction)
