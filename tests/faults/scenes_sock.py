"""Scenes: the event loop's operations on sockets of the caller's."""

import asyncio
import io
import socket

from tests.faults.cancellation import Injection
from tests.faults.scenes import (
    BIG,
    DATA,
    OURS_ALONE,
    UNLESS_DONE,
    folder,
    injected,
    listener,
    pair,
    running,
    scene,
)


@scene("EventLoop.sock_recv", others=UNLESS_DONE)
async def sock_recv(inject: Injection) -> None:
    with pair() as (near, far):
        got = await injected(inject, lambda: running().sock_recv(near, 100), lambda: far.send(DATA))
        assert got == DATA


@scene("EventLoop.sock_recv_into", others=UNLESS_DONE)
async def sock_recv_into(inject: Injection) -> None:
    buffer = bytearray(100)
    with pair() as (near, far):
        size = await injected(
            inject, lambda: running().sock_recv_into(near, buffer), lambda: far.send(DATA)
        )
        assert buffer[:size] == DATA


@scene("EventLoop.sock_recvfrom", others=OURS_ALONE)
async def sock_recvfrom(inject: Injection) -> None:
    with pair() as (near, far):
        data, _ = await injected(
            inject, lambda: running().sock_recvfrom(near, 100), lambda: far.send(DATA)
        )
        assert data == DATA


@scene("EventLoop.sock_recvfrom_into", others=OURS_ALONE)
async def sock_recvfrom_into(inject: Injection) -> None:
    buffer = bytearray(100)
    with pair() as (near, far):
        size, _ = await injected(
            inject, lambda: running().sock_recvfrom_into(near, buffer), lambda: far.send(DATA)
        )
        assert buffer[:size] == DATA


@scene("EventLoop.sock_accept", others=UNLESS_DONE)
async def sock_accept(inject: Injection) -> None:
    with listener() as sock, socket.socket() as client:
        client.setblocking(False)
        address = sock.getsockname()
        connection, peer = await injected(
            inject, lambda: running().sock_accept(sock), lambda: client.connect_ex(address)
        )
        with connection:
            assert peer == client.getsockname()


@scene("EventLoop.sock_sendall")
async def sock_sendall(inject: Injection) -> None:
    with pair() as (near, far):
        reading = asyncio.ensure_future(read_to_the_end(far))
        outcome = await inject(running().sock_sendall(near, BIG))
        near.close()
        received = await reading
        assert BIG.startswith(received)
        assert outcome.cancelled or received == BIG


async def read_to_the_end(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := await running().sock_recv(sock, 1 << 16):
        received += data
    return bytes(received)


@scene("EventLoop.sock_sendto", others=OURS_ALONE)
async def sock_sendto(inject: Injection) -> None:
    with folder() as path, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.bind(f"{path}/far")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as near:
            near.setblocking(False)
            address, full = far.getsockname(), 0
            try:
                while True:
                    full += near.sendto(b"x", address)
            except BlockingIOError:
                pass
            call = running().sock_sendto
            size = await injected(
                inject,
                lambda: call(near, DATA, address),
                lambda: [far.recv(10) for _ in range(full)],
            )
            assert size == len(DATA)
            assert far.recv(100) == DATA


@scene("EventLoop.sock_connect")
async def sock_connect(inject: Injection) -> None:
    with listener() as sock, socket.socket() as client:
        client.setblocking(False)
        outcome = await inject(running().sock_connect(client, sock.getsockname()))
        assert client.fileno() >= 0
        if outcome.cancelled:  # nobody else knows what is under way
            return
        assert client.getpeername() == sock.getsockname()


@scene("EventLoop.sock_sendfile", others=OURS_ALONE)
async def sock_sendfile(inject: Injection) -> None:
    with folder() as path, pair() as (near, far):
        (path / "file").write_bytes(BIG)
        with (path / "file").open("rb") as file:
            reading = asyncio.ensure_future(read_to_the_end(far))
            outcome = await inject(running().sock_sendfile(near, file))
            position = file.tell()
            near.close()
            assert await reading == BIG[:position]
            assert outcome.cancelled or position == len(BIG)


@scene("EventLoop.sock_sendfile", others=OURS_ALONE)
async def sock_sendfile_by_copying(inject: Injection) -> None:
    with pair() as (near, far):
        reading = asyncio.ensure_future(read_to_the_end(far))
        file = io.BytesIO(BIG)
        outcome = await inject(running().sock_sendfile(near, file))
        near.close()
        received = await reading
        assert BIG.startswith(received)
        assert file.tell() <= len(received)
        assert outcome.cancelled or received == BIG
