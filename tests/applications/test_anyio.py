"""anyio, unmodified, with each loop as the `loop_factory` of its asyncio backend."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskStatus
from anyio.streams.tls import TLSAttribute, TLSListener, TLSStream

from tests import loops
from tests.applications.traffic import MIB, blob, digest

ROOT = Path(__file__).parents[2]

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=list(loops.FACTORIES))
def factory(request: pytest.FixtureRequest) -> loops.Factory:
    return loops.FACTORIES[request.param]


@pytest.fixture
def run(factory: loops.Factory) -> Run:
    """anyio.run on the loop."""

    def run(main: Callable[[], Awaitable[None]]) -> None:
        anyio.run(main, backend_options={"loop_factory": factory})

    return run


async def receive_all(stream: anyio.abc.ByteReceiveStream) -> bytes:
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)


# Streams


def test_the_loop_is_the_factorys(factory: loops.Factory) -> None:
    async def main() -> type:
        return type(asyncio.get_running_loop())

    made = factory()
    made.close()
    assert anyio.run(main, backend_options={"loop_factory": factory}) is type(made)


def test_tcp_with_a_half_close(run: Run) -> None:
    data = blob(4 * MIB)

    async def answer_with_the_digest(stream: SocketStream) -> None:
        async with stream:
            await stream.send(digest(await receive_all(stream)).encode())

    async def main() -> None:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, answer_with_the_digest)
            port = listener.extra(SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(data)
                await stream.send_eof()
                assert await receive_all(stream) == digest(data).encode()
            group.cancel_scope.cancel()

    run(main)


def test_both_directions_at_once(run: Run) -> None:
    data = blob(4 * MIB)

    async def echo(stream: SocketStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send(chunk)
            await stream.send_eof()

    async def main() -> None:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, echo)
            port = listener.extra(SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:

                async def send() -> None:
                    await stream.send(data)
                    await stream.send_eof()

                group.start_soon(send)
                assert digest(await receive_all(stream)) == digest(data)
            group.cancel_scope.cancel()

    run(main)


def test_tls(run: Run, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    data = blob(2 * MIB)

    async def echo(stream: TLSStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send(chunk)

    async def main() -> None:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as plain,
            anyio.create_task_group() as group,
        ):
            group.start_soon(TLSListener(plain, server_tls).serve, echo)
            port = plain.extra(SocketAttribute.local_port)
            async with await anyio.connect_tcp(
                "127.0.0.1", port, ssl_context=client_tls, tls_hostname="localhost"
            ) as stream:
                assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"
                group.start_soon(stream.send, data)
                received = bytearray()
                while len(received) < len(data):
                    received += await stream.receive()
                assert digest(received) == digest(data)
            group.cancel_scope.cancel()

    run(main)


def test_unix_sockets_and_udp(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        async with (
            await anyio.create_unix_listener(path) as listener,
            await anyio.connect_unix(path) as client,
            await listener.accept() as server,
        ):
            await client.send(b"over a Unix socket")
            assert await server.receive() == b"over a Unix socket"
        async with (
            await anyio.create_udp_socket(
                family=socket.AF_INET, local_host="127.0.0.1"
            ) as receiver,
            await anyio.create_connected_udp_socket(
                "127.0.0.1", receiver.extra(SocketAttribute.local_port)
            ) as sender,
        ):
            await sender.send(b"a datagram")
            data, address = await receiver.receive()
            assert data == b"a datagram"
            await receiver.sendto(b"an answer", *address)
            assert await sender.receive() == b"an answer"

    run(main)


def test_waiting_for_a_socket_of_ones_own(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            await anyio.wait_writable(ours)

            async def readable() -> None:
                await anyio.wait_readable(ours)

            async with anyio.create_task_group() as group:
                group.start_soon(readable)
                await anyio.wait_all_tasks_blocked()
                theirs.send(b"x")
            with anyio.move_on_after(0.05) as scope:
                ours.recv(1)
                await anyio.wait_readable(ours)
            assert scope.cancelled_caught

    run(main)


# Tasks and cancellation


def test_task_groups(run: Run) -> None:
    async def main() -> None:
        results = []

        async def service(*, task_status: TaskStatus[str]) -> None:
            task_status.started("ready")
            try:
                await anyio.sleep_forever()
            finally:
                results.append("service ended")

        async def fail() -> None:
            raise ValueError("one task fails")

        with pytest.raises(ExceptionGroup) as raised:
            async with anyio.create_task_group() as group:
                assert await group.start(service) == "ready"
                group.start_soon(fail)
                await anyio.sleep_forever()
        assert raised.group_contains(ValueError, match="one task fails")
        assert results == ["service ended"]

    run(main)


def test_cancel_scopes(run: Run) -> None:
    async def main() -> None:
        with anyio.move_on_after(0.01) as outer:
            await anyio.sleep_forever()
        assert outer.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.01):
                await anyio.sleep_forever()
        with anyio.CancelScope() as outer, anyio.CancelScope(shield=True) as shield:
            outer.cancel()
            await anyio.sleep(0.01)
            shield.shield = False
            await anyio.sleep_forever()
        assert outer.cancelled_caught

    run(main)


def test_a_cancelled_receive_loses_nothing(run: Run) -> None:
    async def main() -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listeners:
            listener = listeners.listeners[0]
            assert isinstance(listener, SocketListener)
            port = listener.extra(SocketAttribute.local_port)
            async with (
                await anyio.connect_tcp("127.0.0.1", port) as client,
                await listener.accept() as server,
            ):
                with anyio.move_on_after(0.01):
                    await client.receive()
                await server.send(b"still there")
                assert await client.receive() == b"still there"

    run(main)


def test_signals(run: Run) -> None:
    async def main() -> None:
        with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
            for signum in (signal.SIGUSR2, signal.SIGUSR1):
                os.kill(os.getpid(), signum)
                assert await anext(signals) == signum

    run(main)


# Threads and processes


def test_to_thread_and_back(run: Run) -> None:
    async def main() -> None:
        async def number() -> int:
            await anyio.lowlevel.checkpoint()
            return 42

        def work() -> tuple[int, threading.Thread]:
            return anyio.from_thread.run(number), threading.current_thread()

        answer, thread = await anyio.to_thread.run_sync(work)
        assert answer == 42
        assert thread is not threading.current_thread()

    run(main)


def test_a_blocking_portal(factory: loops.Factory) -> None:
    started = threading.Event()

    async def forever() -> None:
        started.set()
        await anyio.sleep_forever()

    async def double(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * value

    with anyio.from_thread.start_blocking_portal(
        backend_options={"loop_factory": factory}
    ) as portal:
        assert portal.call(double, 21) == 42
        future = portal.start_task_soon(forever)
        started.wait()
        future.cancel()
        with pytest.raises(CancelledError):
            future.result()


def test_processes(run: Run) -> None:
    data = blob(2 * MIB)

    async def main() -> None:
        done = await anyio.run_process(["cat"], input=data)
        assert digest(done.stdout) == digest(data)
        with pytest.raises(subprocess.CalledProcessError):
            await anyio.run_process("exit 3")
        async with await anyio.open_process(["sleep", "1000"]) as process:
            process.kill()
            assert await process.wait() == -signal.SIGKILL

    run(main)


def test_files(run: Run, tmp_path: Path) -> None:
    data = blob(MIB)

    async def main() -> None:
        path = anyio.Path(tmp_path / "file")
        await path.write_bytes(data)
        async with await anyio.open_file(path, "rb") as file:
            assert digest(await file.read()) == digest(data)

    run(main)


# The plugin for pytest

PLUGIN_TESTS = """
import asyncio
import anyio
import pytest
from tests import loops

@pytest.fixture(params=list(loops.FACTORIES))
def anyio_backend(request):
    return "asyncio", {"loop_factory": loops.FACTORIES[request.param]}

@pytest.fixture
async def service():
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()

@pytest.mark.anyio
async def test_the_loop(anyio_backend, service):
    made = anyio_backend[1]["loop_factory"]()
    made.close()
    assert type(asyncio.get_running_loop()) is type(made)
    service.start_soon(anyio.sleep_forever)
    await anyio.sleep(0)
"""


def test_the_pytest_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PLUGIN_TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(loops.FACTORIES)} passed" in done.stdout
