"""`connect --tls`: what was agreed on, the certificates, and what is wrong with them."""

import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.certificates import EXPIRED, TOMORROW, issue
from tests.cli.commands import run, terminal, without
from tests.cli.servers import authority_file, context_of, server_context, serving
from tests.schemas import validate


@pytest.fixture
def authority(ca: trustme.CA, tmp_path: Path) -> Path:
    return authority_file(ca, tmp_path)


def connect_json(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    done = run("connect", *arguments, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    validate(document, "connect")
    return done.returncode, document


def test_version_cipher_protocol_and_certificate(ca: trustme.CA, authority: Path) -> None:
    context = server_context(ca, "localhost", "127.0.0.1", "::1")
    context.set_alpn_protocols(["http/1.1"])
    with serving(tls=context) as port:
        status, document = connect_json(
            "localhost", f"{port}", "--ca", authority, "--alpn", "h2,http/1.1"
        )
    tls = document["tls"]
    assert (status, tls["version"], tls["alpn"]) == (0, "TLSv1.3", "http/1.1")
    assert (tls["server_name"], tls["verified"]) == ("localhost", True)
    assert tls["bits"] in (128, 256)
    (certificate,) = tls["chain"]
    assert certificate["names"] == ["localhost", "127.0.0.1", "::1"]
    assert certificate["validity"] == "valid"
    assert certificate["key"] == "EC 256"
    assert certificate["issuer"].startswith("OU=Testing CA ")


def test_older_versions_are_told(ca: trustme.CA, authority: Path) -> None:
    context = server_context(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(tls=context) as port:
        done = run("connect", "localhost", f"{port}", "--ca", authority, "--check")
    assert done.returncode == 0
    assert "  Version          TLSv1.2\n" in done.stdout
    assert "  ALPN             none\n" in done.stdout
    assert re.search(r"  Valid until      3000-01-01T00:00:00Z, in \d+ days\n", done.stdout)
    assert re.search(r"  SHA-256          [0-9a-f]{64}\n", done.stdout)


def test_data_goes_both_ways(ca: trustme.CA, authority: Path) -> None:
    with serving(lambda c: c.sendall(c.recv(100)[::-1]), server_context(ca)) as port:
        done = run("connect", "localhost", f"{port}", "--ca", authority, input=b"abc")
    assert (done.returncode, done.stdout) == (0, "cba")
    assert "TLSv1.3" in done.stderr


def test_a_chain_of_two(tmp_path: Path) -> None:
    root = trustme.CA()
    middle = root.create_child_ca()
    with serving(tls=server_context(middle)) as port:
        done = run(
            "connect", "localhost", f"{port}", "--ca", authority_file(root, tmp_path), "--check"
        )
    assert done.returncode == 0
    assert "Certificate 1 of 2\n" in done.stdout
    assert "Certificate 2 of 2\n" in done.stdout


@pytest.mark.parametrize(
    ("valid", "validity", "told"),
    [
        (EXPIRED, "expired", r"\d+T[\d:]+Z, 1 day ago\n  Validity         expired\n"),
        (TOMORROW, "not yet valid", r"in [23] days\n  Validity         not yet valid\n"),
    ],
)
def test_certificates_out_of_their_time_are_shown_and_refused(
    ca: trustme.CA,
    authority: Path,
    tmp_path: Path,
    valid: tuple[float, float],
    validity: str,
    told: str,
) -> None:
    context = context_of(issue(ca, "localhost", common_name="me", valid=valid), tmp_path)
    with serving(tls=context) as port:
        status, document = connect_json("localhost", f"{port}", "--ca", authority)
        done = run("connect", "localhost", f"{port}", "--ca", authority, input=b"secret")
    assert status == done.returncode == 5
    assert document["error"]["stage"] == "tls"
    assert document["tls"]["version"] is None
    (certificate,) = document["tls"]["chain"]
    assert (certificate["validity"], certificate["subject"]) == (validity, "CN=me")
    assert re.search(told, done.stderr)
    assert "error: the certificate" in done.stderr.lower()


def test_the_wrong_name(ca: trustme.CA, authority: Path) -> None:
    with serving(tls=server_context(ca, "other.example")) as port:
        status, document = connect_json("localhost", f"{port}", "--ca", authority)
        assert (status, document["error"]["code"]) == (5, "AWS_IO_TLS_HOST_NAME_MISMATCH")
        assert document["tls"]["chain"][0]["names"] == ["other.example"]
        arguments = ("localhost", f"{port}", "--ca", authority, "--server-name", "other.example")
        status, document = connect_json(*arguments)
        assert (status, document["tls"]["server_name"]) == (0, "other.example")


def test_an_authority_that_is_not_trusted(ca: trustme.CA, tmp_path: Path) -> None:
    with serving(tls=server_context(ca)) as port:
        status, document = connect_json("localhost", f"{port}", "--tls")
        assert (status, document["error"]["code"]) == (5, "AWS_IO_TLS_UNKNOWN_ROOT_CERTIFICATE")
        assert len(document["tls"]["chain"]) == 1
        done = run("connect", "localhost", f"{port}", "--insecure", "--check")
        assert "  Verified         no\n" in done.stdout


def test_a_folder_of_trusted_certificates(ca: trustme.CA, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command")
    folder = tmp_path / "trusted"
    folder.mkdir()
    authority_file(ca, folder)
    subprocess.run([openssl, "rehash", folder], check=True, capture_output=True)
    with serving(tls=server_context(ca)) as port:
        status, document = connect_json("localhost", f"{port}", "--ca", folder)
    assert (status, document["tls"]["verified"]) == (0, True)


@pytest.mark.parametrize("in_one_file", [True, False])
def test_a_client_certificate(
    ca: trustme.CA, authority: Path, tmp_path: Path, in_one_file: bool
) -> None:
    leaf = ca.issue_cert("client@example.org")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    options: list[str | Path] = ["--cert", certificate]
    if in_one_file:
        leaf.private_key_and_cert_chain_pem.write_to_path(certificate)
    else:
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        options += ["--key", key]
    presented: list[Any] = []

    def note(connection: socket.socket) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        presented.append(connection.getpeercert())

    context = server_context(ca)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(note, context) as port:
        done = run("connect", "localhost", f"{port}", "--ca", authority, *options)
        assert done.returncode == 0
        assert presented[0]["subjectAltName"] == (("email", "client@example.org"),)
        # TLS 1.3 lets the client learn afterwards that it was refused.
        done = run("connect", "localhost", f"{port}", "--ca", authority)
        assert done.returncode == 1
        assert "error: the connection broke: " in done.stderr


def test_no_tls_there() -> None:
    with serving(lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n")) as port:
        status, document = connect_json("localhost", f"{port}", "--tls")
    assert (status, document["error"]["stage"]) == (5, "tls")
    assert document["tls"]["chain"] == []


def test_a_trace(ca: trustme.CA, authority: Path) -> None:
    with serving(tls=server_context(ca)) as port:
        done = run("connect", "localhost", f"{port}", "--ca", authority, "--check", "--trace")
    lines = done.stderr.splitlines()
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)
    subjects = [line[15:].split("  ")[0].strip() for line in lines]
    for subject in ("lookup", "attempt", "tls message", "channel"):
        assert subject in subjects
    messages = [line.split("tls message")[1].strip() for line in lines if "tls message" in line]
    assert messages[0].startswith("-> CLIENT_HELLO, ")
    assert messages[1].startswith("<- SERVER_HELLO, ")
    assert "-> warning alert: CLOSE_NOTIFY" in messages
    assert done.stdout.startswith(f"localhost port {port}\n")


def test_ctrl_d_at_a_terminal_ends_the_connection(ca: trustme.CA, authority: Path) -> None:
    with (
        serving(tls=server_context(ca)) as port,
        terminal("connect", "localhost", f"{port}", "--ca", authority) as screen,
    ):
        screen.wait_for("SHA-256")
        screen.type("hello\n")
        screen.wait_for(r"hello\n.*hello\n")
        screen.type("\x04")
        assert screen.wait() == 0


def test_without_cryptography_the_key_is_not_told(
    ca: trustme.CA, authority: Path, tmp_path: Path
) -> None:
    env = without("cryptography", tmp_path)
    with serving(tls=server_context(ca)) as port:
        done = run("connect", "localhost", f"{port}", "--ca", authority, "--json", env=env)
    document = json.loads(done.stdout)
    validate(document, "connect")
    assert document["tls"]["chain"][0]["key"] is None


@contextmanager
def openssl_server(identity: Path, *options: str) -> Iterator[int]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command")
    command = [openssl, "s_server", "-accept", "127.0.0.1:0", "-cert", f"{identity}", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        yield next(int(line.rpartition(":")[2]) for line in lines if line.startswith("ACCEPT "))
    finally:
        server.kill()
        server.communicate()


def test_openssl_as_the_server(ca: trustme.CA, authority: Path, tmp_path: Path) -> None:
    identity = tmp_path / "server.pem"
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(identity)
    with openssl_server(identity, "-rev", "-alpn", "h2", "-tls1_3") as port:
        arguments = ("connect", "localhost", f"{port}", "--ca", authority, "--alpn", "h2")
        done = run(*arguments, "--wait", "0.5", input=b"hello\n")
    assert (done.returncode, done.stdout) == (0, "olleh\n")
    assert "  ALPN             h2\n" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ca", "missing.pem"], "No such file"),
        (["--key", "key.pem"], "--key needs --cert"),
        (["--cert", "missing.pem"], "No such file"),
        (["--alpn", "two words"], "ALPN"),
        (["--alpn", ""], "ALPN"),
        (["--tls", "--server-name", "x" * 300], "server name"),
    ],
)
def test_tls_that_cannot_be(options: list[str], message: str) -> None:
    done = run("connect", "localhost", "1", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_files_that_are_no_certificates(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("nothing of the kind")
    for option in ("--ca", "--cert"):
        done = run("connect", "localhost", "1", option, file)
        assert done.returncode == 2
        assert "PEM" in done.stderr
