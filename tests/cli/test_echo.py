"""`echo`: a real server, for real clients."""

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.certificates import identity
from tests.cli.commands import Running, run, running, terminal, without
from tests.cli.servers import authority_file
from tests.schemas import validate

LISTENING = re.compile(r"Listening on (\S+) port (\d+)(, with TLS)?\n")


def port_of(command: Running) -> int:
    found = LISTENING.fullmatch(command.line())
    assert found
    return int(found[2])


def event(command: Running) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(command.line())
    validate(document, "echo")
    return document


def exchange(sock: socket.socket, data: bytes) -> bytes:
    sock.settimeout(30)
    sock.sendall(data)
    received = b""
    while len(received) < len(data):
        received += sock.recv(65536)
    return received


def test_it_sends_back_what_comes() -> None:
    with running("echo") as command:
        port = port_of(command)
        data = bytes(range(256)) * 200
        with socket.create_connection(("127.0.0.1", port)) as sock:
            assert exchange(sock, data) == data
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
            name = sock.getsockname()
        assert command.line() == f"1 from 127.0.0.1:{name[1]}\n"
        assert re.fullmatch(r"1 closed, 51200 bytes in \d+\.\d{3} s\n", command.line())
        status, output, errors = command.end()
    assert (status, output, errors) == (130, "Stopped after 1 connections, 51200 bytes\n", "")


def test_events(tmp_path: Path) -> None:
    with running("echo", "--json", "--loops", "2") as command:
        listening = event(command)
        assert (listening["event"], listening["tls"], listening["ca"]) == ("listening", False, None)
        for number in (1, 2):
            with socket.create_connection(("127.0.0.1", listening["port"])) as sock:
                assert exchange(sock, b"abc") == b"abc"
            opened, closed = event(command), event(command)
            assert (opened["event"], opened["connection"]) == ("opened", number)
            assert (closed["event"], closed["bytes"], closed["error"]) == ("closed", 3, None)
        status, output, _ = command.end(signal.SIGTERM)
    stopped = json.loads(output)
    validate(stopped, "echo")
    assert (status, stopped["connections"], stopped["bytes"]) == (143, 2, 6)


def test_a_certificate_made_on_the_spot() -> None:
    with running("echo", "--json", "--tls", "--alpn", "h2,http/1.1") as command:
        listening = event(command)
        authority = Path(listening["ca"])
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["http/1.1"])
        address = ("127.0.0.1", listening["port"])
        for name in ("localhost", "127.0.0.1", "::1"):
            with (
                socket.create_connection(address) as sock,
                context.wrap_socket(sock, server_hostname=name) as secured,
            ):
                assert exchange(secured, b"abc") == b"abc"
        opened = event(command)
        assert opened["tls"]["version"] == "TLSv1.3"
        assert opened["tls"]["alpn"] == "http/1.1"
        assert command.end()[0] == 130
        assert not authority.parent.exists()  # temporary


@pytest.mark.parametrize(
    ("options", "host"),
    [
        ([], "localhost"),
        (["--host", "0.0.0.0"], "localhost"),
        pytest.param(
            ["--host", "127.0.0.2"],
            "127.0.0.2",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="others have 127.0.0.1 alone"),
        ),
    ],
)
def test_what_it_says_to_try_works(tmp_path: Path, options: list[str], host: str) -> None:
    with running("echo", "--tls", "--ca-out", tmp_path / "ca.pem", *options) as command:
        port = port_of(command)
        said = re.fullmatch(r"Try: python -m aws_io_async (.*)\n", command.line())
        assert said
        done = run(*said[1].split(), "--wait", "0.5", input=b"hello")
        assert (done.returncode, done.stdout) == (0, "hello")
        assert f"{host} port {port}" in done.stderr
        assert command.end(signal.SIGTERM)[0] == 143
    assert (tmp_path / "ca.pem").exists()


