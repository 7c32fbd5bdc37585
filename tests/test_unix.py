"""Unix domain sockets: servers with their files, and connections to them."""

import asyncio
import errno
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux'")


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


async def serve(path: Any, **options: Any) -> Any:
    return await asyncio.get_running_loop().create_unix_server(Echo, path, **options)


async def end(server: Any) -> None:
    server.close()
    await asyncio.wait_for(server.wait_closed(), 10)
    await asyncio.sleep(0)


async def echoed(path: Any) -> None:
    """Say something to the server at `path`, and hear it again."""
    transport, client = await asyncio.get_running_loop().create_unix_connection(Client, path)
    transport.write(b"ping")
    assert await client.answer == b"ping"
    transport.close()
    await client.lost
    await asyncio.sleep(0)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
async def test_paths_of_every_kind(tmp_path: Path, kind: Any) -> None:
    path = kind(str(tmp_path / "socket"))
    server = await serve(path)
    assert server.sockets[0].getsockname() == str(tmp_path / "socket")
    await echoed(path)
    await end(server)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop does not connect to them
@linux
@pytest.mark.parametrize("kind", [str, str.encode])
async def test_abstract_names(tmp_path: Path, kind: Any) -> None:
    path = kind(f"\0{tmp_path}")
    server = await serve(path)
    await echoed(path)
    await end(server)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.get_running_loop().create_unix_connection(Client, path)


async def test_a_path_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError):
        await serve(42)
    with pytest.raises(TypeError):
        await asyncio.get_running_loop().create_unix_connection(Client, 42)  # type: ignore[arg-type]  # on purpose


async def test_extra_info(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = await serve(path)
    transport, client = await asyncio.get_running_loop().create_unix_connection(Client, path)
    assert transport.get_extra_info("peername") == path
    assert transport.get_extra_info("sockname") == ""
    assert transport.get_extra_info("socket").family == socket.AF_UNIX
    transport.close()
    await client.lost
    await end(server)


# Files


async def test_a_dead_servers_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    server = await serve(path)
    await echoed(path)
    await end(server)


async def test_another_kind_of_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match=f"Address .*{path}.* is already in use") as caught:
        await serve(str(path))
    assert caught.value.errno == errno.EADDRINUSE
    assert path.read_text() == "precious"


async def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await serve(tmp_path / "missing" / "socket")


# asyncio has it from 3.13, uvloop does not.
@pytest.mark.loops("aws_io_async")
async def test_the_socket_is_removed_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    await end(await serve(path, cleanup_socket=True))
    assert not path.exists()
    await end(await serve(path, cleanup_socket=False))
    assert path.is_socket()
    own = socket.socket(socket.AF_UNIX)
    own.bind(str(tmp_path / "own"))
    await end(await serve(None, sock=own, cleanup_socket=True))
    assert not (tmp_path / "own").exists()


@pytest.mark.loops("aws_io_async")
async def test_what_took_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    old = await serve(path, cleanup_socket=True)
    path.rename(tmp_path / "aside")  # so that its inode is not used again
    new = await serve(path, cleanup_socket=True)
    await end(old)
    await echoed(path)
    await end(new)
    server = await serve(path, cleanup_socket=True)
    path.unlink()
    await end(server)  # nothing to remove is no error


# Errors


async def test_misuse_of_the_server_is_refused(tmp_path: Path) -> None:
    loop: Any = asyncio.get_running_loop()
    path = str(tmp_path / "socket")
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
        socket.socket(socket.AF_UNIX) as stream,
    ):
        for error, text, options in (
            (ValueError, "path was not specified", {}),
            (ValueError, "at the same time", {"path": path, "sock": stream}),
            (ValueError, "UNIX Domain Stream Socket was expected", {"sock": tcp}),
            (ValueError, "UNIX Domain Stream Socket was expected", {"sock": datagram}),
            (TypeError, "ssl argument must be an SSLContext", {"path": path, "ssl": True}),
            (ValueError, "meaningful with ssl", {"path": path, "ssl_handshake_timeout": 1}),
            (ValueError, "meaningful with ssl", {"path": path, "ssl_shutdown_timeout": 1}),
        ):
            with pytest.raises(error, match=text):
                await loop.create_unix_server(Echo, **options)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop has other words
async def test_misuse_of_the_connection_is_refused(tmp_path: Path) -> None:
    loop: Any = asyncio.get_running_loop()
    path = str(tmp_path / "socket")
    context = ssl.create_default_context()
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
        socket.socket(socket.AF_UNIX) as stream,
    ):
        for text, options in (
            ("no path and sock", {}),
            ("at the same time", {"path": path, "sock": stream}),
            ("UNIX Domain Stream Socket was expected", {"sock": tcp}),
            ("UNIX Domain Stream Socket was expected", {"sock": datagram}),
            ("you have to pass server_hostname", {"path": path, "ssl": context}),
            ("only meaningful with ssl", {"path": path, "server_hostname": "name"}),
            ("only meaningful with ssl", {"path": path, "ssl_handshake_timeout": 1}),
            ("only meaningful with ssl", {"path": path, "ssl_shutdown_timeout": 1}),
        ):
            with pytest.raises(ValueError, match=text):
                await loop.create_unix_connection(Client, **options)


async def test_nobody_there(tmp_path: Path) -> None:
    loop: Any = asyncio.get_running_loop()
    path = str(tmp_path / "socket")
    with pytest.raises(FileNotFoundError) as missing:
        await loop.create_unix_connection(Client, path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(ConnectionRefusedError) as refused:
        await loop.create_unix_connection(Client, path)
    if type(loop).__module__.startswith("aws_io_async"):  # the others do not say which path
        assert path in str(missing.value)
        assert path in str(refused.value)


async def test_a_connected_socket_of_the_callers() -> None:
    near, far = socket.socketpair()
    with far:
        transport, client = await asyncio.get_running_loop().create_unix_connection(
            Client, sock=near
        )
        far.send(b"hello")
        assert await client.answer == b"hello"
        transport.close()
        await client.lost
        await asyncio.sleep(0)
