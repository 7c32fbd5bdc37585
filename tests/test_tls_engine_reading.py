"""The TLS engine: what is read, however it comes."""

import random
import ssl

import pytest
import trustme

from aws_io_async._tls_engine import MAX_PLAINTEXT
from aws_io_async._tls_state import TlsState
from tests import tls_engines
from tests.tls_engines import (
    Split,
    Wire,
    client_context,
    randomly,
    record_fault,
    server_context,
    single_bytes,
    whole,
)

version = tls_engines.version
contexts = tls_engines.contexts
wire = tls_engines.wire


# Reading


@pytest.mark.parametrize(
    "split",
    [whole, single_bytes, *map(randomly, range(5))],
    ids=["whole", "single bytes", *map(str, range(5))],
)
def test_however_the_ciphertext_is_cut(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], split: Split
) -> None:
    wire = Wire(*contexts)
    events: list[str] = []
    received = b""
    messages = [b"a", b"b" * 100, b"c" * MAX_PLAINTEXT, b"d" * (MAX_PLAINTEXT + 1), b"e" * 3]
    sent = False

    def see_what_came() -> bytes:
        if wire.state() is TlsState.HANDSHAKE:
            if not wire.engine.handshake():
                return b""
            events.append("open")
        data = b""
        while more := wire.engine.read_available():
            data += more
        if more == b"":
            events.append("closed")
        return data

    received += see_what_came()
    while "closed" not in events:
        wire.to_peer()
        if not sent and wire.peer.handshake():
            for message in messages:
                wire.peer.ssl.write(message)
            wire.peer.say_close()
            sent = True
        for piece in split(wire.peer.outgoing.read()):
            wire.engine.receive_data(piece)
            received += see_what_came()
    assert received == b"".join(messages)
    assert events == ["open", "closed"]
    assert wire.engine.clean_close


@pytest.mark.parametrize(
    "split",
    [whole, single_bytes, *map(randomly, range(5))],
    ids=["whole", "single bytes", *map(str, range(5))],
)
@pytest.mark.parametrize("answering", [False, True])
def test_receiving_and_reading_at_once_loses_nothing(
    wire: Wire, split: Split, answering: bool
) -> None:
    sizes = [1, 100, 1, MAX_PLAINTEXT, 7, MAX_PLAINTEXT + 1, 3, 3]
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    received = answered = b""

    def take(data: bytes | None) -> None:
        nonlocal received, answered
        received += data or b""
        if data and answering:
            ciphertext = wire.engine.encrypt(data)
            assert ciphertext is not None
            answered += wire.peer.read(ciphertext)

    for message in messages:
        for piece in split(wire.peer.write(message)):
            take(wire.engine.receive_and_read(piece))
            assert not wire.engine.settled or wire.engine.idle
            while not wire.engine.settled and (data := wire.engine.read(1 << 20)):
                take(data)
    assert received == b"".join(messages)
    assert answered == (received if answering else b"")
    for piece in split(wire.peer.write(b"the end")):
        take(wire.engine.receive_and_read(piece))
    assert received == b"".join(messages) + b"the end"
    wire.peer.say_close()
    for piece in split(wire.peer.outgoing.read()):
        last = wire.engine.receive_and_read(piece)
    assert last == b""
    assert wire.engine.state is TlsState.PEER_CLOSED
    assert wire.engine.clean_close
    assert not wire.engine.settled


def test_receiving_and_reading_a_message_at_a_time_settles_the_engine(wire: Wire) -> None:
    settled = []
    for size in (10, 1000, 10, 20):
        data = wire.engine.receive_and_read(wire.peer.write(b"x" * size))
        assert data == b"x" * size
        settled.append(wire.engine.settled)
        wire.peer.read(wire.engine.encrypt(data) or b"")
    assert all(settled)
    wire.engine.write(b"not sent yet")
    assert not wire.engine.settled


def test_receiving_and_reading_nothing_is_not_the_end(wire: Wire) -> None:
    for _ in range(3):
        assert wire.engine.receive_and_read(b"") is None
        assert wire.engine.receive_and_read(wire.peer.write(b"x")) == b"x"
    assert wire.engine.state is TlsState.OPEN
    assert wire.engine.settled


def test_receiving_and_reading_what_is_damaged_fails_like_a_read(wire: Wire) -> None:
    for times in range(3):
        damaged = bytearray(wire.peer.write(b"x" * 100))
        if times == 2:
            damaged[-1] ^= 1
            with pytest.raises(ssl.SSLError):
                wire.engine.receive_and_read(damaged)
        else:
            assert wire.engine.receive_and_read(damaged) == b"x" * 100
    assert wire.engine.state is TlsState.FAILED
    with pytest.raises(ssl.SSLError):
        wire.engine.receive_and_read(b"more")


