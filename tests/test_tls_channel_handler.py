"""TLS as a handler of a channel: negotiation, plaintext both ways, and the read windows."""

import asyncio
import random
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async._tls_window import RECORD_OVERHEAD
from aws_io_async.channel import Channel, ChannelDirection
from aws_io_async.errors import CommonErrorCode, ErrorCode, make
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.statistics import (
    SocketStatistics,
    StatisticsHandler,
    TlsNegotiationStatus,
    TlsStatistics,
)
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import (
    TlsConnectionOptions,
    TlsContext,
    TlsContextOptions,
    TlsNegotiatedProtocol,
)
from tests import tls_channels
from tests.certificates import identity
from tests.socket_tools import another_loop, on, raises, turns
from tests.tls_channels import (
    SIDES,
    App,
    News,
    code_of,
    connecting,
    in_memory,
    listening,
    negotiated,
    openssl_client,
    openssl_server,
    sides,
    tls_of,
)
from tests.tls_engines import Split, randomly, single_bytes
from tests.tls_peers import HOST, client_of, server_of, trusting

nothing_left = tls_channels.nothing_left


@pytest.fixture(params=SIDES, ids=lambda each: f"{each[0]}-{each[1].name}")
def pair(request: pytest.FixtureRequest, ca: trustme.CA) -> tuple[TlsContext, ssl.SSLContext]:
    """Our handler's context and the peer's, on each side and of each version."""
    return sides(ca, *request.param)


@pytest.fixture
def client(ca: trustme.CA) -> TlsConnectionOptions:
    return TlsConnectionOptions(client_of(ca), HOST)


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    return openssl_server(ca)


def offering(ca: trustme.CA, protocols: str) -> TlsContext:
    """A server that speaks these protocols."""
    return server_of(ca).with_alpn(protocols)


# Plaintext both ways


async def test_plaintext_goes_both_ways(
    pair: tuple[TlsContext, ssl.SSLContext],
) -> None:
    async with negotiated(*pair, App()) as it:
        await it.app.write(b"hello")
        await it.app.write(b"")
        await it.app.write(b"world")
        assert it.sent() == b"helloworld"
        await it.wire.feed(it.peer.write(b"and back"))
        assert it.app.reads == [b"and back"]
        assert it.tls.ssl_object.version() == it.peer.ssl.version() is not None


async def test_what_is_larger_than_a_record_arrives_in_order(
    pair: tuple[TlsContext, ssl.SSLContext],
) -> None:
    data = random.Random(1).randbytes(300_000)
    async with negotiated(*pair, App()) as it:
        await it.app.write(data)
        await it.app.write(memoryview(data)[:1000])
        assert it.sent() == data + data[:1000]
        await it.wire.feed(it.peer.write(data))
        assert it.app.data == data
        assert max(map(len, it.app.reads)) <= 16 * 1024


async def test_an_empty_message_is_not_the_end(pair: tuple[TlsContext, ssl.SSLContext]) -> None:
    async with negotiated(*pair, App(), back_pressure=False) as it:
        for number in range(3):
            await it.wire.feed(it.peer.write(b"data"))
            it.wire.feed_now(b"")
            assert it.app.data == b"data" * (number + 1)
        assert not it.channel.is_closing()


@pytest.mark.parametrize(
    "split", [single_bytes, randomly(1), randomly(2)], ids=["single bytes", "random 1", "random 2"]
)
async def test_how_ciphertext_is_cut_makes_no_difference(
    pair: tuple[TlsContext, ssl.SSLContext], split: Split
) -> None:
    data = random.Random(2).randbytes(20_000)
    async with in_memory(*pair, App(1 << 20)) as it:
        it.tls.start_negotiation()
        done = False
        while not (done and it.is_negotiated()):
            it.peer.incoming.write(it.wire.take())
            done = it.peer.handshake()
            for piece in split(it.peer.outgoing.read()):
                await it.wire.feed(piece)
        ciphertext = b"".join(it.peer.write(data[i : i + 7000]) for i in range(0, 20_000, 7000))
        for piece in split(ciphertext + it.peer.close()):
            await it.wire.feed(piece)
        assert it.app.data == data
        assert await it.closed() is None


async def test_a_write_is_over_when_its_bytes_have_left(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App()) as it:
        completed: list[tuple[IoMessage, BaseException | None]] = []
        message = IoMessage(b"tell me", on_completion=lambda *told: completed.append(told[1:]))
        assert it.app.slot is not None
        it.app.slot.send_message(message, ChannelDirection.WRITE)
        assert completed == [(message, None)]
        it.wire.lost_with = make(ErrorCode.IO_SOCKET_CLOSED)
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            await it.app.write(b"lost")


async def test_messages_have_room_for_what_tls_adds(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App()) as it:
        assert it.app.slot is not None
        assert it.app.slot.upstream_message_overhead == RECORD_OVERHEAD
        message = it.app.slot.acquire_max_message_for_write()
        await it.app.write(bytes(message.capacity))
        assert len(it.wire.take()) <= 16 * 1024


# The negotiation


