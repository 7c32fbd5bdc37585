"""The TLS engine: handshakes, and what is written."""

import datetime
import random
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from aws_io_async._tls_engine import TlsEngine
from aws_io_async._tls_state import LEGAL_MOVES, TlsState
from tests import tls_engines
from tests.tls_engines import (
    Wire,
    client_context,
    server_context,
)
from tests.tls_peers import HOST, TLS12, TLS13

version = tls_engines.version
contexts = tls_engines.contexts
wire = tls_engines.wire


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
    unchecked = client_context(ca)
    unchecked.check_hostname = False
    assert TlsEngine(unchecked, server_side=False).state is TlsState.HANDSHAKE


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
    ca.issue_cert("someone@peer.example").configure_cert(client)
    certificate = Wire(server, client).handshake().engine.peer_certificate
    assert certificate is not None
    assert certificate["subjectAltName"] == (("email", "someone@peer.example"),)


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
    engine.receive_data(b"GET / HTTP/1.1\r\nHost: peer.example\r\n\r\n")
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


# States


def test_every_state_has_its_legal_moves() -> None:
    assert set(LEGAL_MOVES) == set(TlsState)
    reached = {TlsState.HANDSHAKE}.union(*LEGAL_MOVES.values())
    assert reached == set(TlsState)
    assert not LEGAL_MOVES[TlsState.CLOSED]
    assert not LEGAL_MOVES[TlsState.FAILED]
