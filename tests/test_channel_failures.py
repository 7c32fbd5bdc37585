"""Handlers that raise: in each method, at once, later, or during the shutdown.

Each ends its channel with that error, once, and closes the socket; the loop's other channels do not
notice. What is nobody's business but the program's, as a ValueError is, is also told to the loop's
exception handler.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aws_io_async.channel import Channel, ChannelDirection, ChannelSlot
from aws_io_async.errors import AwsIoError, CommonErrorCode, ErrorCode, make
from aws_io_async.message_pool import IoMessage
from tests import channels
from tests.channels import (
    PATIENCE,
    WRITE,
    App,
    Lingering,
    Stage,
    Wire,
    bystander,
    collected_errors,
    ended,
    pipeline,
    socket_channel,
    socket_pair,
)
from tests.socket_tools import another_loop, on, turns

no_tasks_left = channels.no_tasks_left


class Failing(Stage):
    """Raises in one of its methods, at its first step or after some turns."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__("failing")
        self.where = where
        self.error = error

    def reached(self, where: str) -> None:
        if where == self.where:
            raise self.error

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
        self.reached("read")
        super().process_read_message(slot, message)
        return self.later("read") if self.where.startswith("read ") else None

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
        self.reached("write")
        super().process_write_message(slot, message)
        return self.later("write") if self.where.startswith("write ") else None

    async def later(self, what: str) -> None:
        if self.where == f"{what} after a while":
            await turns(3)
        raise self.error

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        super().increment_read_window(slot, size)
        self.reached("window")

    def shutdown(self, slot: ChannelSlot, direction: ChannelDirection, *args: Any) -> Any:
        super().shutdown(slot, direction, *args)
        what = f"shutdown {direction.value}"
        self.reached(what)
        return self.later(what) if self.where.startswith(f"{what} ") else None

    def gather_statistics(self) -> None:
        self.reached("gather_statistics")

    def reset_statistics(self) -> None:
        self.reached("reset_statistics")

    def close(self) -> None:
        super().close()
        self.reached("close")


class Ends:
    """A channel over a socket with a handler that fails, and what has become of it."""

    def __init__(self, peer: Any, failing: Failing) -> None:
        self.peer = peer
        self.failing = failing
        self.app = App(window=1000)
        self.told: list[BaseException | None] = []

    def reach(self, where: str, channel: Channel) -> None:
        """Bring a method about; those of the window and of the shutdown need no more."""
        if where.startswith("read"):
            self.peer.send(b"in")
        elif where.startswith("write"):
            self.app.send(b"out", WRITE)
        elif where == "gather_statistics":
            channel.statistics()
        elif where.startswith("shutdown"):
            channel.shutdown()

    async def peer_reads_to_the_end(self) -> bytes:
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(PATIENCE):
            while more := await loop.sock_recv(self.peer, 100):
                data += more
        return data


@asynccontextmanager
async def failing_in(where: str, error: BaseException) -> AsyncIterator[tuple[Channel, Ends]]:
    with socket_pair() as (ours, theirs):
        ends = Ends(theirs, Failing(where, error))
        async with (
            bystander(),
            socket_channel(
                ours,
                ends.failing,
                ends.app,
                on_shutdown=lambda _, error: ends.told.append(error),
                enable_read_back_pressure=True,
            ) as channel,
        ):
            yield channel, ends
        assert ends.told == [channel.error]
        for stage in (ends.failing, ends.app):
            assert stage.events.count("close") == 1
            assert stage.events[-1] == "close"


DURING_LIFE = ["read", "read at once", "read after a while"]
DURING_LIFE += ["write", "write at once", "write after a while", "window", "gather_statistics"]
DURING_SHUTDOWN = [
    f"shutdown {direction}{how}"
    for direction in ("read", "write")
    for how in ("", " at once", " after a while")
]


@pytest.mark.parametrize("where", DURING_LIFE)
async def test_a_failure_ends_the_channel(where: str) -> None:
    error = OSError(where)
    async with failing_in(where, error) as (channel, ends):
        ends.reach(where, channel)
        assert await ended(channel) is error
        written = b"out" if where.startswith("write ") else b""
        assert await ends.peer_reads_to_the_end() == written