async def test_both_sides_know_protocol_and_server_name(ca: trustme.CA) -> None:
    results: list[Any] = []
    server = TlsConnectionOptions(
        offering(ca, "h2;http/1.1"), on_negotiation_result=lambda *told: results.append(told)
    )
    client = TlsConnectionOptions(client_of(ca), HOST, alpn_list="http/1.1;h2")
    async with listening(server) as listener, connecting(listener, client) as ours:
        theirs = await listener.accepted()
        assert tls_of(ours).protocol == tls_of(theirs).protocol == "h2"
        assert tls_of(ours).server_name == tls_of(theirs).server_name == HOST
        assert "client NEGOTIATED TLSv1.3" in repr(tls_of(ours))
        handler = tls_of(theirs)
        assert results == [(handler, handler.slot, None)]


async def test_no_protocol_in_common_is_no_protocol(ca: trustme.CA) -> None:
    client = TlsConnectionOptions(client_of(ca), HOST, alpn_list="mqtt")
    async with listening(offering(ca, "h2")) as listener, connecting(listener, client) as ours:
        assert tls_of(ours).protocol == tls_of(await listener.accepted()).protocol == ""


async def test_the_server_sees_the_name_that_the_client_asks_for(ca: trustme.CA) -> None:
    async with in_memory(server_of(ca), openssl_client(ca)) as it:
        names = [it.tls.server_name]
        await it.handshake()
        assert [*names, it.tls.server_name] == [None, HOST]
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname = False
    nameless.verify_mode = ssl.CERT_NONE
    async with in_memory(server_of(ca), nameless, name=None) as it:
        await it.handshake()
        assert it.tls.server_name is None
    own = TlsContext.from_ssl_context(openssl_server(ca), server_side=True)
    async with negotiated(own, openssl_client(ca)) as it:
        assert it.tls.server_name is None


