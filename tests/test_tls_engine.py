"""The TLS engine, with OpenSSL itself at the other end of the wire."""

import datetime
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from aws_io_async._tls_engine import LEGAL_MOVES, MAX_PLAINTEXT, TlsEngine, TlsState

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HOST = "engine.example"

Split = Callable[[bytes], Iterator[bytes]]


def server_context(ca: trustme.CA, version: ssl.TLSVersion = TLS13) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = context.maximum_version = version
    ca.issue_cert(HOST).configure_cert(context)
    return context


def client_context(ca: trustme.CA, version: ssl.TLSVersion = TLS13) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    ca.configure_trust(context)
    return context


class Peer:
    """The other side: an SSLObject, used as the ssl module's documentation has it."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(
            self.incoming, self.outgoing, server_side, None if server_side else HOST
        )

    def handshake(self) -> bool:
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self) -> bytes:
        """All plaintext that has come."""
        data = b""
        while True:
            try:
                chunk = self.ssl.read(1 << 20)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return data
            if not chunk:
                return data
            data += chunk

    def close(self) -> None:
        try:
            self.ssl.unwrap()
        except ssl.SSLWantReadError:
            pass


class Wire:
    """An engine and its peer, and the bytes between them."""

    def __init__(self, engine_context: ssl.SSLContext, peer_context: ssl.SSLContext) -> None:
        server_side = engine_context.protocol is ssl.PROTOCOL_TLS_SERVER
        hostname = None if server_side else HOST
        self.engine = TlsEngine(engine_context, server_side=server_side, server_hostname=hostname)
        self.peer = Peer(peer_context, server_side=not server_side)

    def state(self) -> TlsState:
        return self.engine.state

    def to_engine(self) -> None:
        self.engine.receive_data(self.peer.outgoing.read())

    def to_peer(self) -> None:
        self.peer.incoming.write(self.engine.data_to_send())

    def handshake(self) -> "Wire":
        """Shake hands; what OpenSSL says behind that (session tickets) is read as well."""
        ours = theirs = False
        while not (ours and theirs):
            ours = ours or self.engine.handshake()
            self.to_peer()
            theirs = theirs or self.peer.handshake()
            self.to_engine()
        assert self.engine.read_available() is None
        assert self.peer.read() == b""
        return self


@pytest.fixture(params=[TLS12, TLS13], ids=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return ssl.TLSVersion(request.param)


@pytest.fixture(params=["server", "client"])
def contexts(
    request: pytest.FixtureRequest, ca: trustme.CA, version: ssl.TLSVersion
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The engine's context and the peer's."""
    pair = server_context(ca, version), client_context(ca, version)
    return pair if request.param == "server" else pair[::-1]


