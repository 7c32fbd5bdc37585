"""Other people's TLS as child processes: openssl, GnuTLS and nginx. Tests skip what is missing."""

import asyncio
import os
import pwd
import re
import shutil
import socket
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.certificates import identity
from tests.tls_channels import PATIENCE
from tests.tls_peers import HOST


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> Path:
    """A folder with ca.pem, and server.pem and client.pem, which hold certificate and key."""
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, leaf in ("server", ca.issue_cert(HOST)), ("client", ca.issue_cert("client@example")):
        (tmp_path / f"{name}.pem").write_bytes(b"".join(identity(leaf)))
    return tmp_path


def found(program: str) -> str:
    """Where it is; skips the test if that is nowhere."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


class Program:
    """A child process, and what it has said so far, errors included."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.output = b""

    async def say(self, text: bytes) -> None:
        """Type this."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        await self._process.stdin.drain()

    def say_no_more(self) -> None:
        """End its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def said(self, pattern: str | bytes) -> "re.Match[bytes]":
        """The first match in what it says; fails if it ends before."""
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        while not (match := expression.search(self.output)):
            assert await self._listen(), f"{pattern!r} is not in {self.output.decode()}"
        return match

    async def said_so_much(self, size: int) -> bytes:
        """Its output, once that are so many bytes."""
        while len(self.output) < size:
            assert await self._listen(), f"{self.output.decode()} is all"
        return self.output

    async def ended(self) -> int:
        """Listen to it to its end; returns what it ends with."""
        while await self._listen():
            pass
        return await self._process.wait()

    async def _listen(self) -> bool:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                more = await self._process.stdout.read(1 << 16)
        except TimeoutError as exc:
            raise AssertionError(f"it says no more than {self.output.decode()}") from exc
        self.output += more
        return bool(more)

    def kill(self) -> None:
        self._process.kill()

    async def stop(self) -> None:
        """End it, if it has not ended yet."""
        if self._process.returncode is None:
            self._process.terminate()
        self.say_no_more()
        await self.ended()


@asynccontextmanager
async def running(program: str, *arguments: str, **options: Any) -> AsyncIterator[Program]:
    """A program, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        found(program), *arguments, stdin=PIPE, stdout=PIPE, stderr=STDOUT, **options
    )
    child = Program(process)
    try:
        yield child
    finally:
        await child.stop()


@asynccontextmanager
async def s_server(files: Path, options: str) -> AsyncIterator[tuple[Program, int]]:
    """`openssl s_server`, and its port. Lines it is told go to the client, what that sends is
    printed; a line of one letter is a command."""
    certificate = "-cert server.pem -key server.pem -CAfile ca.pem"
    command = f"s_server -accept 127.0.0.1:0 -naccept 1 {certificate} {options}".split()
    async with running("openssl", *command, cwd=files) as server:
        port = await server.said(r"ACCEPT 127\.0\.0\.1:(\d+)")
        yield server, int(port[1])


@asynccontextmanager
async def s_client(files: Path, port: int, options: str) -> AsyncIterator[Program]:
    """`openssl s_client`, which verifies."""
    verify = f"-CAfile ca.pem -verify_return_error -servername {HOST} -verify_hostname {HOST}"
    command = f"s_client -connect 127.0.0.1:{port} {verify} {options}".split()
    async with running("openssl", *command, cwd=files) as client:
        yield client


def gnutls_version(version: str) -> str:
    """An option of GnuTLS for one version, such as "TLS1.3"."""
    return f"--priority=NORMAL:-VERS-ALL:+VERS-{version}"


@asynccontextmanager
async def gnutls_serv(files: Path, *options: str) -> AsyncIterator[tuple[Program, int]]:
    """`gnutls-serv`, which sends lines back, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:  # it cannot look for one itself
        port = free.getsockname()[1]
    identity_options = ["--x509certfile=server.pem", "--x509keyfile=server.pem"]
    command = ["--echo", f"--port={port}", *identity_options, "--x509cafile=ca.pem", *options]
    async with running("gnutls-serv", *command, cwd=files) as server:
        await server.said(rf"IPv4 0\.0\.0\.0 port {port}\.\.\.done")
        yield server, port


@asynccontextmanager
async def gnutls_cli(files: Path, port: int, *options: str) -> AsyncIterator[Program]:
    """`gnutls-cli`, which verifies. What it is told goes to the server, what that sends is
    printed."""
    names = [f"--sni-hostname={HOST}", f"--verify-hostname={HOST}", "--x509cafile=ca.pem"]
    command = [f"--port={port}", *names, *options, "127.0.0.1"]
    async with running("gnutls-cli", *command, cwd=files) as client:
        yield client


NGINX = """
    daemon off; user {user}; pid nginx.pid; error_log stderr info; worker_processes 1;
    events {{ worker_connections 64; }}
    http {{
        access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c;
        uwsgi_temp_path d; scgi_temp_path e;
        server {{ listen 127.0.0.1:{port} {server} }}
    }}
"""


@asynccontextmanager
async def nginx(files: Path, server: str) -> AsyncIterator[tuple[Program, int]]:
    """nginx and its port; `server` is how its configuration goes on after "listen ADDRESS"."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        user = pwd.getpwuid(os.geteuid()).pw_name
        (files / "nginx.conf").write_text(NGINX.format(port=port, server=server, user=user))
        inherited = listener.fileno()  # as when a new nginx takes over from an old one
        async with running(
            "nginx",
            *("-p", str(files), "-c", "nginx.conf"),
            env={"NGINX": f"{inherited};"},
            pass_fds=[inherited],
        ) as program:
            listener.close()
            yield program, port
