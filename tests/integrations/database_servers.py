"""PostgreSQL and Redis, each a process of the tests' own, with TLS. Without them, tests skip."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

PATIENCE = 40.0


@dataclass(frozen=True)
class Server:
    """Where a server listens: on ports of 127.0.0.1, and on a local socket."""

    port: int
    tls_port: int
    """The same as `port` if the protocol begins TLS on that."""
    folder: Path
    """Where the local socket is."""


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [sock.getsockname()[1] for sock in sockets]


@contextlib.contextmanager
def _folder(owner: str | None) -> Iterator[Path]:
    """A new folder, short enough for the path of a socket, and another user's if need be."""
    with tempfile.TemporaryDirectory(prefix="db-", dir="/tmp") as name:
        if owner is not None:
            os.chown(name, pwd.getpwnam(owner).pw_uid, pwd.getpwnam(owner).pw_gid)
        yield Path(name)


def _write(path: Path, data: bytes, owner: str | None) -> str:
    path.write_bytes(data)
    path.chmod(0o600)
    if owner is not None:
        os.chown(path, pwd.getpwnam(owner).pw_uid, pwd.getpwnam(owner).pw_gid)
    return str(path)


def _certificate(folder: Path, ca: trustme.CA, owner: str | None) -> tuple[str, str, str]:
    """Files with the certificate of `localhost`, its key, and who issued it."""
    issued = ca.issue_cert("localhost")
    return (
        _write(folder / "certificate.pem", issued.cert_chain_pems[0].bytes(), owner),
        _write(folder / "key.pem", issued.private_key_pem.bytes(), owner),
        _write(folder / "ca.pem", ca.cert_pem.bytes(), owner),
    )


@contextlib.contextmanager
def _running(
    command: Sequence[str], log: Path, owner: str | None, ready: Callable[[], object]
) -> Iterator[None]:
    """The process, once `ready()` raises no OSError any more."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, user=owner)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                ready()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(log.read_text()) from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _find(program: str) -> str:
    """The program's path; skips the test if it is not installed."""
    places = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), os.environ.get("PATH", "")]
    found = shutil.which(program, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@contextlib.contextmanager
def postgresql(ca: trustme.CA) -> Iterator[Server]:
    """A cluster whose user `test` needs no password. As root it runs as `postgres`."""
    initdb, postgres = _find("initdb"), _find("postgres")
    owner = "postgres" if os.geteuid() == 0 else None
    with _folder(owner) as folder:
        data = str(folder / "data")
        options = ("-U", "test", "-A", "trust", "--no-sync", "--no-instructions")
        subprocess.run(
            [initdb, "-D", data, *options, "--encoding=UTF8", "--locale=C"],
            user=owner,
            check=True,
            capture_output=True,
            cwd="/",
        )
        certificate, key, _ = _certificate(folder, ca, owner)
        (port,) = _free_ports(1)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder),
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
            "fsync": "off",
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        command = [postgres, "-D", data, "-p", f"{port}", *arguments]
        log = Path(_write(folder / "log", b"", owner))
        is_ready = [_find("pg_isready"), "-h", "127.0.0.1", "-p", f"{port}"]

        def ready() -> None:
            if subprocess.run(is_ready, capture_output=True, check=False).returncode:
                raise ConnectionRefusedError

        with _running(command, log, owner, ready):
            yield Server(port, port, folder)


@contextlib.contextmanager
def redis(ca: trustme.CA) -> Iterator[Server]:
    """An empty Redis."""
    program = _find("redis-server")
    with _folder(None) as folder:
        certificate, key, authority = _certificate(folder, ca, None)
        port, tls_port = _free_ports(2)
        settings = {
            "bind": "127.0.0.1",
            "port": f"{port}",
            "tls-port": f"{tls_port}",
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": authority,
            "tls-auth-clients": "no",
            "unixsocket": str(folder / "redis.sock"),
            "dir": str(folder),
            "save": "",
        }
        command = [program]
        for name, value in settings.items():
            command += [f"--{name}", value]

        def ready() -> None:
            with socket.create_connection(("127.0.0.1", port), 5) as sock:
                sock.sendall(b"PING\r\n")
                if sock.recv(100) != b"+PONG\r\n":
                    raise ConnectionResetError

        with _running(command, folder / "log", None, ready):
            yield Server(port, tls_port, folder)