async def test_statistics_tell_how_the_negotiation_went(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with in_memory(client, server, App()) as it:
        assert it.channel.statistics() == [TlsStatistics()]
        it.tls.start_negotiation()
        begun = it.tls.statistics.handshake_start_ns
        assert it.status() is TlsNegotiationStatus.ONGOING
        assert begun > 0
        await it.handshake()
        assert it.status() is TlsNegotiationStatus.SUCCESS
        it.tls.reset_statistics()  # what happens once stays
        assert it.tls.statistics.handshake_start_ns == begun
        assert it.tls.statistics.handshake_end_ns >= begun


async def test_a_second_start_is_harmless(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with in_memory(client, server, App()) as it:
        it.tls.start_negotiation()
        hello = it.wire.take()
        it.tls.start_negotiation()
        assert it.wire.take() == b""
        it.peer.incoming.write(hello)
        await it.handshake()
        it.tls.start_negotiation()
        assert it.wire.take() == b""


async def test_a_server_begins_by_itself_when_the_client_does(ca: trustme.CA) -> None:
    async with in_memory(server_of(ca), openssl_client(ca), App()) as it:
        it.peer.handshake()
        await it.wire.feed(it.peer.outgoing.read())
        assert it.status() is TlsNegotiationStatus.ONGOING
        await it.handshake()


async def test_the_negotiation_can_be_started_from_another_thread(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with in_memory(client, server, App()) as it:
        await asyncio.to_thread(it.tls.start_negotiation)
        await turns()
        it.peer.incoming.write(it.wire.take())
        await it.handshake()


async def test_a_handler_needs_a_slot(client: TlsConnectionOptions) -> None:
    with pytest.raises(RuntimeError, match="slot"):
        TlsChannelHandler.client(client).start_negotiation()


def test_contexts_are_for_one_side(ca: trustme.CA) -> None:
    with raises(ErrorCode.IO_TLS_CTX_ERROR, "the context is a server's, not a client's"):
        TlsChannelHandler.client(TlsConnectionOptions(server_of(ca), HOST))
    with raises(ErrorCode.IO_TLS_CTX_ERROR, "the context is a client's, not a server's"):
        TlsChannelHandler.server(TlsConnectionOptions(client_of(ca), HOST))


def test_a_client_that_verifies_must_say_whom(ca: trustme.CA) -> None:
    with raises(ErrorCode.IO_TLS_CTX_ERROR, "server_name"):
        TlsChannelHandler.client(TlsConnectionOptions(client_of(ca)))


# Too early, and nothing for TLS


async def test_nothing_can_be_written_before_the_negotiation(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with in_memory(client, server, App()) as it:
        with raises(ErrorCode.IO_TLS_ERROR_NOT_NEGOTIATED):
            await it.app.write(b"too early")
        it.tls.start_negotiation()
        hello = it.wire.take()
        with raises(ErrorCode.IO_TLS_ERROR_NOT_NEGOTIATED):
            await it.app.write(b"too early")
        assert it.wire.take() == b""
        it.peer.incoming.write(hello)
        await it.handshake()  # no harm was done
        await it.app.write(b"now")
        assert it.sent() == b"now"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (IoMessage(b"too early"), ErrorCode.IO_TLS_ERROR_NOT_NEGOTIATED),
        (
            IoMessage(message_type=MessageType.END_OF_INPUT),
            CommonErrorCode.ERROR_UNSUPPORTED_OPERATION,
        ),
        (IoMessage(message_type=MessageType.OTHER), ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE),
    ],
)
async def test_what_is_lost_unheard_ends_the_channel(
    client: TlsConnectionOptions, server: ssl.SSLContext, message: IoMessage, code: ErrorCode
) -> None:
    async with in_memory(client, server, App()) as it:
        assert it.app.slot is not None
        it.app.slot.send_message(message, ChannelDirection.WRITE)
        assert code_of(await it.closed()) is code


async def test_other_handlers_messages_are_not_ciphertext(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App()) as it:
        assert it.wire.slot is not None
        message = IoMessage(message_type=MessageType.OTHER, tag=TlsNegotiatedProtocol("h2"))
        it.wire.slot.send_message(message, ChannelDirection.READ)
        assert code_of(await it.closed()) is ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE


# aws-c-io's cases over sockets


class Reports(StatisticsHandler):
    """Adds up what the handlers of a channel count."""

    report_interval_ms = 1

    def __init__(self) -> None:
        self.bytes_read = self.bytes_written = 0
        self.tls: TlsStatistics | None = None
        self.is_closed = False
        self._news = News()

    def process_statistics(self, _interval: Any, statistics: Any, _channel: Channel) -> None:
        for record in statistics:
            if isinstance(record, SocketStatistics):
                self.bytes_read += record.bytes_read
                self.bytes_written += record.bytes_written
            elif isinstance(record, TlsStatistics):
                self.tls = record
        self._news.tell()

    def close(self) -> None:
        self.is_closed = True

    async def until(self, reached: Callable[[], object]) -> None:
        await self._news.until(reached)


async def test_tls_channel_statistics_test(
    ca: trustme.CA, client: TlsConnectionOptions, tmp_path: Path
) -> None:
    to_client = b"This is some data."
    to_server = b"Created from a blend of heirloom and cider apples"
    reports = Reports()
    client_app, server_app = App(), App()
    async with (
        listening(server_of(ca), lambda: [server_app], path=str(tmp_path / "socket")) as listener,
        connecting(
            listener,
            client,
            lambda: [client_app],
            on_creation=lambda channel: channel.set_statistics_handler(reports),
        ) as ours,
    ):
        await listener.accepted()
        await client_app.write(to_server)
        await server_app.write(to_client)
        await client_app.received(len(to_client))
        await server_app.received(len(to_server))
        await reports.until(
            lambda: reports.bytes_written >= len(to_server) and reports.bytes_read >= len(to_client)
        )
        assert reports.tls is not None
        assert reports.tls.handshake_status is TlsNegotiationStatus.SUCCESS
        assert 0 < reports.tls.handshake_start_ns <= reports.tls.handshake_end_ns
        ours.shutdown()
        await ours.wait_closed()
        assert reports.is_closed


async def test_tls_server_multiple_connections(
    ca: trustme.CA, client: TlsConnectionOptions, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    async with listening(server_of(ca), lambda: [App()], path=path) as listener:
        for count in (1, 2):
            async with connecting(listener, client, lambda: [App()]) as ours:
                theirs = await listener.accepted(count)
                theirs.shutdown()
                assert await listener.ended(count) is None
                await ours.wait_closed()  # the client follows
                assert ours.error is None


async def test_tls_certificate_chain_test(ca: trustme.CA, tmp_path: Path) -> None:
    leaf = ca.create_child_ca().create_child_ca().issue_cert(HOST)
    assert len(leaf.cert_chain_pems) == 3
    server = TlsContext.server(TlsContextOptions.default_server(*identity(leaf)))
    client = TlsConnectionOptions(TlsContext.client(trusting(ca)), HOST)
    async with (
        listening(server, lambda: [App()], path=str(tmp_path / "socket")) as listener,
        connecting(listener, client, lambda: [App()]) as ours,
    ):
        theirs = await listener.accepted()
        theirs.shutdown()
        assert await listener.ended() is None
        await ours.wait_closed()
        assert ours.error is None


async def test_channels_on_another_thread(ca: trustme.CA, client: TlsConnectionOptions) -> None:
    app: list[App] = []
    thread: list[int] = []

    def handlers() -> list[App]:
        thread.append(threading.get_ident())
        app.append(App())
        return app[-1:]

    async with (
        another_loop() as loop,
        listening(server_of(ca), handlers) as listener,
        connecting(listener, client, handlers, requested_event_loop=loop) as channel,
    ):
        await listener.accepted()
        assert len(set(thread)) == 2
        ours, theirs = sorted(app, key=lambda each: _loop_of(each) is not loop)
        await theirs.write(b"across")
        assert await on(loop, ours.received(6)) == b"across"
        with raises(ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY):
            await ours.write(b"from the wrong thread")
        assert channel.error is None


def _loop_of(app: App) -> asyncio.AbstractEventLoop:
    assert app.slot is not None
    return app.slot.channel.loop
