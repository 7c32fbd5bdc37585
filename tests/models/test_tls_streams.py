"""A TLS engine against OpenSSL as others use it: both talk at random, and the model counts.

The engine's peer is an `ssl.SSLObject`, an `ssl.SSLSocket`, or one that writes records by itself
and asks for new keys. What they say lies on the wire until some of it is delivered, cut anywhere.
The model knows how much plaintext each has said, and what each has ended.
"""

import socket
import ssl
import tempfile
from functools import cache
from pathlib import Path

import trustme
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aws_io_async._tls_engine import TlsEngine
from aws_io_async._tls_state import TlsState
from tests.faults._report import Fault
from tests.load.key_updates import Client
from tests.models.endless import text
from tests.models.rounds import checked
from tests.tls_engines import client_context, server_context
from tests.tls_peers import HOST, TLS12, TLS13, Peer

SIZES = st.sampled_from([1, 10, 3000, 17_000, 50_000])
PIECES = st.sampled_from([1, 4, 5, 6, 100, 20_000, 1 << 20])
WAYS = st.sampled_from(["read", "read_into", "read_available"])
FINAL = (TlsState.CLOSED, TlsState.FAILED)

ANYTHING = Fault(
    "Network",
    "TLS records are cut anywhere, between writes, ends, new keys and cuts in any order",
    "every byte of plaintext once, and an end that says what it was, as a model has it",
)


authority = cache(trustme.CA)


