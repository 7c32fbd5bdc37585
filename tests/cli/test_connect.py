"""`connect` without TLS: addresses, times, stdin and stdout, and how it ends."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.commands import PROGRAM, environment, run, running, terminal
from tests.cli.servers import serving
from tests.dns_server import DnsServer
from tests.schemas import validate
from tests.socket_tools import black_hole

HOST = "service.example"


@pytest.fixture
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def connect_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = run("connect", *arguments, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    validate(document, "connect")
    return done.returncode, document


def by(dns: DnsServer) -> tuple[str, str]:
    host, port = dns.address
    return "--server", f"{host}:{port}"


def test_what_comes_in_goes_out_and_what_is_told_goes_to_stderr(port: int) -> None:
    data = os.urandom(3_000_000)
    done = subprocess.run(
        [*PROGRAM, "connect", "127.0.0.1", f"{port}"],
        input=data,
        capture_output=True,
        check=True,
        env=environment(),
    )
    assert done.stdout == data
    told = done.stderr.decode()
    assert re.search(r"127\.0\.0\.1 +\+[\d.]+ ms +[\d.]+ ms +connected\n", told)
    assert f"  To               127.0.0.1:{port}\n" in told
    assert "\x1b" not in told


def test_files_as_stdin_and_stdout(port: int, tmp_path: Any) -> None:
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        command = [*PROGRAM, "connect", "127.0.0.1", f"{port}"]
        done = subprocess.run(
            command, stdin=source, stdout=target, stderr=subprocess.PIPE, env=environment()
        )
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == data


def test_the_peers_end_ends_it() -> None:
    with (
        serving(lambda connection: connection.sendall(b"greetings\n")) as port,
        running("connect", "127.0.0.1", f"{port}") as command,
    ):
        assert command.line() == "greetings\n"
        assert command.wait()[0] == 0  # although stdin is open


def test_our_end_is_told_to_the_peer() -> None:
    def answer_at_the_end(connection: socket.socket) -> None:
        received = b""
        while data := connection.recv(65536):
            received += data
        connection.sendall(received[::-1])

    with serving(answer_at_the_end) as port:
        assert run("connect", "127.0.0.1", f"{port}", input=b"abc").stdout == "cba"


def test_the_wait_after_the_end_of_stdin_can_be_bounded() -> None:
    def keep_silent(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass
        connection.recv(1)
        ended.settimeout(30)
        ended.recv(1)

    ended, end = socket.socketpair()
    with ended, end, serving(keep_silent) as port:
        assert run("connect", "127.0.0.1", f"{port}", "--wait", "0.1").returncode == 0
        end.send(b"x")


def test_line_ends_as_network_protocols_have_them(port: int) -> None:
    done = run("connect", "127.0.0.1", f"{port}", "--crlf", input=b"one\ntwo\n")
    assert done.stdout == "one\r\ntwo\r\n"


def test_nothing_is_sent_by_a_check() -> None:
    received = []

    def note(connection: socket.socket) -> None:
        received.append(connection.recv(65536))

    with serving(note) as port:
        done = run("connect", "127.0.0.1", f"{port}", "--check", input=b"data")
    assert done.stdout.startswith(f"127.0.0.1 port {port}\n")
    assert (done.stderr, received) == ("", [b""])


def test_names_and_the_order_of_addresses(dns: DnsServer) -> None:
    """The first address does not answer: the second is tried a quarter of a second later."""
    with black_hole() as hole, serving(address=("127.0.0.2", hole.port)):
        dns.records[HOST, "A"] = [("127.0.0.1", 60), ("127.0.0.2", 60)]
        status, document = connect_json(HOST, f"{hole.port}", *by(dns))
    first, second = document["attempts"]
    assert status == 0
    assert document["addresses"] == ["127.0.0.1", "127.0.0.2"]
    assert (first["address"], first["outcome"]) == ("127.0.0.1", "given up")
    assert (second["address"], second["outcome"]) == ("127.0.0.2", "connected")
    assert second["started"] >= first["started"] + 0.24  # a timer's start and a task's differ
    assert document["remote"] == {"address": "127.0.0.2", "port": hole.port}
    assert document["local"]["address"] == "127.0.0.1"
    assert document["tls"] is document["error"] is None


def test_an_address_that_refuses_makes_room_at_once(dns: DnsServer, port: int) -> None:
    dns.records[HOST, "A"] = [("127.0.0.3", 60), ("127.0.0.1", 60)]
    status, document = connect_json(HOST, f"{port}", *by(dns))
    assert status == 0
    outcomes = [(each["outcome"], each["error"]) for each in document["attempts"]]
    assert outcomes == [("failed", "connection refused"), ("connected", None)]
    done = run("connect", HOST, f"{port}", *by(dns), "--check")
    assert "2 in " in done.stdout
    assert re.search(r"127\.0\.0\.\d .*failed: connection refused\n", done.stdout)


def test_one_family_only(dns: DnsServer, port: int) -> None:
    dns.records[HOST, "A"] = [("127.0.0.1", 60)]
    dns.records[HOST, "AAAA"] = [("::1", 60)]
    status, document = connect_json(HOST, f"{port}", "-4", *by(dns))
    assert (status, document["addresses"]) == (0, ["127.0.0.1"])
    del dns.records[HOST, "AAAA"]
    status, document = connect_json(HOST, f"{port}", "-6", *by(dns))
    assert (status, document["error"]["stage"]) == (3, "lookup")
    assert "no AAAA record" in document["error"]["message"]


def test_no_such_name(dns: DnsServer) -> None:
    status, document = connect_json("missing.example", "80", *by(dns))
    assert status == 3
    assert document["error"]["code"] == "AWS_IO_DNS_INVALID_NAME"
    assert document["attempts"] == []
    done = run("connect", "missing.example", "80", *by(dns))
    assert (done.returncode, done.stdout) == (3, "")
    assert "error: the host name is invalid or does not exist" in done.stderr


def test_nobody_answers() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        status, document = connect_json("127.0.0.1", f"{port}")
        assert (status, document["error"]["stage"]) == (4, "connect")
        assert document["attempts"][0]["error"] == "connection refused"
        done = run("connect", "127.0.0.1", f"{port}")
    assert done.returncode == 4
    assert done.stderr.endswith("(AWS_IO_SOCKET_CONNECTION_REFUSED)\n")


def test_nobody_answers_in_time() -> None:
    with black_hole() as hole:
        status, document = connect_json(hole.address, f"{hole.port}", "--timeout", "0.2")
    assert status == 4
    assert document["error"]["code"] == "AWS_IO_SOCKET_TIMEOUT"
    assert document["attempts"][0]["seconds"] >= 0.2


def test_a_connection_that_breaks() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(reset) as port, running("connect", "127.0.0.1", f"{port}") as command:
        command.type("x\n")
        status, _, errors = command.wait()
    assert status == 1
    assert "error: the connection broke: " in errors


def test_who_reads_the_output_may_go(port: int) -> None:
    command = " ".join(PROGRAM) + f" connect 127.0.0.1 {port}"
    script = f"yes | {command} 2>/dev/null | head -1; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert (done.stdout, done.stderr) == ("y\n141\n", "")


def test_without_stdin_and_stdout(port: int) -> None:
    command = " ".join(PROGRAM) + f" connect 127.0.0.1 {port} <&- >&-"
    done = subprocess.run(
        ["bash", "-c", command], stderr=subprocess.PIPE, text=True, check=False, env=environment()
    )
    assert done.returncode == 0
    assert f"127.0.0.1:{port}" in done.stderr


def test_ctrl_c_while_connecting() -> None:
    with (
        black_hole() as hole,
        running("connect", hole.address, f"{hole.port}", "--trace") as command,
    ):
        assert command.process.stderr is not None
        while "attempt" not in command.process.stderr.readline():
            pass
        status, output, errors = command.end(signal.SIGINT)
    assert (status, output) == (130, "")
    assert "given up" in errors


def test_at_a_terminal(port: int) -> None:
    with terminal("connect", "127.0.0.1", f"{port}") as screen:
        screen.wait_for(r"Attempts *\n")
        screen.wait_for(r"connected")
        screen.wait_for(f"127.0.0.1:{port}")
        assert "\x1b[32mconnected" in screen.raw
        screen.type("hello\n")
        screen.wait_for(r"hello\n")  # the terminal's own echo
        screen.wait_for(r"hello\n")  # and the server's
        screen.type("\x03")
        assert screen.wait() == 130


def test_ctrl_d_ends_the_input(port: int) -> None:
    with terminal("connect", "127.0.0.1", f"{port}") as screen:
        screen.wait_for(f"127.0.0.1:{port}")
        screen.type("bye\n")
        screen.wait_for(r"bye\n.*bye\n")
        screen.type("\x04")
        assert screen.wait() == 0


def test_the_terminal_is_left_as_it_was(port: int) -> None:
    """stdin is not made non-blocking: that would hold for the shell as well."""
    script = "import os; print('blocking:', os.get_blocking(0), os.get_blocking(1))"
    command = f'{" ".join(PROGRAM)} connect 127.0.0.1 {port}; {PROGRAM[0]} -c "{script}"'
    with terminal(program=["/bin/bash", "-c", command]) as screen:
        screen.wait_for(f"127.0.0.1:{port}")
        screen.type("x\n\x04")
        screen.wait_for(r"blocking: True True")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: HOST, PORT"),
        (["host"], "the following arguments are required: PORT"),
        (["host", "port"], "argument PORT: must be 1 to 65535, not 'port'"),
        (["host", "65536"], "argument PORT: must be 1 to 65535, not '65536'"),
        (["host", "0"], "argument PORT: must be 1 to 65535, not '0'"),
        (["host", "80", "-4", "-6"], "argument -6: not allowed with argument -4"),
        (["host", "80", "--timeout", "0"], "--timeout: must be a positive number of seconds"),
        (["host", "80", "--wait", "x"], "--wait: must be a number of seconds, not 'x'"),
    ],
)
def test_misuse(arguments: list[str], complaint: str) -> None:
    done = run("connect", *arguments)
    assert done.returncode == 2
    assert "usage: python -m aws_io_async connect" in done.stderr
    assert complaint in done.stderr


@pytest.mark.parametrize("server", ["name.example", "127.0.0.1:99999", "[::1]:x"])
def test_a_dns_server_that_cannot_be(server: str) -> None:
    done = run("connect", "host", "80", "--server", server)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --server: ")
