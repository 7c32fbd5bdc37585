"""Traffic both ways through channels that change meanwhile: every byte arrives, once, in order."""

import asyncio
import random
from typing import Any

import pytest

from aws_io_async.channel import Channel, ChannelHandler, ChannelSlot
from aws_io_async.message_pool import IoMessage
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests import channels
from tests.channels import PATIENCE, App, bystander, ended, socket_channel, socket_pair
from tests.example_handlers import PassOn, SwapCase, Upper
from tests.socket_tools import turns

no_tasks_left = channels.no_tasks_left

SIZE = 40_000


class Slowly(ChannelHandler):
    """Passes on what the window allows, after some turns, and each write after some as well."""

    initial_window_size = 1000

    def __init__(self, chooser: random.Random) -> None:
        self.chooser = chooser
        self.grown: asyncio.Future[None] | None = None

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        rest = bytes(message.data)
        while rest:
            await turns(self.chooser.choice([0, 0, 0, 1, 2]))
            part, rest = rest[: slot.downstream_read_window], rest[slot.downstream_read_window :]
            if part:
                slot.send_message(IoMessage(part), channels.READ)
                slot.increment_read_window(len(part))
            else:
                self.grown = asyncio.get_running_loop().create_future()
                await self.grown

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        if self.grown is not None and not self.grown.done():
            self.grown.set_result(None)

    async def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await turns(self.chooser.choice([0, 0, 0, 1, 2]))
        super().process_write_message(slot, message)


class Consumer(App):
    """Takes again what it gets, sooner or later, in pieces."""

    def __init__(self, chooser: random.Random) -> None:
        super().__init__(window=chooser.choice([5, 100, 5000, 100_000]))
        self.chooser = chooser
        self.owed = 0

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.data += message.data
        self.owed += len(message.data)
        slot.channel.loop.call_soon(self.consume)
        self.happened("read")

    def consume(self) -> None:
        part = self.owed if self.chooser.random() < 0.8 else self.owed // 2
        self.owed -= part
        self.place.increment_read_window(part)
        if self.owed:
            self.channel.loop.call_soon(self.consume)


def some_handlers(chooser: random.Random) -> list[ChannelHandler]:
    kinds: list[Any] = [PassOn, lambda: Slowly(chooser), lambda: Slowly(chooser)]
    made = [chooser.choice(kinds)() for _ in range(chooser.randrange(4))]
    if chooser.random() < 0.5:
        made += [SwapCase(), SwapCase()]  # the one undoes the other
    return made


async def change(channel: Channel, chooser: random.Random) -> None:
    """Put a handler that does nothing somewhere between the ends, and take it out again."""
    while True:
        await turns(chooser.choice([1, 5, 20]))
        slot = chooser.choice(list(channel.slots())[:-1])
        slot.insert_right(new := channel.new_slot())
        new.set_handler(PassOn())
        await turns(chooser.choice([0, 1, 5, 20]))
        new.remove()


async def send_all(sock: Any, data: bytes, chooser: random.Random) -> None:
    loop = asyncio.get_running_loop()
    while data:
        size = chooser.choice([1, 100, 3000, 20_000, 100_000])
        await loop.sock_sendall(sock, data[:size])
        data = data[size:]
        await turns(chooser.choice([0, 1, 3]))


async def receive_all(sock: Any) -> bytes:
    """What comes until the end, or a reset."""
    loop, data = asyncio.get_running_loop(), bytearray()
    try:
        while more := await loop.sock_recv(sock, 10_000):
            data += more
    except ConnectionResetError:
        pass
    return bytes(data)


async def write_all(app: App, data: bytes, chooser: random.Random) -> None:
    while data:
        size = chooser.choice([1, 100, 3000, 20_000, 100_000])
        if chooser.random() < 0.5:
            await app.place.write(data[:size])
        else:
            app.send(data[:size], channels.WRITE)
            await turns(chooser.choice([0, 1, 3]))
        data = data[size:]


@pytest.mark.parametrize("back_pressure", [True, False])
@pytest.mark.parametrize("seed", range(6))
async def test_every_byte_arrives(seed: int, back_pressure: bool) -> None:
    chooser = random.Random(seed)
    inwards, outwards = chooser.randbytes(SIZE), chooser.randbytes(SIZE)
    app = Consumer(chooser)
    handler = SocketChannelHandler(max_read_size=chooser.choice([10, 1000, 16_384, 100_000]))
    with socket_pair() as (ours, theirs):
        async with (
            asyncio.timeout(PATIENCE),
            bystander(),
            socket_channel(
                ours,
                *some_handlers(chooser),
                app,
                handler=handler,
                enable_read_back_pressure=back_pressure,
            ) as channel,
        ):
            receiving = asyncio.create_task(receive_all(theirs))
            changing = asyncio.create_task(change(channel, chooser))
            await asyncio.gather(
                send_all(theirs, inwards, chooser),
                write_all(app, outwards, chooser),
                app.got(SIZE),
            )
            changing.cancel()
            await asyncio.wait({changing})
            assert changing.cancelled()
            channel.shutdown()
            assert await receiving == outwards
            assert app.data == inwards
            assert await ended(channel) is None


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_received_is_delivered_although_the_end_comes(seed: int) -> None:
    """The peer sends and closes; whatever is suspended or saved up, all comes through."""
    chooser = random.Random(seed)
    inwards = chooser.randbytes(SIZE)
    app = Consumer(chooser)
    with socket_pair() as (ours, theirs):
        async with (
            asyncio.timeout(PATIENCE),
            socket_channel(
                ours, *some_handlers(chooser), app, enable_read_back_pressure=True
            ) as channel,
        ):
            await send_all(theirs, inwards, chooser)
            theirs.close()
            await ended(channel)
            assert app.data == inwards


@pytest.mark.parametrize("seed", range(6))
async def test_an_end_in_the_midst_of_it_leaves_nothing(seed: int) -> None:
    chooser = random.Random(seed)
    data = chooser.randbytes(SIZE)
    app = Consumer(chooser)
    with socket_pair() as (ours, theirs):
        async with (
            asyncio.timeout(PATIENCE),
            bystander(),
            socket_channel(
                ours,
                Upper(),
                *some_handlers(chooser),
                app,
                handler=SocketChannelHandler(close_timeout=0.01),
                enable_read_back_pressure=True,
            ) as channel,
        ):
            sending = asyncio.create_task(send_all(theirs, data, chooser))
            for part in range(0, SIZE, 1000):
                app.send(data[part : part + 1000], channels.WRITE)
            await turns(chooser.randrange(200))
            channel.shutdown(immediately=chooser.random() < 0.5)
            await ended(channel)
            sending.cancel()
            await asyncio.wait({sending})
            received = await receive_all(theirs)
            assert data.startswith(received)
            assert data.upper().startswith(bytes(app.data))
