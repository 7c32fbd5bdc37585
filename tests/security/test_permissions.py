"""Who may connect to the Unix sockets that are made, and read the files."""

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from aws_io_async import ChannelStream, observe, serve
from aws_io_async.socket import Socket, SocketDomain, SocketEndpoint, SocketOptions
from tests.cli import commands


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    mask: int = request.param
    before = os.umask(mask)
    yield mask
    os.umask(before)


@pytest.mark.loops("aws_io_async")
async def test_the_socket_of_the_statistics_is_the_users_own(umask: int, tmp_path: Path) -> None:
    with observe.serve_statistics(tmp_path / "socket"):
        assert mode_of(tmp_path / "socket") == 0o600
    assert os.umask(umask) == umask  # which is the whole process's, and was not touched


@asynccontextmanager
async def unix_server(path: Path) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    async with await loop.create_unix_server(asyncio.Protocol, str(path)):
        yield


@asynccontextmanager
async def listening_socket(path: Path) -> AsyncIterator[None]:
    async with Socket(SocketOptions(domain=SocketDomain.LOCAL)) as sock:
        sock.bind(SocketEndpoint(str(path)))
        sock.listen()
        yield


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[None]:
    async def nothing(stream: ChannelStream) -> None: ...

    options = SocketOptions(domain=SocketDomain.LOCAL)
    async with serve(nothing, str(path), socket_options=options):
        yield


LISTENERS: dict[str, Callable[[Path], AbstractAsyncContextManager[None]]] = {
    "create_unix_server": unix_server,
    "Socket": listening_socket,
    "serve": serving,
}


@pytest.mark.parametrize("which", LISTENERS)
async def test_other_sockets_are_as_the_umask_has_it(
    umask: int, tmp_path: Path, which: str
) -> None:
    """Neither wider nor narrower: as asyncio's are, and aws-c-io's."""
    async with LISTENERS[which](tmp_path / "socket"):
        assert mode_of(tmp_path / "socket") == 0o777 & ~umask


BECOME_NOBODY_AND_CONNECT = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    print("refused")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect_to_the_statistics() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # it is the socket itself that keeps others out
        path = Path(folder, "socket")
        with observe.serve_statistics(path):
            command = [sys.executable, "-I", "-c", BECOME_NOBODY_AND_CONNECT, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_the_private_key_of_a_certificate_made_on_the_spot_is_in_no_file(tmp_path: Path) -> None:
    """`echo --tls`: what it writes is what clients are to trust."""
    with commands.running("echo", "--tls", "--ca-out", tmp_path / "ca.pem") as echo:
        echo.line_with("Listening")
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert written == [tmp_path / "ca.pem"]
        assert b"PRIVATE" not in written[0].read_bytes()
