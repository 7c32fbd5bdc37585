"""TLS in a channel that ends: what had come is delivered, and the peer is told."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async.channel import Channel, ChannelHandler, ChannelSlot, ChannelState
from aws_io_async.errors import ErrorCode, make
from aws_io_async.message_pool import IoMessage
from aws_io_async.statistics import TlsNegotiationStatus
from aws_io_async.tls_context import TlsConnectionOptions
from tests import tls_channels
from tests.socket_tools import raises, turns
from tests.tls_channels import (
    App,
    code_of,
    connecting,
    in_memory,
    listening,
    negotiated,
    openssl_server,
)
from tests.tls_peers import HOST, client_of, server_of

nothing_left = tls_channels.nothing_left

CLOSED = make(ErrorCode.IO_SOCKET_CLOSED, "the peer has ended its side")


@pytest.fixture
def client(ca: trustme.CA) -> TlsConnectionOptions:
    return TlsConnectionOptions(client_of(ca), HOST)


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    return openssl_server(ca)


# What had come


class ClosesTheServer(App):
    """Has the server's channel shut down by the first data that comes, and takes the rest."""

    def __init__(self, window: int, *, take_at_once: bool) -> None:
        super().__init__(window)
        self.server: Channel | None = None

        self._take_at_once = take_at_once

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if self.server is not None and not self.reads:
            if self._take_at_once:
                self.takes(100)
            self.server.shutdown()
        super().process_read_message(slot, message)


async def shut_down_with_cache(ca: trustme.CA, path: Path, *, update_after_shutdown: bool) -> None:
    """The server goes while the client's TLS handler keeps what its application does not take."""
    data = b"I'm a little teapot."
    server_app = App()
    app = ClosesTheServer(8, take_at_once=not update_after_shutdown)
    client = TlsConnectionOptions(client_of(ca), HOST)
    async with (
        listening(
            server_of(ca),
            lambda: [server_app],
            path=str(path / "socket"),
            enable_read_back_pressure=True,
        ) as listener,
        connecting(listener, client, lambda: [app], enable_read_back_pressure=True) as ours,
    ):
        app.server = await listener.accepted()
        await server_app.write(data)
        await app.received(1)
        if update_after_shutdown:
            await listener.ended()
            await turns(100)
            assert app.reads == [data[:8]]
            app.takes(100)
        await ours.wait_closed()
        assert app.reads == [data[:8], data[8:]]
        assert code_of(ours.error) in (None, ErrorCode.IO_SOCKET_CLOSED)


async def test_tls_channel_shutdown_with_cache_test(ca: trustme.CA, tmp_path: Path) -> None:
    await shut_down_with_cache(ca, tmp_path, update_after_shutdown=False)


async def test_tls_channel_shutdown_with_cache_window_update_after_shutdown_test(
    ca: trustme.CA, tmp_path: Path
) -> None:
    await shut_down_with_cache(ca, tmp_path, update_after_shutdown=True)