@pytest.mark.parametrize("where", DURING_SHUTDOWN)
async def test_a_failure_of_the_shutdown_is_its_error_if_there_is_no_other(where: str) -> None:
    error = OSError(where)
    async with failing_in(where, error) as (channel, ends):
        channel.shutdown()
        assert await ended(channel) is error
        assert ends.app.ended_with is (None if where.startswith("shutdown write") else error)
        assert await ends.peer_reads_to_the_end() == b""


@pytest.mark.parametrize("where", DURING_SHUTDOWN)
@pytest.mark.parametrize("immediately", [False, True])
async def test_the_reason_of_the_shutdown_is_kept(where: str, immediately: bool) -> None:
    reason = OSError("the reason")
    async with failing_in(where, OSError(where)) as (channel, _):
        channel.shutdown(reason, immediately=immediately)
        assert await ended(channel) is reason


@pytest.mark.parametrize("where", [*DURING_LIFE, *DURING_SHUTDOWN])
async def test_a_mistake_is_told_to_the_loop_as_well(where: str) -> None:
    error = ValueError(where)
    with collected_errors() as errors:
        async with failing_in(where, error) as (channel, ends):
            ends.reach(where, channel)
            assert await ended(channel) is error
        assert {context["exception"] for context in errors} == {error}
        assert all("failed in <Channel" in context["message"] for context in errors)
        errors.clear()


async def test_a_failure_to_close_is_told_and_keeps_nobody_from_being_closed() -> None:
    error = ValueError("cannot be closed")
    with collected_errors() as errors:
        async with failing_in("close", error) as (channel, _):
            channel.shutdown()
            assert await ended(channel) is None
        assert [context["exception"] for context in errors] == [error]
        errors.clear()


async def test_a_failure_to_close_a_slot_that_leaves() -> None:
    error = OSError("cannot be closed")
    async with failing_in("close", error) as (channel, ends):
        ends.failing.place.remove()
        assert await ended(channel) is error


async def test_the_first_failure_is_the_error() -> None:
    first, second = OSError("first"), OSError("second")
    async with pipeline(
        wire := Wire(), Failing("read", first), failing := Failing("read", second)
    ) as channel:
        wire.send(b"x")
        with pytest.raises(OSError, match="second"):  # as it was called by the test
            failing.process_read_message(failing.place, IoMessage(b"x"))
        assert await ended(channel) is first


async def test_a_failure_that_comes_again_and_again_does_not_go_on_by_itself() -> None:
    class Broken(Stage):
        def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
            self.happened("increment")
            raise ValueError("always")

    lingering = Lingering()
    with collected_errors() as errors:
        async with pipeline(
            Wire(), lingering, broken := Broken(window=0), App(), enable_read_back_pressure=True
        ) as channel:
            await lingering.has("shutdown read")
            await turns(100)
            assert len(broken.events) < 10
            lingering.go_on.set()
            assert isinstance(await ended(channel), ValueError)
        errors.clear()


async def test_what_comes_after_the_failure_is_dropped() -> None:
    error = OSError("broken")
    async with pipeline(
        wire := Wire(), failing := Failing("read after a while", error), app := App()
    ) as channel:
        for _ in range(5):
            wire.send(b"x")
        assert await ended(channel) is error
    assert app.data == failing.data == b"x"  # which had been passed on before


async def test_what_must_be_plain_is_not_forgotten_if_it_is_a_coroutine_function() -> None:
    class Closing(Stage):
        async def close(self) -> None:  # type: ignore[override]  # the point
            self.note("close")

    with collected_errors() as errors:
        async with pipeline(closing := Closing()) as channel:
            pass
        assert [type(context["exception"]) for context in errors] == [TypeError]
        assert "must be a plain function, not a coroutine function" in str(errors.pop())
        assert "close" not in closing.events
        assert channel.error is None

        async def on_setup(*_: object) -> None: ...

        with pytest.raises(TypeError, match="must be a plain function, not a coroutine function"):
            await Channel.open(on_setup=on_setup)
        await turns(20)  # until that channel has ended
        errors.clear()