def test_all_that_has_come_is_read_in_one_piece(wire: Wire) -> None:
    for size in (1, 1000, 40_000, 7):
        wire.peer.ssl.write(b"x" * size)
    wire.to_engine()
    data = wire.engine.read_available()
    assert data == b"x" * 41_008
    assert not wire.engine.readable
    assert wire.engine.read_available() is None


@pytest.mark.parametrize("limit", [1, 100, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, 1 << 20])
def test_a_read_keeps_to_its_limit(wire: Wire, limit: int) -> None:
    sent = random.Random(1).randbytes(2000 if limit == 1 else 50_000)
    wire.peer.ssl.write(sent)
    wire.to_engine()
    received = b""
    while data := wire.engine.read(limit):
        assert len(data) <= limit
        received += data
    assert received == sent
    assert data is None


def test_what_a_read_left_is_read_by_the_next_of_any_kind(wire: Wire) -> None:
    wire.peer.ssl.write(b"0123456789")
    wire.peer.ssl.write(b"abcdef")
    wire.to_engine()
    assert wire.engine.read(2) == b"01"
    buffer = bytearray(3)
    assert wire.engine.read_into(buffer) == 3
    assert buffer == b"234"
    assert wire.engine.readable
    assert wire.engine.read_available() == b"56789abcdef"


@pytest.mark.parametrize("size", [1, 1000, MAX_PLAINTEXT, 50_000, 100_000])
def test_a_buffer_is_filled_from_as_many_records_as_it_takes(wire: Wire, size: int) -> None:
    sent = random.Random(2).randbytes(3000 if size == 1 else 60_000)
    for start in range(0, len(sent), 10_000):
        wire.peer.ssl.write(sent[start : start + 10_000])
    wire.to_engine()
    buffer, received = bytearray(size), b""
    while count := wire.engine.read_into(memoryview(buffer)):
        received += buffer[:count]
        assert count == size or len(received) == len(sent)
    assert count is None
    assert received == sent


def test_reads_of_nothing_are_misuse(wire: Wire) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        wire.engine.read(0)
    with pytest.raises(ValueError, match="empty"):
        wire.engine.read_into(bytearray())


def test_half_a_record_is_nothing_to_read(wire: Wire) -> None:
    wire.peer.ssl.write(b"message")
    ciphertext = wire.peer.outgoing.read()
    wire.engine.receive_data(ciphertext[:-1])
    assert wire.engine.read(100) is wire.engine.read_available() is None
    assert wire.engine.read_into(bytearray(10)) is None
    wire.engine.receive_data(ciphertext[-1:])
    assert wire.engine.read(100) == b"message"


def test_session_tickets_are_nothing_to_read(ca: trustme.CA) -> None:
    wire = Wire(client_context(ca), server_context(ca))
    while not wire.engine.handshake():
        wire.to_peer()
        wire.peer.handshake()
        wire.to_engine()
    wire.to_peer()
    assert wire.peer.handshake()
    tickets = wire.peer.outgoing.read()
    assert tickets
    wire.engine.receive_data(tickets)
    assert wire.engine.read(100) is None
    wire.engine.receive_eof()
    assert wire.engine.read(100) == b""


def test_tickets_and_then_the_end(ca: trustme.CA) -> None:
    wire = Wire(client_context(ca), server_context(ca))
    while not wire.engine.handshake():
        wire.to_peer()
        wire.peer.handshake()
        wire.to_engine()
    wire.to_peer()
    assert wire.peer.handshake()
    wire.to_engine()
    wire.engine.receive_eof()
    assert wire.engine.read_available() == b""
    assert wire.state() is TlsState.PEER_CLOSED


# Failures of an open connection


def test_a_corrupted_record_fails_after_what_came_before_it(wire: Wire) -> None:
    wire.peer.ssl.write(b"good")
    good = wire.peer.outgoing.read()
    wire.peer.ssl.write(b"bad")
    bad = bytearray(wire.peer.outgoing.read())
    bad[-1] ^= 1
    wire.engine.receive_data(good + bad)
    assert wire.engine.read_available() == b"good"
    with pytest.raises(ssl.SSLError) as caught:
        wire.engine.read_available()
    assert caught.value.reason == record_fault("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
    assert wire.state() is TlsState.FAILED
    with pytest.raises(ssl.SSLError):
        wire.engine.write(b"more")
    wire.to_peer()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        wire.peer.read()


def test_plain_text_on_an_open_connection_fails(wire: Wire) -> None:
    wire.engine.receive_data(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        wire.engine.read(100)
    wire.engine.receive_data(b"what comes later does not matter")
    assert wire.state() is TlsState.FAILED
