"""Every public coroutine is cancelled at each of its await points, and leaves nothing behind."""

import asyncio
import hashlib
import importlib
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from aws_io_async.pkcs11 import LibraryBehavior, Pkcs11Library, Pkcs11PrivateKey
from tests.faults import cancellation
from tests.faults._report import Fault
from tests.faults.cancellation import How, Injection, Scene, When, at_every_point
from tests.faults.coroutines import public_coroutines
from tests.faults.scenes import SCENES, injected
from tests.hsm import Hsm, softhsm

for _path in sorted(Path(__file__).parent.glob("scenes_*.py")):
    importlib.import_module(f"tests.faults.{_path.stem}")

pytestmark = pytest.mark.usefixtures("restless")  # or a loop that is busy would stop all others

FAULTS = {
    (how, when): Fault(
        "Cancellation",
        f"a public coroutine is cancelled by `{how.value}` {moment}",
        "the cancellation comes out; no descriptor, task, thread, timer or watch is left; what was"
        " not handed over is there for the next call",
    )
    for how in How
    for when, moment in (
        (When.SUSPENDED, "at an await point"),
        (When.DONE, "when what it waits for is done, before it runs again"),
    )
}

BELOW = {"Pkcs11PrivateKey.sign_async"}
"""Those that have a test of their own."""

AT_ONCE = {
    "AiohttpResolver.close",
    "Channel.__aenter__",
    "EventLoop.create_unix_server",
    "EventLoopGroup.__aenter__",
    "ExponentialBackoffRetryStrategy.acquire_retry_token",
    "HostResolver.__aenter__",
    "HostResolver.__aexit__",
    "NoRetryStrategy.acquire_retry_token",
    "RetryStrategy.acquire_retry_token",
    "Server.start_serving",
    "Socket.__aenter__",
    "Socket.__aexit__",
    "SocketListener.__aenter__",
    "StandardRetryStrategy.acquire_retry_token",
    "_End.__aenter__",
    "_End.__aexit__",
}
"""Those that never wait, so that no cancellation can come."""


def test_every_public_coroutine_is_cancelled() -> None:
    cancelled = {name for entry in SCENES.values() for name in entry.coroutines} | BELOW
    there = public_coroutines().keys()
    assert there <= cancelled, "write a scene, see tests/faults/scenes.py"
    assert cancelled | AT_ONCE <= there, "they are gone"


async def check(scene: Scene) -> set[CodeType]:
    """Cancel it at all points, in all ways; which coroutines were."""
    reached: set[CodeType] = set()
    for how, when in itertools.product(How, When):
        points = await at_every_point(scene, how, when)
        FAULTS[how, when].seen("cancelled, nothing left, nothing lost", len(points))
        reached.update(*points)
    return reached


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.loops("aws_io_async")
async def test_on_our_loop(name: str) -> None:
    reached = await check(SCENES[name].scene)
    for coroutine in SCENES[name].coroutines:
        code = public_coroutines()[coroutine]
        if code.co_flags & inspect.CO_COROUTINE:  # others make one, or are generators, not seen
            assert (code in reached) is (coroutine not in AT_ONCE), coroutine


def holding_on(loop: str) -> list[str]:
    return [name for name, entry in SCENES.items() if entry.others.get(loop)]


async def check_elsewhere(name: str, loop: str) -> None:
    """What is asserted is what users of asyncio know, and what is ours runs on any loop."""
    for when in SCENES[name].others[loop]:
        await at_every_point(SCENES[name].scene, How.TASK, when)


@pytest.mark.parametrize("name", holding_on("asyncio"))
@pytest.mark.loops("asyncio")
async def test_on_asyncio(name: str) -> None:
    await check_elsewhere(name, "asyncio")


@pytest.mark.parametrize("name", holding_on("uvloop"))
@pytest.mark.loops("uvloop")
async def test_on_uvloop(name: str) -> None:
    await check_elsewhere(name, "uvloop")


# A token


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pkcs11PrivateKey]:
    pytest.importorskip("pkcs11", reason="the extra pkcs11 is not installed")
    hsm = Hsm(softhsm(), tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.configuration))
    hsm.init_token("token", "0000", "1111")
    hsm.import_key("token", "0000", ec.generate_private_key(ec.SECP256R1()), "key", "AA")
    with (
        Pkcs11Library(hsm.module, LibraryBehavior.STRICT_INITIALIZE_FINALIZE) as library,
        library.open_session(library.find_slot(token_label="token")) as session,
    ):
        session.login("0000")
        yield session.find_private_key("key")


@pytest.mark.loops("aws_io_async")
async def test_signing(key: Pkcs11PrivateKey) -> None:
    digest = hashlib.sha256(b"").digest()

    async def scene(inject: Injection) -> None:
        assert await injected(inject, lambda: key.sign_async(digest))

    await check(scene)


# The injector


async def test_it_finds_what_is_left_and_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "PATIENCE", 0.05)

    async def forgets_a_task(inject: Injection) -> None:
        async def call() -> None:
            task = asyncio.ensure_future(asyncio.sleep(30))
            await asyncio.sleep(0)
            task.cancel()

        await inject(call())

    async def swallows(inject: Injection) -> None:
        async def call() -> None:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                pass

        await inject(call())

    async def loses(inject: Injection) -> None:
        """As a queue that hands out its items by setting results of futures."""

        async def call() -> int:
            waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(waiter.set_result, 1)
            return await waiter

        outcome = await inject(call())
        assert not outcome.cancelled

    for scene, when in (
        (forgets_a_task, When.SUSPENDED),
        (swallows, When.SUSPENDED),
        (loses, When.DONE),
    ):
        with pytest.raises(AssertionError) as caught:
            await at_every_point(scene, How.TASK, when)
        assert caught.value.__notes__ == [
            f"cancelled at suspension 1 by {How.TASK.value}, {when.value}"
        ]
