"""Names and addresses: what takes a thread, and which."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import aws_io_async

ours = pytest.mark.loops("aws_io_async")
MAX_THREADS = 8


class Resolver:
    """Takes the place of the system's resolver; lookups wait until they are let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.under_way = 0
        self.most = 0
        self.threads: set[str] = set()
        self.let_go = threading.Event()
        self.lock = threading.Lock()
        self._real = socket.getaddrinfo
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()

    def __call__(self, host: Any, port: Any, *args: Any) -> Any:
        with self.lock:
            self.asked.append(host)
            self.threads.add(threading.current_thread().name)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)
        self.let_go.wait(30)
        with self.lock:
            self.under_way -= 1
        return self._real("127.0.0.1", port, *args)

    async def busy(self, lookups: int) -> None:
        """Wait until so many lookups are under way."""
        self._loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            if self.under_way >= lookups:
                return
            await self._news.wait()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    replacement = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", replacement)
    yield replacement
    replacement.let_go.set()


class Untouchable(ThreadPoolExecutor):
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a lookup on the default executor")


@pytest.mark.parametrize(
    ("host", "port", "options"),
    [
        ("127.0.0.1", 80, {}),
        ("127.0.0.1", "80", {}),
        (b"127.0.0.1", b"80", {}),
        ("::1", 443, {"type": socket.SOCK_STREAM}),
        ("fe80::1%lo", 443, {"type": socket.SOCK_DGRAM}),
        ("127.0.0.1", None, {"type": socket.SOCK_STREAM}),
        (None, 80, {"flags": socket.AI_PASSIVE}),
        (None, 80, {"family": socket.AF_INET6, "type": socket.SOCK_STREAM}),
        ("localhost", 80, {"family": socket.AF_INET}),
    ],
)
@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop loses the zone
async def test_the_answer_is_the_systems(host: Any, port: Any, options: Any) -> None:
    expected = socket.getaddrinfo(host, port, **options)
    assert await asyncio.get_running_loop().getaddrinfo(host, port, **options) == expected


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 80),
        (b"127.0.0.1", "80"),
        ("::1", 80),
        ("fe80::1%lo", 80),
        ("fe80::1%1", 80),
        (None, 80),
        ("127.0.0.1", None),
    ],
)
@ours
async def test_literal_addresses_never_leave_the_thread(host: Any, port: Any) -> None:
    threads = threading.enumerate()
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    assert infos
    assert threading.enumerate() == threads


@ours
async def test_a_literal_is_answered_without_suspending() -> None:
    lookup = asyncio.get_running_loop().getaddrinfo("::1", 80)
    with pytest.raises(StopIteration):
        lookup.send(None)


@ours
@pytest.mark.parametrize("host", ["name.test", "127.0.0.1%name", "", "1.2.3.4.5", b"\xff.test"])
async def test_names_are_looked_up_on_a_thread_of_the_librarys(
    host: Any, resolver: Resolver
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Untouchable())
    resolver.let_go.set()
    assert await loop.getaddrinfo(host, 80)
    assert resolver.asked == [host]
    (thread,) = resolver.threads
    assert thread.startswith("aws_io_async-names")


@ours
async def test_connections_and_servers_do_not_use_the_default_executor() -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Untouchable())
    server = await loop.create_server(asyncio.Protocol, "localhost", 0, family=socket.AF_INET)
    transport, _ = await loop.create_connection(
        asyncio.Protocol, "localhost", server.sockets[0].getsockname()[1]
    )
    assert (await loop.getnameinfo(("127.0.0.1", 80)))[1] == "http"
    transport.close()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)


async def test_a_name_that_does_not_exist() -> None:
    loop: Any = asyncio.get_running_loop()
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("-.invalid", 80)
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("127.0.0.1", "no such service")
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("::1", 80, family=socket.AF_INET)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop raises other errors
async def test_wrong_types() -> None:
    loop: Any = asyncio.get_running_loop()
    with pytest.raises(TypeError):
        await loop.getaddrinfo(5, 80)
    with pytest.raises(OSError, match="Int or String expected"):
        await loop.getaddrinfo("127.0.0.1", 1.5)


@ours
async def test_many_lookups_share_a_few_threads(resolver: Resolver) -> None:
    loop = asyncio.get_running_loop()
    lookups = [
        asyncio.ensure_future(loop.getaddrinfo(f"{number}.test", 80))
        for number in range(5 * MAX_THREADS)
    ]
    await resolver.busy(MAX_THREADS)
    resolver.let_go.set()
    assert len(await asyncio.gather(*lookups)) == 5 * MAX_THREADS
    assert resolver.most == len(resolver.threads) == MAX_THREADS
    assert sorted(resolver.asked) == sorted(f"{n}.test" for n in range(5 * MAX_THREADS))


@ours
async def test_one_thread_serves_lookups_that_follow_each_other(resolver: Resolver) -> None:
    resolver.let_go.set()
    for number in range(20):
        await asyncio.get_running_loop().getaddrinfo(f"{number}.test", 80)
    assert len(resolver.threads) == 1


@ours
async def test_threads_that_did_not_start_do_not_count(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_threads(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        for _ in range(MAX_THREADS):
            with pytest.raises(RuntimeError, match="can't start"):
                await loop.getaddrinfo("a.test", 80)
    waiting = asyncio.ensure_future(loop.getaddrinfo("b.test", 80))
    await resolver.busy(1)
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    behind = asyncio.ensure_future(loop.getaddrinfo("c.test", 80))  # the one thread does it
    await asyncio.sleep(0)
    resolver.let_go.set()
    assert await waiting
    assert await behind
    assert resolver.asked == ["b.test", "c.test"]


@ours
async def test_a_cancelled_lookup_does_not_disturb_the_next(resolver: Resolver) -> None:
    loop = asyncio.get_running_loop()
    lookup = asyncio.ensure_future(loop.getaddrinfo("slow.test", 80))
    await resolver.busy(1)
    lookup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lookup
    resolver.let_go.set()
    assert await loop.getaddrinfo("next.test", 80)


@ours
async def test_a_timeout_ends_the_wait_at_once(resolver: Resolver) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.get_running_loop().create_connection(asyncio.Protocol, "slow.test", 80)
    assert resolver.asked == ["slow.test"]


def test_a_loop_may_be_closed_while_a_lookup_hangs(resolver: Resolver) -> None:
    loop = aws_io_async.new_event_loop()

    async def abandon() -> None:
        lookup = asyncio.ensure_future(loop.getaddrinfo("slow.test", 80))
        await resolver.busy(1)
        lookup.cancel()

    loop.run_until_complete(abandon())
    loop.close()
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("aws_io_async")]
    assert len(hanging) == 1
    assert hanging[0].daemon  # it does not keep the interpreter from its exit
    resolver.let_go.set()
    hanging[0].join(10)
    assert not hanging[0].is_alive()


async def test_getnameinfo() -> None:
    loop: Any = asyncio.get_running_loop()
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert await loop.getnameinfo(("127.0.0.1", 80), numeric) == ("127.0.0.1", "80")
    assert await loop.getnameinfo(("::1", 80, 0, 0), numeric) == ("::1", "80")
    with pytest.raises((socket.gaierror, OSError)):
        await loop.getnameinfo(("192.0.2.1", 80), socket.NI_NAMEREQD)