@pytest.mark.parametrize("leftmost", [None, Wire, Failing])
async def test_trigger_read(leftmost: Any) -> None:
    class Reading(Failing):
        def trigger_read(self, slot: ChannelSlot) -> None:
            self.happened("trigger_read")
            self.reached("trigger_read")

    error = OSError("cannot read")
    async with pipeline(*[leftmost()] if leftmost is Wire else []) as channel:
        if leftmost is None:
            with pytest.raises(Exception, match="has nobody who reads") as caught:
                channel.trigger_read()
            assert getattr(caught.value, "code", None) is CommonErrorCode.ERROR_INVALID_STATE
            return
        if leftmost is Wire:
            channel.trigger_read()
            assert channel.error is None
            return
        channel.append(reading := Reading("trigger_read", error))
        channel.trigger_read()
        assert reading.events == ["trigger_read"]
        assert await ended(channel) is error


async def test_a_window_that_is_no_number() -> None:
    async with pipeline(Wire()) as channel:
        odd = Stage()
        odd.initial_window_size = None  # type: ignore[assignment]  # the point
        with pytest.raises(TypeError):
            channel.append(odd)
        assert len(list(channel.slots())) == 1
        assert channel.error is None


async def test_a_library_error_is_the_channels_as_it_is() -> None:
    error = make(ErrorCode.IO_TLS_ALERT_NOT_GRACEFUL, "not today")
    async with failing_in("read", error) as (channel, ends):
        ends.reach("read", channel)
        assert await ended(channel) is error


# Coroutines


class Later(Stage):
    """Passes on what comes after it has awaited a function."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__("later")
        self.function = function

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await self.function()
        super().process_read_message(slot, message)


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_what_it_raises_ends_the_channel(after: int) -> None:
    error = OSError("broken")

    async def fail() -> None:
        await turns(after)
        raise error

    async with pipeline(wire := Wire(), Later(fail), app := App()) as channel:
        for _ in range(3):
            wire.send(b"x")
        assert await ended(channel) is error
        assert app.data == b""


@pytest.mark.parametrize("after", [0, 1])
async def test_a_write_that_it_does_not_pass_on_fails_with_its_error(after: int) -> None:
    error = OSError("broken")

    class Failing(Stage):
        async def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            if message.data == b"passed on":
                slot.send_message(message, WRITE)
            await turns(after)
            raise error

    wire, lingering, app = Wire(holds_writes=True), Lingering(), App()
    async with pipeline(wire, lingering, Failing(), app) as channel:
        errors: dict[bytes, list[Any]] = {b"passed on": [], b"waits": [], b"comes after": []}
        for data in (b"passed on", b"waits"):
            app.place.send_message(IoMessage(data, on_completion=note(errors)), WRITE)
        await turns()
        app.place.send_message(IoMessage(b"comes after", on_completion=note(errors)), WRITE)
        assert errors == {b"passed on": [], b"waits": [error], b"comes after": [error]}
        wire.complete()
        channel.shutdown(immediately=True)
        assert await ended(channel) is error
    assert errors[b"passed on"] == [None]


def note(errors: dict[bytes, list[Any]]) -> Callable[..., None]:
    return lambda _, message, error: errors[message.data].append(error)


@pytest.mark.parametrize("leave", [SystemExit, KeyboardInterrupt])
async def test_it_may_end_the_program(leave: type[BaseException]) -> None:
    async def end() -> None:
        raise leave

    async with pipeline(wire := Wire(), Later(end)):
        with pytest.raises(leave):
            wire.send(b"x")


@pytest.mark.parametrize("where", ["read", "read at once", "read later", "increment"])
async def test_where_that_does_not_end_the_loop_it_ends_the_channel(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The loops of a group go on."""

    class Leaves(Stage):
        def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
            if where == "increment":
                raise SystemExit("bye")

        def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
            if where == "read":
                raise SystemExit("bye")
            return self.leave()

        async def leave(self) -> None:
            if where == "read later":
                await turns()
            raise SystemExit("bye")

    async with another_loop() as elsewhere:
        channel = await Channel.open(elsewhere)
        wire = Wire()

        async def set_up() -> None:
            channel.append(wire)
            channel.append(Leaves())
            if where == "increment":
                channel.append(App())
            else:
                elsewhere.call_soon(wire.send, b"x")

        await on(elsewhere, set_up())
        error = await ended(channel)
        assert "bye" in str(error)
        assert isinstance(error, AwsIoError)
    caplog.clear()
