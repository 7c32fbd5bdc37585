"""The examples of channels, run as their first lines say."""

import contextlib
import http.server
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h11
import pytest
import trustme

from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.testing import TestingLoop, check_handler
from examples.http_client import Http1
from tests.examples import run, start

# TLS and windows


def test_an_echo_over_tls_shows_its_windows() -> None:
    out = run("tls_echo.py", "24")  # more than the kernel keeps
    title, *parts = re.split(r"^(?=\w)", out.partition("\n\n")[2], flags=re.MULTILINE)
    assert title == ""
    moments = {}
    for part in parts:
        moment, _, *lines = part.splitlines()
        moments[moment] = {
            name: [int(figure) for figure in figures]
            for name, *figures in (line.split() for line in lines)
            if name in ("client", "server")
        }
    connected, stuck, done = moments.values()
    for read, wrote, *windows in connected.values():
        assert 0 < read < 10
        assert 0 < wrote < 10
        assert windows == [64, 64, 0]
    for read, _, *windows in stuck.values():
        assert windows == [0, 0, 64]
        assert 64 < read < 24 * 1024
    assert "everything is sent: False" in out
    for read, wrote, *_ in done.values():
        assert read > 24 * 1024
        assert wrote > 24 * 1024
    assert "came back intact: True" in out


# HTTP


def test_an_http_client_and_the_server_of_the_example() -> None:
    out = run("http_client.py")
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "GET /hello on connection 1: status 200",
        "POST /upload on connection 1: status 200",
        "GET /nowhere on connection 1: status 404",
        f"GET /broken on connection 1 failed: {_ending(out)}",
        "GET /last on connection 2: status 200",
        "GET /hello on connection 3: status 200",
    ]
    assert "which was sent 3890 bytes" in out


def _ending(out: str) -> str:
    found = re.search(r"failed: (the connection ended before the answer did: .*)", out)
    assert found
    return found[1]


class _Files(http.server.BaseHTTPRequestHandler):
    """Keeps connections; answers with a length, or with a body that the connection's end ends."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.path} of {self.headers['Host']}".encode()
        self.send_response(200)
        if self.path == "/to-the-end":
            self.close_connection = True
        else:
            self.send_header("Content-Length", f"{len(body)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def http_server(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The standard library's server, of whose making the example has no part; yields its host."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_http_client_and_a_url() -> None:
    with http_server() as host:
        out = run("http_client.py", f"http://{host}/one?two", "/three", "/to-the-end", "/four")
    bodies = [f"{path} of {host}" for path in ("/one?two", "/three", "/to-the-end", "/four")]
    assert out.splitlines() == [
        "GET /one?two on connection 1: status 200",
        f"  {len(bodies[0])} bytes: {bodies[0].encode()!r}",
        "GET /three on connection 1: status 200",
        f"  {len(bodies[1])} bytes: {bodies[1].encode()!r}",
        "GET /to-the-end on connection 1: status 200",
        f"  {len(bodies[2])} bytes: {bodies[2].encode()!r}",
        "GET /four on connection 2: status 200",
        f"  {len(bodies[3])} bytes: {bodies[3].encode()!r}",
    ]


def test_an_http_client_over_tls(ca: trustme.CA, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(trusted))
    with http_server(context) as host:
        out = run("http_client.py", f"https://{host}/", "/again", SSL_CERT_FILE=str(trusted))
        assert "GET / on connection 1: status 200" in out
        assert "GET /again on connection 1: status 200" in out
        stranger = run("http_client.py", f"https://{host}/")
    assert stranger.startswith("GET / on connection 0 failed: ")
    assert "unable to get local issuer certificate" in stranger


def answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
    ids=["nothing", "half", "bad chunk", "not HTTP"],
)
def test_an_http_client_and_a_server_at_fault(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once, args=(listener, answer))
        thread.start()
        out = run("http_client.py", f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert out.startswith(
        "GET / on connection 1 failed: the connection ended before the answer did: "
    )


def test_an_http_client_and_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    out = run("http_client.py", f"http://127.0.0.1:{port}/")
    assert out.startswith("GET / on connection 0 failed: ")
    assert "AWS_IO_SOCKET_CONNECTION_REFUSED" in out


def _event(event: h11.Event) -> IoMessage:
    return IoMessage(message_type=MessageType.OTHER, tag=event)


HEAD = [("Host", "x"), ("Transfer-Encoding", "chunked")]


def client() -> Http1:
    return Http1(h11.CLIENT)


def server() -> Http1:
    return Http1(h11.SERVER)


@pytest.mark.parametrize(
    ("factory", "writes", "reads"),
    [
        (
            client,
            [
                _event(h11.Request(method="POST", target="/", headers=HEAD)),
                b"a body",
                b"in parts",
                _event(h11.EndOfMessage()),
            ],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n",
        ),
        (server, [], b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nabcdefgh"),
    ],
    ids=["client", "server"],
)
def test_the_http_handler_keeps_the_contract_of_handlers(
    factory: Callable[[], Http1], writes: list[bytes | IoMessage], reads: bytes
) -> None:
    loop = TestingLoop()
    try:
        loop.run_until_complete(
            check_handler(factory, writes=writes, reads=[reads], expected_received=b"abcdefgh")
        )
    finally:
        loop.close()


# The resolver


def test_a_fleet_goes_on_without_its_dead() -> None:
    out = run("fleet.py", "2")
    head, *lines = out.splitlines()
    assert head.split() == [
        "seconds",
        "127.0.0.1",
        "127.0.0.2",
        "127.0.0.3",
        "refused",
        "in",
        "round",
    ]
    phases: list[list[list[int]]] = [[]]
    for line in lines:
        if line.startswith("--"):
            phases.append([])
        else:
            phases[-1].append([0 if word == "-" else int(word) for word in line.split()[1:]])
    assert all(sum(served) == 12 for phase in phases for *served, _, _ in phase)  # none failed
    before, meanwhile, after = phases
    for *served, refused, in_round in before:
        assert (min(served) > 1, refused, in_round) == (True, 0, 3)
    for one, dead, other, _, _ in meanwhile:
        assert (min(one, other) > 1, dead) == (True, 0)
    assert sum(refused for *_, refused, _ in meanwhile) >= 1
    assert 2 in [in_round for *_, in_round in meanwhile]
    *served, refused, in_round = after[-1]
    assert (min(served) > 1, refused, in_round) == (True, 0, 3)


# Fan-in


@pytest.mark.parametrize("to_file", [False, True], ids=["to standard output", "to a file"])
def test_a_pipe_and_sockets_fan_in(to_file: bool, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("what was there before")
    out = run("fan_in.py", *([str(file)] if to_file else []))
    log = (file.read_text() if to_file else out).splitlines()
    work = [line for line in log if line.startswith("pipe: ")]
    assert work == [f"pipe: work item {number} is done" for number in range(5)]
    for name in "Ann", "Bob":
        lines = [line for line in log if line.startswith(f"socket: {name} ")]
        assert lines == [
            *(f"socket: {name} sends line {number}" for number in range(5)),
            f"socket: {name} says goodbye",
        ]
        assert f"{name}: the server has logged 6 lines" in out.splitlines()
    assert "worker: 5 lines were logged" in out.splitlines()
    assert len(log) == (17 if to_file else 20)


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    process = start("fan_in.py", str(tmp_path / "nowhere" / "log"))
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 1
    assert "FileNotFoundError" in errors or "ERROR_FILE_INVALID_PATH" in errors
