"""`KqueueSelector` on the emulation of kqueue, held against CPython's tests and asyncio."""

import asyncio
import importlib.util
import os
import select
import selectors
import socket
import types
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import kqueue_emulation

only_emulated = pytest.mark.skipif(hasattr(select, "kqueue"), reason="this platform has a kqueue")


class TestSelector:
    def test_keys_and_bases_are_the_standard_library_s(self) -> None:
        kqueue_selector = kqueue_emulation.kqueue_selector_class()
        assert kqueue_selector is kqueue_emulation.kqueue_selector_class()
        a, b = socket.socketpair()
        with a, b, kqueue_selector() as selector:
            assert isinstance(selector, selectors.BaseSelector)
            key = selector.register(a, selectors.EVENT_WRITE, "data")
            assert isinstance(key, selectors.SelectorKey)
            assert selector.select() == [(key, selectors.EVENT_WRITE)]

    @only_emulated
    @pytest.mark.parametrize("hide_epoll", [False, True])
    def test_installed(self, hide_epoll: bool) -> None:
        before, before_in_selectors = dict(vars(select)), dict(vars(selectors))
        with kqueue_emulation.installed(hide_epoll=hide_epoll):
            assert vars(select)["kevent"] is kqueue_emulation.Kevent
            assert vars(select)["KQ_EV_EOF"] == 0x8000
            assert hasattr(select, "epoll") is not hide_epoll
            assert hasattr(selectors, "EpollSelector") is not hide_epoll
            with selectors.DefaultSelector() as selector:
                assert type(selector) is vars(selectors)["KqueueSelector"]
                assert selector.select(0) == []
        assert vars(select) == before
        assert vars(selectors) == before_in_selectors


def cpython_tests(module: str, case: str) -> list[unittest.TestCase]:
    """CPython's own tests, imported as a platform with kqueue would import them."""
    try:
        spec = importlib.util.find_spec(f"test.{module}")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.loader is None:
        pytest.skip("this Python was installed without its tests")
    loaded: types.ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    test_case = getattr(loaded, case)
    return [test_case(name) for name in unittest.defaultTestLoader.getTestCaseNames(test_case)]


@pytest.mark.parametrize(
    ("module", "case", "least"),
    [("test_selectors", "KqueueSelectorTestCase", 18), ("test_kqueue", "TestKQueue", 7)],
)
def test_cpython_s_own_tests(module: str, case: str, least: int) -> None:
    with kqueue_emulation.installed():
        tests = cpython_tests(module, case)
        # test_above_fd_setsize opens every descriptor that the process may have.
        chosen = [test for test in tests if "above_fd_setsize" not in test.id()]
        result = unittest.TestResult()
        unittest.TestSuite(chosen).run(result)
    assert [text for _, text in result.errors + result.failures] == []
    assert result.testsRun - len(result.skipped) >= least


class TestAsyncio:
    @pytest.fixture
    def run(self) -> Iterator[Callable[..., Any]]:
        selector = kqueue_emulation.kqueue_selector_class()
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
            yield runner.run

    def test_echo(self, run: Callable[..., Any]) -> None:
        payload = os.urandom(1 << 20)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async def client(address: tuple[str, int]) -> bytes:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(payload)
            writer.write_eof()
            received = await reader.read()
            writer.close()
            await writer.wait_closed()
            return received

        async def main() -> list[bytes]:
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            async with server:
                return await asyncio.gather(*(client(address) for _ in range(10)))

        assert run(main()) == [payload] * 10

    def test_refused_connection(self, run: Callable[..., Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
        with pytest.raises(ConnectionRefusedError):
            run(asyncio.open_connection(*address))

    def test_subprocess_and_threads(self, run: Callable[..., Any]) -> None:
        async def main() -> tuple[bytes, int | None, int]:
            process = await asyncio.create_subprocess_exec(
                "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate(b"x" * 300_000)
            total = await asyncio.to_thread(sum, [1, 2, 3])
            await asyncio.get_running_loop().shutdown_default_executor()
            return output, process.returncode, total

        assert run(main()) == (b"x" * 300_000, 0, 6)

    def test_write_pipe_learns_that_its_reader_is_gone(self, run: Callable[..., Any]) -> None:
        class Lost(asyncio.BaseProtocol):
            def __init__(self) -> None:
                self.lost = asyncio.get_running_loop().create_future()

            def connection_lost(self, error: Exception | None) -> None:
                self.lost.set_result(None)

        async def main() -> None:
            reader, writer = os.pipe()
            loop = asyncio.get_running_loop()
            _, protocol = await loop.connect_write_pipe(Lost, os.fdopen(writer, "wb", 0))
            os.close(reader)
            await protocol.lost

        run(main())
