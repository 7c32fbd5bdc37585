"""The TLS engine: however its input is cut, the same things happen, whatever is wrong with it."""

import random
import ssl
from collections.abc import Callable

import pytest
import trustme

from aws_io_async import errors
from aws_io_async._tls_state import TlsState
from tests import tls_engines
from tests.certificates import EXPIRED, issue
from tests.tls_channels import lenient_server
from tests.tls_engines import (
    Split,
    Wire,
    client_context,
    randomly,
    server_context,
    single_bytes,
    whole,
)
from tests.tls_messages import HANDSHAKE_FAILURE, fatal
from tests.tls_peers import HOST, TLS12, TLS13

version = tls_engines.version
contexts = tls_engines.contexts

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

WAYS = {"single bytes": single_bytes, **{f"random {seed}": randomly(seed) for seed in range(6)}}


class Story:
    """What an engine makes of its input: its news, and the plaintext."""

    def __init__(self, contexts: Contexts, split: Split) -> None:
        self._wire = Wire(*contexts)
        self.engine = self._wire.engine
        self.peer = self._wire.peer
        self._split = split
        self._chooser = random.Random(1)
        self.news: list[str] = []
        self.plaintext = b""

    def feed(self, data: bytes) -> None:
        """Bytes from the network, cut into pieces, each looked at before the next."""
        for piece in self._split(data):
            self.engine.receive_data(piece)
            self._look()

    def end(self) -> None:
        """The network ends."""
        self.engine.receive_eof()
        self._look()

    def meet(self) -> None:
        """Exchange messages until neither has any for the other."""
        self._look()
        while True:
            said = self.engine.data_to_send()
            if said:
                self.peer.incoming.write(said)
            try:
                self.peer.handshake()
                self.peer.read()
            except ssl.SSLError:
                pass
            answer = self.peer.outgoing.read()
            if not said and not answer:
                return
            self.feed(answer)

    def _look(self) -> None:
        try:
            if self.engine.state is TlsState.HANDSHAKE:
                if not self.engine.handshake():
                    return
                self._note("open")
            while data := self._read():
                self.plaintext += data
            if data == b"":
                self._note("closed" if self.engine.clean_close else "cut")
        except ssl.SSLError as exc:
            error = errors.translate(exc, fallback=errors.ErrorCode.IO_TLS_ERROR_READ_FAILURE)
            self._note(f"{error.code.name}: {error.detail}")

    def _read(self) -> bytes | None:
        """Some plaintext, by one of the three ways to read it."""
        match self._chooser.randrange(3):
            case 0:
                return self.engine.read(self._chooser.choice([1, 100, 1 << 16]))
            case 1:
                buffer = bytearray(self._chooser.choice([1, 100, 1 << 16]))
                size = self.engine.read_into(buffer)
                return None if size is None else bytes(buffer[:size])
            case _:
                return self.engine.read_available()

    def _note(self, news: str) -> None:
        if news not in self.news[-1:]:  # what cannot change is told again and again
            self.news.append(news)


def told_alike(contexts: Contexts, tell: Callable[[Story], None]) -> Story:
    """The story, if it is the same with its bytes in one piece and in many."""
    expected = Story(contexts, whole)
    tell(expected)
    for way, split in WAYS.items():
        story = Story(contexts, split)
        tell(story)
        assert story.news == expected.news, way
        assert story.plaintext == expected.plaintext, way
    return expected


# In the handshake


def test_a_certificate_that_is_refused(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    server = lenient_server(issue(ca, HOST, valid=EXPIRED), version).ssl_context
    story = told_alike((client_context(ca, version), server), Story.meet)
    expired = "certificate has expired (OpenSSL verify code 10)"
    assert story.news == [f"IO_TLS_CERTIFICATE_EXPIRED: {expired}"]


def test_a_certificate_that_the_peer_refuses(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    client = client_context(trustme.CA(), version)
    story = told_alike((server_context(ca, version), client), Story.meet)
    assert story.news == ["IO_TLS_PEER_CERTIFICATE_UNKNOWN: TLSV1_ALERT_UNKNOWN_CA"]


@pytest.mark.parametrize("newer", ["engine", "peer"])
def test_versions_that_do_not_overlap(ca: trustme.CA, newer: str) -> None:
    ours, theirs = (TLS13, TLS12) if newer == "engine" else (TLS12, TLS13)
    story = told_alike((client_context(ca, ours), server_context(ca, theirs)), Story.meet)
    (news,) = story.news
    assert news.startswith("IO_TLS_ERROR_")


@pytest.mark.parametrize(
    "noise",
    {
        "HTTP": b"GET / HTTP/1.1\r\nHost: peer.example\r\n\r\n",
        "zeros": bytes(300),
        "oversized": b"\x16\x03\x03\xff\xff" + bytes(300),
        "an alert": fatal(HANDSHAKE_FAILURE),
        "application data": b"\x17\x03\x03\x00\x10" + bytes(16),
        "noise": random.Random(1).randbytes(300),
    }.items(),
    ids=lambda each: each[0],
)
def test_noise(contexts: Contexts, noise: tuple[str, bytes]) -> None:
    def tell(story: Story) -> None:
        story.feed(noise[1])
        story.end()

    story = told_alike(contexts, tell)
    assert len(story.news) == 1
    assert story.plaintext == b""


@pytest.mark.parametrize("missing", [1, 2, 5, 50])
def test_the_end_comes_in_the_handshake(contexts: Contexts, missing: int) -> None:
    def tell(story: Story) -> None:
        story.peer.incoming.write(story.engine.data_to_send())
        story.peer.handshake()
        story.feed(story.peer.outgoing.read()[:-missing])
        story.end()

    story = told_alike(contexts, tell)
    assert story.news == ["IO_TLS_CLOSED_ABORT: the peer left in the handshake"]


# Later

MESSAGES = [b"a", b"b" * 100, b"c" * 2000, b"d" * 3]


def flipped(records: bytes) -> bytes:
    return records[:-1] + bytes([records[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda records: records,
    "flipped": flipped,
    "truncated": lambda records: records[:-12],
    "oversized": lambda records: b"\x17\x03\x03\xff\xff" + bytes(20_000),
    "of an unknown kind": lambda records: b"\x63\x03\x03\x00\x10" + bytes(16),
    "replayed": lambda records: records + records,
    "plain": lambda records: b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("closes", [False, True], ids=["cut", "closed"])
def test_records_that_are_damaged(contexts: Contexts, damage: str, closes: bool) -> None:
    def tell(story: Story) -> None:
        story.meet()
        good = b"".join(map(story.peer.write, MESSAGES))
        bad = DAMAGE[damage](story.peer.write(b"the last one"))
        story.feed(good + bad + (story.peer.close() if closes else b""))
        story.end()

    story = told_alike(contexts, tell)
    opened, *news = story.news
    assert opened == "open"
    fault, said = damage not in ("none", "truncated"), b"".join(MESSAGES)
    if fault or (damage == "truncated" and closes):
        assert [each.partition(":")[0] for each in news] == ["IO_TLS_ERROR_READ_FAILURE"]
    else:
        assert news == ["closed" if closes else "cut"]
    if damage in ("none", "replayed"):
        said += b"the last one"
    assert story.plaintext == said