@pytest.fixture
def wire(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Wire:
    """A connection whose handshake is done."""
    return Wire(*contexts).handshake()


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def single_bytes(data: bytes) -> Iterator[bytes]:
    for i in range(len(data)):
        yield data[i : i + 1]


def randomly(seed: int) -> Split:
    def split(data: bytes) -> Iterator[bytes]:
        chooser = random.Random(seed)
        while data:
            size = chooser.choice([1, 4, 5, 6, 100, 5000, 20000])
            yield data[:size]
            data = data[size:]

    return split


# Handshake


def test_a_handshake_ends_in_the_same_keys(wire: Wire, version: ssl.TLSVersion) -> None:
    assert wire.state() is TlsState.OPEN
    assert wire.engine.version == wire.peer.ssl.version() is not None
    assert wire.engine.cipher is not None
    assert wire.engine.cipher[0] == (wire.peer.ssl.cipher() or ("",))[0]
    assert wire.engine.handshake() is True


def test_a_handshake_waits_for_the_peer(ca: trustme.CA) -> None:
    engine = TlsEngine(client_context(ca), server_side=False, server_hostname=HOST)
    assert engine.state is TlsState.HANDSHAKE
    assert engine.handshake() is False
    assert engine.data_to_send()
    assert engine.handshake() is False
    assert engine.data_to_send() == b""
    assert (engine.version, engine.cipher, engine.peer_certificate) == (None, None, None)
    assert engine.read(100) is engine.read_available() is None
    assert not engine.readable


def test_a_host_name_is_required_to_check_it(ca: trustme.CA) -> None:
    with pytest.raises(ValueError, match="server_hostname"):
        TlsEngine(client_context(ca), server_side=False)
    TlsEngine(client_context(ca), server_side=False, server_hostname="")


def test_what_is_written_during_the_handshake_is_sent_after_it(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    wire = Wire(*contexts)
    buffer = bytearray(b"first, ")
    wire.engine.write(buffer)
    buffer[:] = b"reused!"
    wire.engine.write(b"second, ")
    assert wire.engine.unsent == 15
    while not wire.engine.handshake():
        wire.to_peer()
        wire.peer.handshake()
        wire.to_engine()
    wire.engine.write(b"third")
    wire.to_peer()
    assert wire.peer.handshake()
    assert wire.peer.read() == b"first, second, third"
    assert wire.engine.unsent == 0


def test_application_protocols(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = contexts
    assert Wire(ours, theirs).handshake().engine.selected_alpn_protocol is None
    ours.set_alpn_protocols(["h2", "http/1.1"])
    theirs.set_alpn_protocols(["http/1.1"])
    assert Wire(ours, theirs).handshake().engine.selected_alpn_protocol == "http/1.1"


def test_a_client_can_have_a_certificate(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    server, client = server_context(ca, version), client_context(ca, version)
    server.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(server)
    ca.issue_cert("someone@engine.example").configure_cert(client)
    certificate = Wire(server, client).handshake().engine.peer_certificate
    assert certificate is not None
    assert certificate["subjectAltName"] == (("email", "someone@engine.example"),)


def test_a_server_without_interest_in_certificates_gets_none(
    ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    wire = Wire(server_context(ca, version), client_context(ca, version)).handshake()
    assert wire.engine.peer_certificate is None


def exchange(wire: Wire) -> ssl.SSLError:
    """Shake hands until the peer objects; returns its objection."""
    for _ in range(4):
        try:
            wire.engine.handshake()
        except ssl.SSLError:
            pass
        wire.to_peer()
        try:
            wire.peer.handshake()
            wire.peer.read()
        except ssl.SSLError as exc:
            return exc
        wire.to_engine()
    raise AssertionError("the peer did not object")


def test_a_server_refuses_a_client_without_certificate(
    ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    server = server_context(ca, version)
    server.verify_mode = ssl.CERT_REQUIRED
    wire = Wire(server, client_context(ca, version))
    assert "ALERT" in exchange(wire).reason
    assert wire.state() is TlsState.FAILED
    assert isinstance(wire.engine.error, ssl.SSLError)
    assert wire.engine.error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


def test_a_client_without_certificate_is_told_so(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    server = server_context(ca, version)
    server.verify_mode = ssl.CERT_REQUIRED
    wire = Wire(client_context(ca, version), server)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        for _ in range(4):
            wire.engine.handshake()  # in TLS 1.3 the client is done before the server objects
            wire.engine.read_available()
            wire.to_peer()
            try:
                wire.peer.handshake()
            except ssl.SSLError:
                pass
            wire.to_engine()
    assert wire.state() is TlsState.FAILED


def refused(ca: trustme.CA, server: ssl.SSLContext) -> ssl.SSLCertVerificationError:
    """The error of a client that refuses the server's certificate, and tells it so."""
    wire = Wire(client_context(ca), server)
    wire.engine.handshake()
    wire.to_peer()
    wire.peer.handshake()
    wire.to_engine()
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        wire.engine.handshake()
    assert wire.state() is TlsState.FAILED
    wire.to_peer()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        wire.peer.handshake()
    with pytest.raises(ssl.SSLCertVerificationError):
        wire.engine.read(1)
    return caught.value


def context_with(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def test_a_certificate_for_another_host_is_refused(ca: trustme.CA) -> None:
    error = refused(ca, context_with(ca.issue_cert("other.example")))
    assert error.verify_code == 62
    assert HOST in error.verify_message


def test_an_expired_certificate_is_refused(ca: trustme.CA) -> None:
    long_ago = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    error = refused(ca, context_with(ca.issue_cert(HOST, not_after=long_ago)))
    assert error.verify_code == 10
    assert error.verify_message == "certificate has expired"


def test_a_certificate_of_an_unknown_authority_is_refused(ca: trustme.CA) -> None:
    error = refused(ca, context_with(trustme.CA().issue_cert(HOST)))
    assert error.verify_code in (18, 19, 20)


def test_versions_without_overlap(ca: trustme.CA) -> None:
    wire = Wire(server_context(ca, TLS13), client_context(ca, TLS12))
    objection = exchange(wire)
    assert objection.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert wire.state() is TlsState.FAILED


def test_ciphers_without_overlap(ca: trustme.CA) -> None:
    server, client = server_context(ca, TLS12), client_context(ca, TLS12)
    server.set_ciphers("ECDHE+AES256")
    client.set_ciphers("ECDHE+CHACHA20")
    wire = Wire(server, client)
    exchange(wire)
    assert isinstance(wire.engine.error, ssl.SSLError)
    assert wire.engine.error.reason == "NO_SHARED_CIPHER"


def test_a_server_that_is_asked_in_plain_http(ca: trustme.CA) -> None:
    engine = TlsEngine(server_context(ca), server_side=True)
    engine.receive_data(b"GET / HTTP/1.1\r\nHost: engine.example\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        engine.handshake()
    assert caught.value.reason == "HTTP_REQUEST"


def test_a_client_that_is_answered_in_plain_http(ca: trustme.CA) -> None:
    engine = TlsEngine(client_context(ca), server_side=False, server_hostname=HOST)
    engine.handshake()
    engine.receive_data(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        engine.handshake()
    assert caught.value.reason == "WRONG_VERSION_NUMBER"
    with pytest.raises(ssl.SSLError):
        engine.write(b"more")


def test_a_peer_that_leaves_in_the_handshake(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    wire = Wire(*contexts)
    wire.peer.handshake()
    wire.to_engine()
    wire.engine.receive_eof()
    with pytest.raises(ssl.SSLEOFError):
        wire.engine.handshake()
    assert wire.state() is TlsState.FAILED


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
            wire.peer.close()
            sent = True
        for piece in split(wire.peer.outgoing.read()):
            wire.engine.receive_data(piece)
            received += see_what_came()
    assert received == b"".join(messages)
    assert events == ["open", "closed"]
    assert wire.engine.clean_close


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
    assert caught.value.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
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


# Writing


def test_many_writes_are_sent_as_one(wire: Wire) -> None:
    for word in (b"one ", bytearray(b"two "), memoryview(b"three")):
        wire.engine.write(word)
    assert wire.engine.unsent > 13
    wire.to_peer()
    assert wire.engine.unsent == 0
    assert wire.engine.data_to_send() == b""
    assert wire.peer.read() == b"one two three"


def test_a_large_write(wire: Wire) -> None:
    sent = random.Random(3).randbytes(1 << 20)
    wire.engine.write(sent)
    wire.to_peer()
    assert wire.peer.read() == sent


def test_a_key_update_is_answered(ca: trustme.CA, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program, as Python cannot ask for a key update")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    engine = TlsEngine(server_context(ca), server_side=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST]
        command += ["-CAfile", str(tmp_path / "ca.pem"), "-verify_return_error"]
        pipe = subprocess.PIPE
        client = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
        with client:
            assert client.stdin is not None
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(30)
                while not engine.handshake():
                    sock.sendall(engine.data_to_send())
                    engine.receive_data(sock.recv(65536))
                sock.sendall(engine.data_to_send())
                client.stdin.write(b"K\n")  # update keys, and ask for the same
                client.stdin.flush()
                assert client.stdout is not None
                while b"KEYUPDATE" not in client.stdout.readline():
                    pass
                client.stdin.write(b"with new keys\n")
                client.stdin.flush()
                while (data := engine.read(100)) is None:
                    engine.receive_data(sock.recv(65536))
                assert data == b"with new keys\n"
                engine.write(b"and with ours\n")
                engine.shutdown()
                sock.sendall(engine.data_to_send())
                output, _ = client.communicate(timeout=30)
                assert b"and with ours\n" in output


# Closing


def test_the_peer_closes_first(wire: Wire) -> None:
    wire.peer.ssl.write(b"last words")
    wire.peer.close()
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
    wire.peer.close()
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
    wire.peer.close()
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


def test_every_state_has_its_legal_moves() -> None:
    assert set(LEGAL_MOVES) == set(TlsState)
    reached = {TlsState.HANDSHAKE}.union(*LEGAL_MOVES.values())
    assert reached == set(TlsState)
    assert not LEGAL_MOVES[TlsState.CLOSED]
    assert not LEGAL_MOVES[TlsState.FAILED]