async def test_a_graceful_shutdown_waits_until_all_has_been_taken(
    client: TlsConnectionOptions, server: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aws_io_async.tls")
    async with negotiated(client, server, App(4)) as it:
        await it.wire.feed(it.peer.write(b"0123456789") + it.peer.write(b"abc"))
        it.channel.shutdown()
        for size in (4, 6, 12):
            await turns(30)
            assert it.app.size == size
            assert not it.app.ended
            it.app.takes(size - it.app.size + {4: 2, 6: 6, 12: 1}[size])
        assert await it.closed() is None
        assert it.app.data == b"0123456789abc"
        assert it.app.ended
        assert "the shutdown waits until what has come is taken" in caplog.text


class PassesOn(ChannelHandler):
    """Has its neighbour's window."""

    initial_window_size = 0


class Fails(PassesOn):
    """Raises in one of its methods."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.error = OSError(f"it failed in {where}")

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
        if self._where == "read":
            raise self.error
        if self._where == "read later":
            return self._later()
        return super().process_read_message(slot, message)

    async def _later(self) -> None:
        await turns()
        raise self.error

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        if self._where == "increment" and size == 1:
            raise self.error
        super().increment_read_window(slot, size)


@pytest.mark.parametrize("where", ["read", "read later", "increment"])
@pytest.mark.parametrize("others", [0, 2])
async def test_a_handler_that_has_failed_is_not_waited_for(
    client: TlsConnectionOptions, server: ssl.SSLContext, where: str, others: int
) -> None:
    """Though TLS has more than its window has room for, and others are in between."""
    fails, app = Fails(where), App(4)
    async with in_memory(client, server, PassesOn()) as it:
        for handler in *(PassesOn() for _ in range(others)), fails, app:
            it.channel.append(handler)
        await it.handshake()
        await it.wire.feed(it.peer.write(b"0123456789" * 1000))
        app.takes(1)
        assert await it.closed() is fails.error
        assert app.data == (b"0123" if where == "increment" else b"")


async def test_an_immediate_shutdown_drops_what_was_not_taken(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(4)) as it:
        await it.wire.feed(it.peer.write(b"0123456789"))
        it.channel.shutdown(immediately=True)
        assert await it.closed() is None
        assert it.app.data == b"0123"


async def test_a_graceful_shutdown_that_waits_can_be_made_immediate(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(4)) as it:
        await it.wire.feed(it.peer.write(b"0123456789"))
        it.channel.shutdown(CLOSED)
        await turns(30)
        assert it.channel.state is ChannelState.SHUTTING_DOWN
        it.channel.shutdown(immediately=True)
        assert await it.closed() is CLOSED
        assert it.app.data == b"0123"


async def test_a_part_of_a_record_keeps_nobody_waiting(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(100)) as it:
        await it.wire.feed(it.peer.write(b"0123456789")[:-1])
        it.channel.shutdown(CLOSED)
        assert await it.closed() is CLOSED
        assert it.app.reads == []


@pytest.mark.parametrize("ending", ["nothing", "session tickets", "close_notify"])
async def test_what_is_no_plaintext_needs_no_window(
    client: TlsConnectionOptions, server: ssl.SSLContext, ending: str
) -> None:
    async with in_memory(client, server, App(4)) as it:
        it.tls.start_negotiation()
        it.peer.incoming.write(it.wire.take())
        it.peer.handshake()
        await it.wire.feed(it.peer.outgoing.read())
        it.peer.incoming.write(it.wire.take())
        it.peer.handshake()
        tickets = it.peer.outgoing.read()
        ciphertext = {
            "nothing": lambda: tickets + it.peer.write(b"0123"),
            "session tickets": lambda: tickets,
            "close_notify": lambda: tickets + it.peer.write(b"0123") + it.peer.close(),
        }[ending]()
        it.channel.shutdown()
        await it.wire.feed(ciphertext)
        assert await it.closed() is None


async def test_a_fault_behind_what_was_kept_is_told_after_it(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    errors: list[Any] = []
    options = client.copy(on_error=lambda _handler, _slot, error: errors.append(error))
    async with negotiated(options, server, App(4)) as it:
        await it.wire.feed(it.peer.write(b"0123") + it.peer.write(b"4") + bytes(100))
        it.channel.shutdown()
        await turns(30)
        it.app.takes(100)
        assert await it.closed() is None
        assert it.app.reads == [b"0123", b"4"]
        assert [code_of(error) for error in errors] == [ErrorCode.IO_TLS_ERROR_READ_FAILURE]


async def test_a_window_update_after_the_shutdown_is_harmless(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    class Late(App):
        def shutdown(self, slot: ChannelSlot, *rest: Any) -> None:
            super().shutdown(slot, *rest)
            self.takes(1000)

    async with negotiated(client, server, Late(4)) as it:
        await it.wire.feed(it.peer.write(b"0123456789"))
        it.channel.shutdown(immediately=True)
        await it.closed()
        it.app.takes(1000)
        await turns()
        assert it.app.data == b"0123"


async def test_a_slow_application_gets_everything_before_its_end(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    class Slow(ChannelHandler):
        initial_window_size = 5

        def __init__(self) -> None:
            self.events: list[Any] = []

        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await asyncio.sleep(0.001)
            self.events.append(bytes(message.data))
            slot.increment_read_window(len(message.data))

        def shutdown(self, _slot: ChannelSlot, direction: Any, *_: Any) -> None:
            self.events.append(direction.name)

    slow = Slow()
    async with negotiated(client, server, slow) as it:
        await it.wire.feed(it.peer.write(b"0123456789abc"))
        it.channel.shutdown()
        assert await it.closed() is None
        assert slow.events == [b"01234", b"56789", b"abc", "READ", "WRITE"]


# What the peer is told


async def test_a_graceful_shutdown_ends_in_close_notify(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App()) as it:
        await it.app.write(b"last words")
        assert it.sent() == b"last words"
        it.channel.shutdown(make(ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE))
        await it.closed()
        assert it.peer.has_been_closed(it.wire.take())


@pytest.mark.parametrize(
    ("error", "immediately"), [(None, True), (CLOSED, False)], ids=["immediate", "socket closed"]
)
async def test_nothing_is_said_to_nobody(
    client: TlsConnectionOptions,
    server: ssl.SSLContext,
    error: BaseException | None,
    immediately: bool,
) -> None:
    async with negotiated(client, server, App()) as it:
        it.channel.shutdown(error, immediately=immediately)
        assert await it.closed() is error
        assert it.wire.take() == b""


async def test_nothing_can_be_written_after_the_shutdown(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    class LastWord(App):
        error: BaseException | None = None

        async def shutdown(self, slot: ChannelSlot, direction: Any, *_: Any) -> None:  # type: ignore[override] # plain in App
            await slot.write(direction.name.encode())

    async with negotiated(client, server, LastWord()) as it:
        it.channel.shutdown()
        await it.closed()
        sent = it.wire.take()
        assert it.peer.read(sent) == b"READWRITE"
        assert it.peer.has_been_closed(b"")
        with raises(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT):
            await it.app.write(b"too late")


async def test_a_write_that_comes_too_late_is_told_so(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    class Wakes(ChannelHandler):
        """Between wire and TLS: has the application write after TLS has ended."""

        async def shutdown(self, _slot: ChannelSlot, direction: Any, *_: Any) -> None:
            if direction.name == "WRITE":
                with raises(ErrorCode.IO_TLS_ERROR_WRITE_FAILURE, "shut down"):
                    await app.write(b"too late")
                told.append(True)

    told: list[bool] = []
    app = App()
    async with negotiated(client, server, app) as it:
        slot = it.channel.new_slot()
        assert it.channel.first_slot is not None
        it.channel.first_slot.insert_right(slot)
        slot.set_handler(Wakes())
        it.channel.shutdown()
        assert await it.closed() is None
        assert told


# What the peer tells us


async def test_close_notify_ends_the_channel_without_an_error(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App()) as it:
        await it.wire.feed(it.peer.write(b"bye") + it.peer.close())
        assert await it.closed() is None
        assert it.app.data == b"bye"
        assert it.peer.has_been_closed(it.wire.take())


async def test_what_follows_close_notify_does_not_matter(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App()) as it:
        it.wire.feed_now(it.peer.close() + bytes(100))
        it.wire.feed_now(bytes(100))
        assert await it.closed() is None
        assert it.app.reads == []


async def test_an_end_without_close_notify_is_an_error(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    errors: list[Any] = []
    options = client.copy(on_error=lambda *told: errors.append(told))
    async with negotiated(options, server, App()) as it:
        await it.wire.feed(it.peer.write(b"the first half"))
        it.wire.end()
        error = await it.closed()
        assert code_of(error) is ErrorCode.IO_TLS_CLOSED_ABORT
        assert HOST in str(error)
        assert it.app.data == b"the first half"
        assert errors == [(it.tls, it.tls.slot, error)]
        assert it.wire.take() == b""


async def test_an_end_after_close_notify_is_none(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    # The window keeps TLS from seeing close_notify before the end.
    async with negotiated(client, server, App(3)) as it:
        await it.wire.feed(it.peer.write(b"bye") + it.peer.close())
        it.wire.end()
        await turns()
        assert it.channel.state is ChannelState.ACTIVE
        it.app.takes(1)
        assert await it.closed() is None
        assert it.app.data == b"bye"


async def test_a_socket_that_ends_without_close_notify_is_an_error(ca: trustme.CA) -> None:
    app = App()
    async with listening(server_of(ca), lambda: [app]) as listener:
        peer = openssl_client_stream(ca)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", listener.port, ssl=peer, server_hostname=HOST
        )
        writer.write(b"the first half")
        await app.received(14)
        writer.transport.abort()
        assert code_of(await listener.ended()) is ErrorCode.IO_SOCKET_CLOSED
        writer.close()
        assert reader is not None


def openssl_client_stream(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


# In the middle of the negotiation


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("immediately", [False, True])
@pytest.mark.parametrize("error", [None, CLOSED], ids=["no error", "socket closed"])
async def test_a_shutdown_ends_the_negotiation(
    client: TlsConnectionOptions,
    server: ssl.SSLContext,
    started: bool,
    immediately: bool,
    error: BaseException | None,
) -> None:
    results: list[Any] = []
    options = client.copy(on_negotiation_result=lambda *told: results.append(told))
    async with in_memory(options, server, App()) as it:
        if started:
            it.tls.start_negotiation()
        it.channel.shutdown(error, immediately=immediately)
        assert await it.closed() is error
        ((handler, slot, result),) = results
        assert (handler, slot) == (it.tls, it.tls.slot)
        expected = error or make(ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE)
        assert code_of(result) is code_of(expected)
        assert it.status() is TlsNegotiationStatus.FAILURE
        it.tls.start_negotiation()  # too late, and harmless
        assert len(results) == 1


async def test_a_shutdown_right_after_the_negotiation_loses_nothing(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with in_memory(client, server, App()) as it:
        it.tls.start_negotiation()
        it.peer.incoming.write(it.wire.take())
        it.peer.handshake()
        await it.wire.feed(it.peer.outgoing.read())
        it.peer.incoming.write(it.wire.take())
        assert it.peer.handshake()
        ciphertext = it.peer.outgoing.read() + it.peer.write(b"greeting") + it.peer.close()
        it.channel.shutdown()
        it.wire.feed_now(ciphertext)
        assert await it.closed() is None
        assert it.app.data == b"greeting"
