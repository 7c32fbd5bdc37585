"""Asking TLS servers what they agree to: by `openssl s_client`, and by hellos made by hand.

What the openssl command has not any more (SSL 3, RC4, export ciphers …) can only be asked for by
hand. A hello may offer anything: the server's answer says what it takes of that.
"""

import asyncio
import os
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tests.tls_channels import PATIENCE
from tests.tls_messages import ALERT, CLIENT_HELLO, HANDSHAKE, SECURE_RENEGOTIATION, SERVER_HELLO
from tests.tls_messages import sized as vector
from tests.tls_programs import found

FALLBACK_SCSV = 0x5600
"""In a hello, says that the client tried a higher version before (RFC 7507)."""

SUITES_A_HELLO = 8000
"""As many as fit into one record."""


@dataclass(frozen=True)
class Answer:
    """What `openssl s_client` came to, and all that it printed."""

    version: str | None
    suite: str | None
    output: str


async def s_client(port: int, options: str) -> Answer:
    """Connect, without a look at the server's certificate, and hang up."""
    command = f"s_client -connect 127.0.0.1:{port} -servername localhost {options}".split()
    client = await asyncio.create_subprocess_exec(
        found("openssl"), *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    async with asyncio.timeout(PATIENCE):
        said, _ = await client.communicate()
    output = said.decode(errors="replace")
    assert "CONNECTED" in output, output
    agreed = re.search(r"New, (\S+), Cipher is (\S+)", output)
    if agreed is None or agreed[2] == "(NONE)":
        return Answer(None, None, output)
    version = re.search(r"^ *Protocol *: (\S+)$", output, re.MULTILINE)
    return Answer(version[1] if version else agreed[1], agreed[2], output)


async def suites_of_openssl(version: str) -> list[str]:
    """All suites that the openssl command can offer, those that nobody should take among them."""
    everything = ("ciphers", "-s", f"-{version}", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    openssl = await asyncio.create_subprocess_exec(found("openssl"), *everything, stdout=PIPE)
    said, _ = await openssl.communicate()
    return said.decode().strip().split(":")


async def agreed_suites(port: int) -> set[str]:
    """Those of TLS 1.2 that a server takes: it chooses, and is asked again without its choice."""
    left, agreed = await suites_of_openssl("tls1_2"), set[str]()
    while True:
        answer = await s_client(port, f"-tls1_2 -cipher {':'.join(left)}:@SECLEVEL=0")
        if answer.suite is None:
            return agreed
        agreed.add(answer.suite)
        left.remove(answer.suite)


def hello(suites: Iterable[int], version: bytes = b"\x03\x03", extensions: bytes = b"") -> bytes:
    """A hello of TLS 1.2 and below (RFC 5246, section 7.4.1.2), in one record."""
    numbers = b"".join(suite.to_bytes(2) for suite in suites)
    groups = b"".join(group.to_bytes(2) for group in (29, 23, 24, 25))
    signatures = bytes.fromhex("040105010601040305030603080408050806020102030101")
    known = SECURE_RENEGOTIATION + b"".join(
        kind.to_bytes(2) + vector(body, 2)
        for kind, body in (
            (10, vector(groups, 2)),
            (11, vector(b"\0", 1)),
            (13, vector(signatures, 2)),
        )
    )
    body = version + os.urandom(32) + b"\0" + vector(numbers, 2) + b"\1\0"
    body += vector(known + extensions, 2)
    handshake = bytes([CLIENT_HELLO]) + vector(body, 3)
    return bytes([HANDSHAKE]) + b"\x03\x01" + vector(handshake, 2)


def hello_of_ssl_2() -> bytes:
    """RSA with RC4, and with export RC4 (the SSL 2.0 specification, section 2.5)."""
    suites, challenge = b"\x01\x00\x80\x02\x00\x80", os.urandom(16)
    body = b"\1\0\2" + len(suites).to_bytes(2) + b"\0\0\0\x10" + suites + challenge
    return (0x8000 | len(body)).to_bytes(2) + body


async def ask(port: int, message: bytes) -> int | str:
    """The suite that a server answers a hello with, or "alert N", or "nothing"."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message)
        async with asyncio.timeout(PATIENCE):
            header = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(header[3:]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return "nothing"
    finally:
        writer.close()
    if header[0] == ALERT:
        return f"alert {body[1]}"
    assert (header[0], body[0]) == (HANDSHAKE, SERVER_HELLO)
    after_session = 4 + 2 + 32 + 1 + body[38]
    return int.from_bytes(body[after_session : after_session + 2])


async def agreed_numbers(port: int, left_out: Collection[int] = ()) -> set[int]:
    """The suites of TLS 1.2 that a server takes of all 65,536 numbers that there can be."""
    agreed = set[int]()
    for first in range(0, 1 << 16, SUITES_A_HELLO):
        left = [
            suite
            for suite in range(first, min(first + SUITES_A_HELLO, 1 << 16))
            if suite not in left_out
        ]
        while isinstance(suite := await ask(port, hello(left)), int):
            agreed.add(suite)
            left.remove(suite)
    return agreed
