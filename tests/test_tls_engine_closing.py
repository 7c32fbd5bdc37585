"""The TLS engine: connections that end."""

import pytest
import trustme

from aws_io_async._tls_engine import TlsEngine
from aws_io_async._tls_state import TlsState
from tests import tls_engines
from tests.tls_engines import (
    Wire,
    client_context,
)
from tests.tls_peers import HOST

version = tls_engines.version
contexts = tls_engines.contexts
wire = tls_engines.wire


# Closing


def test_the_peer_closes_first(wire: Wire) -> None:
    wire.peer.ssl.write(b"last words")
    wire.peer.say_close()
    wire.to_engine()
    assert wire.engine.read(4) == b"last"
    assert wire.engine.read_available() == b" words"
    assert wire.engine.read(100) == b""
    assert wire.engine.read_into(bytearray(5)) == 0
    assert wire.state() is TlsState.PEER_CLOSED
    assert wire.engine.clean_close
    wire.engine.write(b"an answer")
    wire.engine.shutdown()
    assert wire.state() is TlsState.CLOSED
    wire.to_peer()
    assert wire.peer.read() == b"an answer"
    wire.peer.ssl.unwrap()


def test_we_close_first(wire: Wire) -> None:
    wire.engine.write(b"last words")
    wire.engine.shutdown()
    assert wire.state() is TlsState.SHUTTING_DOWN
    wire.to_peer()
    assert wire.peer.read() == b"last words"
    wire.peer.ssl.write(b"too late")
    wire.to_engine()
    assert wire.engine.read(100) == b""
    assert wire.state() is TlsState.SHUTTING_DOWN
    wire.peer.say_close()
    wire.to_engine()
    assert wire.state() is TlsState.CLOSED
    assert wire.engine.clean_close
    assert wire.engine.read_available() == b""


@pytest.mark.parametrize("read_first", [0, 5])
def test_closing_discards_what_was_not_read(wire: Wire, read_first: int) -> None:
    wire.peer.ssl.write(b"x" * 50_000)
    wire.to_engine()
    if read_first:
        assert wire.engine.read(read_first) == b"x" * read_first
    wire.engine.shutdown()
    assert wire.engine.read_available() == b""
    assert wire.state() is TlsState.SHUTTING_DOWN
    wire.to_peer()
    assert wire.peer.read() == b""
    wire.peer.ssl.unwrap()  # the close_notify was received, and none too many
    wire.to_engine()
    assert wire.state() is TlsState.CLOSED


def test_both_close_at_once(wire: Wire) -> None:
    wire.peer.ssl.write(b"unread")
    wire.peer.say_close()
    wire.to_engine()
    wire.engine.shutdown()
    assert wire.state() is TlsState.CLOSED
    assert wire.engine.clean_close
    wire.to_peer()
    wire.peer.ssl.unwrap()


def test_closing_ends_with_the_network(wire: Wire) -> None:
    wire.engine.shutdown()
    wire.engine.receive_eof()
    assert wire.state() is TlsState.CLOSED
    assert not wire.engine.clean_close


def test_nothing_can_be_written_once_closed(wire: Wire) -> None:
    wire.engine.shutdown()
    wire.engine.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        wire.engine.write(b"more")
    wire.engine.abandon()
    with pytest.raises(RuntimeError, match="after shutdown"):
        wire.engine.write(b"more")


def test_garbage_while_closing_fails_quietly(wire: Wire) -> None:
    wire.engine.shutdown()
    wire.engine.receive_data(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire.state() is TlsState.FAILED


def test_closing_in_the_handshake_is_silent(ca: trustme.CA) -> None:
    engine = TlsEngine(client_context(ca), server_side=False, server_hostname=HOST)
    engine.write(b"never sent")
    engine.shutdown()
    assert engine.state is TlsState.CLOSED
    assert engine.data_to_send() == b""
    assert engine.unsent == 0
    assert engine.read(1) == b""


@pytest.mark.parametrize("cut", [0, 1, 3, 10])
def test_a_connection_that_is_cut(wire: Wire, cut: int) -> None:
    wire.peer.ssl.write(b"whole")
    complete = wire.peer.outgoing.read()
    wire.peer.ssl.write(b"not whole")
    wire.engine.receive_data(complete + wire.peer.outgoing.read()[:cut])
    wire.engine.receive_eof()
    assert wire.engine.read_available() == b"whole"
    assert wire.engine.read_available() == b""
    assert wire.state() is TlsState.PEER_CLOSED
    assert not wire.engine.clean_close
    wire.engine.write(b"answer")
    unsent = wire.engine.unsent
    wire.engine.shutdown()
    assert wire.state() is TlsState.CLOSED
    assert wire.engine.unsent == unsent, "a close_notify for a peer that has said none"
    wire.to_peer()
    assert wire.peer.read() == b"answer"


def test_data_after_the_end_are_misuse(wire: Wire) -> None:
    wire.engine.receive_eof()
    wire.engine.receive_eof()
    with pytest.raises(RuntimeError, match="receive_eof"):
        wire.engine.receive_data(b"more")


def test_abandoned_connections_say_nothing(wire: Wire) -> None:
    wire.peer.ssl.write(b"unread")
    wire.to_engine()
    wire.engine.abandon()
    wire.engine.abandon()
    assert wire.state() is TlsState.CLOSED
    assert wire.engine.read_available() == b""
    wire.engine.receive_data(b"dropped")
    assert wire.engine.data_to_send() == b""