@cache
def contexts(version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server and of a client."""
    return server_context(authority(), version), client_context(authority(), version)


class ObjectPeer(Peer):
    """An SSLObject."""

    def feed(self, data: bytes) -> None:
        self.incoming.write(data)

    def take(self) -> bytes:
        return self.outgoing.read()

    def say(self, data: bytes) -> None:
        self.ssl.write(data)

    def release(self) -> None:
        pass


class SocketPeer:
    """An SSLSocket that does not block; the other end of its wire is ours."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._wire, theirs = socket.socketpair()
        for sock in (self._wire, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        server_side = context.protocol is ssl.PROTOCOL_TLS_SERVER
        self._waiting = b""
        self._tls = context.wrap_socket(
            theirs,
            server_side=server_side,
            server_hostname=None if server_side else HOST,
            do_handshake_on_connect=False,
        )

    def feed(self, data: bytes) -> None:
        data = self._waiting + data
        try:
            self._waiting = data[self._wire.send(data) :]
        except BlockingIOError:
            self._waiting = data

    def take(self) -> bytes:
        data = b""
        try:
            while chunk := self._wire.recv(1 << 20):
                data += chunk
        except BlockingIOError:
            pass
        return data

    def handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def say(self, data: bytes) -> None:
        while data:
            data = data[self._tls.send(data) :]

    def read(self) -> bytes:
        data = b""
        try:
            while chunk := self._tls.recv(1 << 20):
                data += chunk
                self.feed(b"")
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return data

    def say_close(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass

    def release(self) -> None:
        self._tls.close()
        self._wire.close()


class KeysPeer(Client):
    """One that writes its records itself, and asks for new keys. After its end it says nothing."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        super().__init__(authority(), Path(self._folder.name))
        self._said = b""

    def feed(self, data: bytes) -> None:
        self.incoming.write(data)

    def take(self) -> bytes:
        said, self._said = self.outgoing.read() + self._said, b""
        return said

    def handshake(self) -> bool:
        done = super().handshake()
        if done and not hasattr(self, "records"):
            self._said = self.outgoing.read()
            self.records = self.writer()
        return done

    def say(self, data: bytes) -> None:
        for at in range(0, len(data), 16_000):
            self._said += self.records.data(data[at : at + 16_000])

    def ask_for_new_keys(self) -> None:
        self._said += self.records.key_update()

    def say_close(self) -> None:
        self._said += self.records.data(bytes([1, 0]), 21)

    def release(self) -> None:
        self._folder.cleanup()


def make_peer(kind: str, context: ssl.SSLContext) -> ObjectPeer | SocketPeer | KeysPeer:
    if kind == "keys":
        return KeysPeer()
    return ObjectPeer(context) if kind == "object" else SocketPeer(context)


class TlsMachine(RuleBasedStateMachine):
    """One connection."""

    @initialize(
        kind=st.sampled_from(["object", "socket", "keys"]),
        server=st.booleans(),
        version=st.sampled_from([TLS12, TLS13]),
        at_once=st.booleans(),
    )
    def set_up(self, kind: str, server: bool, version: ssl.TLSVersion, at_once: bool) -> None:
        if kind == "keys":
            server, version = True, TLS13
        ours, theirs = contexts(version) if server else contexts(version)[::-1]
        hostname = None if server else HOST
        self.engine = TlsEngine(ours, server_side=server, server_hostname=hostname)
        self.peer = make_peer(kind, theirs)
        self.to_engine, self.to_peer = bytearray(), bytearray()
        self.said = self.heard = self.peer_said = self.peer_heard = 0
        self.engine_ended = self.peer_open = self.peer_ended = self.cut = False
        self.new_keys = 0
        if at_once:
            while not (self.peer_open and self.state is TlsState.OPEN):
                self.go_on()
                self.deliver_to_peer(1 << 20)
                self.deliver_to_engine(1 << 20)

    @property
    def state(self) -> TlsState:
        return self.engine.state

    # The wire

    def look(self) -> None:
        self.to_peer += self.engine.data_to_send()
        if not self.cut:
            self.to_engine += self.peer.take()

    @rule(size=PIECES)
    def deliver_to_engine(self, size: int) -> None:
        self.look()
        if self.to_engine and not self.cut:
            self.engine.receive_data(self.to_engine[:size])
            del self.to_engine[:size]

    @rule(size=PIECES)
    def deliver_to_peer(self, size: int) -> None:
        self.look()
        self.peer.feed(bytes(self.to_peer[:size]))
        del self.to_peer[:size]
        if not self.peer_open:
            self.peer_open = self.peer.handshake()
        elif not self.peer_ended:
            self.peer_reads()
        self.look()

    def peer_reads(self) -> None:
        data = self.peer.read()
        assert data == text(self.peer_heard, len(data))
        self.peer_heard += len(data)

    @rule(sure=st.sampled_from([False] * 15 + [True]))
    def cut_the_wire(self, sure: bool) -> None:
        """What has not been delivered to the engine is lost."""
        if sure:
            self.look()
            self.cut = True
            self.engine.receive_eof()

    # The engine

    @precondition(lambda self: self.state is TlsState.HANDSHAKE)
    @rule()
    def go_on(self) -> None:
        try:
            done = self.engine.handshake()
        except ssl.SSLEOFError:
            assert self.cut
            assert self.state is TlsState.FAILED
            return
        assert done == (self.state is TlsState.OPEN)
        assert done or not self.cut

    @rule(size=SIZES)
    def write(self, size: int) -> None:
        data = text(self.said, size)
        try:
            self.engine.write(data)
        except RuntimeError:
            assert self.engine_ended
        except ssl.SSLError:
            assert self.state is TlsState.FAILED
        else:
            assert not self.engine_ended
            self.said += size
        self.look()

    @rule(size=SIZES, way=WAYS)
    def read(self, size: int, way: str) -> None:
        try:
            data = self._read(size, way)
        except ssl.SSLError:
            assert self.state is TlsState.FAILED
            return
        if data is None:
            assert self.state in (TlsState.HANDSHAKE, TlsState.OPEN)
            return
        assert len(data) <= size
        assert data == text(self.heard, len(data))
        self.heard += len(data)
        if not data:
            assert self.cut or self.peer_ended or self.engine_ended
        if not data and not self.engine_ended:
            assert self.state is TlsState.PEER_CLOSED
            assert self.engine.clean_close or self.cut
            assert self.heard == self.peer_said or not self.engine.clean_close

    def _read(self, size: int, way: str) -> bytes | None:
        if way == "read_into":
            buffer = bytearray(size)
            count = self.engine.read_into(buffer)
            return None if count is None else bytes(buffer[:count])
        return self.engine.read(size) if way == "read" else self.engine.read_available(size)

    @precondition(lambda self: self.state is TlsState.OPEN and not self.cut)
    @rule(size=st.sampled_from([100, 3000, 16_384, 17_000]), way=WAYS)
    def read_all_in_pieces(self, size: int, way: str) -> None:
        """What has come can be read, however much of a record is taken at a time."""
        self.deliver_to_engine(1 << 20)
        before = -1
        while before < self.heard and self.state is TlsState.OPEN:
            before = self.heard
            self.read(size, way)
        assert self.heard == self.peer_said

    @rule(sure=st.sampled_from([False] * 15 + [True]))
    def end(self, sure: bool) -> None:
        if sure:
            if self.state is TlsState.HANDSHAKE:
                self.said = 0  # what waits is dropped with it
            self.engine.shutdown()
            self.engine_ended = True
            self.look()

    # The peer

    @precondition(lambda self: self.peer_open and not self.peer_ended and not self.cut)
    @rule(size=SIZES)
    def peer_writes(self, size: int) -> None:
        self.peer.say(text(self.peer_said, size))
        self.peer_said += size
        self.look()

    @precondition(lambda self: self.peer_open and not self.peer_ended and self.new_keys < 5)
    @rule()
    def peer_asks_for_new_keys(self) -> None:
        if isinstance(self.peer, KeysPeer) and not self.cut:
            self.peer.ask_for_new_keys()
            self.new_keys += 1

    @precondition(lambda self: self.peer_open and not self.peer_ended)
    @rule(sure=st.sampled_from([False] * 10 + [True]))
    def peer_ends(self, sure: bool) -> None:
        if sure:
            self.peer_reads()  # OpenSSL cannot end on top of what has not been read
            self.peer.say_close()
            self.peer_ended = True
            self.look()

    # What must happen, and what always holds

    @precondition(lambda self: not self.cut)
    @rule()
    def deliver_all(self) -> None:
        """With everything delivered and read, each has heard all that the other has said."""
        for _ in range(6):
            self.deliver_to_peer(1 << 20)
            self.deliver_to_engine(1 << 20)
            if self.state is TlsState.HANDSHAKE:
                self.go_on()
            if self.state in (TlsState.OPEN, TlsState.PEER_CLOSED):
                self.read(1 << 20, "read_available")
        if self.engine_ended:
            return
        assert self.peer_open
        assert self.state is (TlsState.PEER_CLOSED if self.peer_ended else TlsState.OPEN)
        assert self.heard == self.peer_said
        assert self.peer_ended or self.peer_heard == self.said
        assert self.engine.unsent == 0

    @invariant()
    def nothing_is_wrong(self) -> None:
        if not hasattr(self, "engine"):
            return
        assert self.heard <= self.peer_said
        assert self.peer_heard <= self.said or self.engine_ended
        assert self.state is not TlsState.FAILED or self.cut
        assert not self.engine.readable or self.state is not TlsState.HANDSHAKE
        if self.engine_ended:
            assert self.state in (TlsState.SHUTTING_DOWN, *FINAL)

    def teardown(self) -> None:
        if hasattr(self, "peer"):
            self.peer.release()
            ANYTHING.seen("as the model has it")


TestTls = checked(TlsMachine, 100)