@pytest.mark.parametrize("in_one_file", [True, False])
def test_a_certificate_that_is_given(ca: trustme.CA, tmp_path: Path, in_one_file: bool) -> None:
    chain, key = identity(ca.issue_cert("service.example"))
    certificate_file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(chain + key if in_one_file else chain)
    key_file.write_bytes(key)
    options: list[str | Path] = [] if in_one_file else ["--key", key_file]
    with running("echo", "--cert", certificate_file, *options) as command:
        port = port_of(command)
        context = ssl.create_default_context(cafile=authority_file(ca, tmp_path))
        with (
            socket.create_connection(("127.0.0.1", port)) as sock,
            context.wrap_socket(sock, server_hostname="service.example") as secured,
        ):
            assert exchange(secured, b"abc") == b"abc"
        assert "TLSv1.3" in command.line()


def test_clients_without_a_certificate_are_turned_away(ca: trustme.CA, tmp_path: Path) -> None:
    authority = authority_file(ca, tmp_path)
    with running("echo", "--tls", "--client-ca", authority, "--json") as command:
        listening = event(command)
        arguments = ("connect", "localhost", f"{listening['port']}", "--ca", listening["ca"])
        assert run(*arguments, "--wait", "5").returncode == 1
        failed = event(command)
        assert failed["event"] == "failed"
        assert "127.0.0.1:" in failed["error"]
        leaf = tmp_path / "client.pem"
        ca.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(leaf)
        assert run(*arguments, "--cert", leaf, "--check").returncode == 0
        assert event(command)["event"] == "opened"


def test_once(tmp_path: Path) -> None:
    with running("echo", "--once") as command:
        port = port_of(command)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            assert exchange(sock, b"x") == b"x"
        status, output, _ = command.wait()
    assert status == 0
    assert output.splitlines()[-1] == "Stopped after 1 connections, 1 bytes"


def test_a_connection_that_breaks_is_told() -> None:
    with running("echo", "--json") as command:
        listening = event(command)
        with socket.create_connection(("127.0.0.1", listening["port"])) as sock:
            assert exchange(sock, b"x") == b"x"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        event(command)
        assert "AWS_IO_SOCKET_CLOSED" in event(command)["error"]


def test_ipv6() -> None:
    with running("echo", "--host", "::1", "--json") as command:
        listening = event(command)
        assert listening["address"] == "::1"
        with socket.create_connection(("::1", listening["port"])) as sock:
            assert exchange(sock, b"x") == b"x"
        assert event(command)["peer"].startswith("[::1]:")


def test_ctrl_c_at_a_terminal_while_clients_are_there() -> None:
    with terminal("echo") as screen:
        port = int(screen.wait_for(r"port (\d+)")[1])
        with socket.create_connection(("127.0.0.1", port)) as sock:
            screen.wait_for("1 from 127")
            screen.type("\x03")
            assert screen.wait() == 130
            assert sock.recv(1) == b""
        assert "Stopped after 1 connections" in screen.text


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("echo", "--port", f"{taken.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot listen: ")


def test_without_trustme(tmp_path: Path) -> None:
    done = run("echo", "--tls", env=without("trustme", tmp_path))
    assert done.returncode == 2
    assert 'pip install "aws-io-async[cli]"' in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--key", "key.pem"], "--key needs --cert"),
        (["--cert", "missing.pem"], "No such file"),
        (["--cert", "missing.pem", "--ca-out", "out.pem"], "--ca-out is for"),
        (["--alpn", "two words"], "ALPN"),
        (["--client-ca", "missing.pem"], "No such file"),
        (["--tls", "--ca-out", "missing/out.pem"], "No such file"),
    ],
)
def test_tls_that_cannot_be(options: list[str], message: str) -> None:
    done = run("echo", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_openssl_as_the_client(tmp_path: Path) -> None:
    with running("echo", "--tls", "--json") as command:
        listening = event(command)
        address = f"127.0.0.1:{listening['port']}"
        arguments = ["openssl", "s_client", "-quiet", "-verify_return_error", "-connect", address]
        try:
            client = subprocess.Popen(
                [*arguments, "-CAfile", listening["ca"]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            pytest.skip("no openssl command")
        with client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(b"hello\n")
            client.stdin.flush()
            assert client.stdout.readline() == b"hello\n"
            client.kill()
