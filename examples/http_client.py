"""An HTTP/1.1 client whose protocol is a handler of a channel, with the package h11 inside.

    python examples/http_client.py [URL [PATH ...]]       (without a URL: from a server of its own)

`Http1` stands between the socket, or TLS, and the application:

    socket | TLS | Http1 | application

To its left there are bytes. To its right a body is bytes, too, within the windows; a head, and the
end of a message, is a message of type OTHER with h11's event as its tag. h11 does no I/O and knows
both sides of the protocol, so the server below has the same handler.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import h11

from aws_io_async import (
    Channel,
    ChannelDirection,
    ChannelHandler,
    ChannelSlot,
    ClientBootstrap,
    IoMessage,
    ServerBootstrap,
    TlsContext,
    run,
)
from aws_io_async.message_pool import MessageType

READ, WRITE = ChannelDirection.READ, ChannelDirection.WRITE
OVER = {h11.DONE, h11.MUST_CLOSE, h11.CLOSED}


class Http1(ChannelHandler):
    """Bytes to the left, h11's events to the right. `role` is h11.CLIENT or h11.SERVER."""

    initial_window_size = 64 * 1024

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER]) -> None:
        self._h11 = h11.Connection(role)
        self._taken = 0  # bytes from the left that h11 has not made events of
        self._body = b""  # bytes for the right that the window there does not allow yet
        self._drained: asyncio.Future[None] | None = None

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self._taken += len(message.data)
        self._h11.receive_data(bytes(message.data))  # none at END_OF_INPUT, which is h11's way, too
        self._pass_on(slot)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self._pass_on(slot)

    def _pass_on(self, slot: ChannelSlot) -> None:
        """Send to the right what there is, and what the window there allows."""
        while self._body or self._next_event(slot):
            size = slot.downstream_read_window
            if self._body and not size:
                return  # `increment_read_window` will tell
            part, self._body = self._body[:size], self._body[size:]
            if part:
                slot.send_message(IoMessage(part), READ)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _next_event(self, slot: ChannelSlot) -> bool:
        """Deal with one event; False if there is none."""
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            # Raised from here it would be reported as a bug of ours. It is the peer's.
            slot.channel.shutdown(exc)
            return False
        if event is h11.NEED_DATA:
            slot.increment_read_window(self._taken)
            self._taken = 0
        if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            return False
        if isinstance(event, h11.Data):
            self._body = bytes(event.data)
        else:
            slot.send_message(IoMessage(message_type=MessageType.OTHER, tag=event), READ)
            self._begin_again(slot)
        return True

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        event = message.tag or h11.Data(data=bytes(message.data))
        try:
            data = self._h11.send(event) or b""
        except h11.LocalProtocolError as exc:
            message.complete(slot.channel, exc)  # whoever waits for this write is told
            slot.channel.shutdown(exc)
            return
        # Another message goes on in place of this one, and tells when it is written or lost.
        encoded = IoMessage(data)
        encoded.on_completion = lambda channel, _, error: message.complete(channel, error)
        slot.send_message(encoded, WRITE)
        if isinstance(event, h11.EndOfMessage):
            self._begin_again(slot)
            self._pass_on(slot)  # a request that came before the answer to the one before it

    def _begin_again(self, slot: ChannelSlot) -> None:
        """Once both sides have ended their message: keep the connection, or close it."""
        states = {self._h11.our_state, self._h11.their_state}
        if states == {h11.DONE}:
            self._h11.start_next_cycle()
        elif states <= OVER:
            slot.channel.shutdown()

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> "asyncio.Future[None] | None":
        if direction is WRITE or free_scarce_resources_immediately:
            return None
        self._h11.receive_data(b"")  # the end of the connection ends some bodies
        self._drained = asyncio.get_running_loop().create_future()
        self._pass_on(slot)
        return self._drained


class Requests(ChannelHandler):
    """The application of a client: one request at a time, and then the answer to it."""

    initial_window_size = 64 * 1024

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[IoMessage | None] = asyncio.Queue()

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self._incoming.put_nowait(message)

    def shutdown(self, slot: ChannelSlot, *_: object) -> None:
        self._incoming.put_nowait(None)  # behind what has come so far

    @property
    def channel(self) -> Channel:
        assert self.slot is not None
        return self.slot.channel

    async def request(
        self, method: str, target: str, host: str, body: AsyncIterator[bytes] | None = None
    ) -> h11.Response:
        """Send a request, and wait for the head of the answer. Then its `body` is to be read."""
        assert self.slot is not None
        headers = [("Host", host), ("User-Agent", "aws-io-async"), ("Accept", "*/*")]
        if body is not None:
            headers.append(("Transfer-Encoding", "chunked"))  # as nobody knows its length yet
        send(self.slot, h11.Request(method=method, target=target, headers=headers))
        if body is not None:
            async for part in body:
                await self.slot.write(part)  # a chunk each; waits for the kernel to take it
        send(self.slot, h11.EndOfMessage())
        while not isinstance(answer := (await self._receive()).tag, h11.Response):
            pass  # "100 Continue" and the like
        return answer

    async def body(self) -> AsyncIterator[bytes]:
        assert self.slot is not None
        while not isinstance((message := await self._receive()).tag, h11.EndOfMessage):
            yield bytes(message.data)
            self.slot.increment_read_window(len(message.data))

    async def _receive(self) -> IoMessage:
        message = await self._incoming.get()
        if message is None:
            self._incoming.put_nowait(None)
            reason = self.channel.error or "the server has closed it"
            raise ConnectionError(f"the connection ended before the answer did: {reason}")
        return message


def send(slot: ChannelSlot, event: h11.Event) -> None:
    slot.send_message(IoMessage(message_type=MessageType.OTHER, tag=event), WRITE)


class Answers(ChannelHandler):
    """The application of the example's server, which has an `Http1` to its left as well."""

    initial_window_size = 64 * 1024

    def __init__(self) -> None:
        self._target = ""
        self._received = 0

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        match message.tag:
            case h11.Request(target=target):
                self._target, self._received = target.decode(), 0
            case h11.EndOfMessage():
                await self._answer(slot)
            case _:
                self._received += len(message.data)
                slot.increment_read_window(len(message.data))

    async def _answer(self, slot: ChannelSlot) -> None:
        status = 404 if self._target == "/nowhere" else 200
        headers = [("Transfer-Encoding", "chunked")]
        if self._target == "/last":
            headers.append(("Connection", "close"))
        send(slot, h11.Response(status_code=status, headers=headers))
        await slot.write(f"This is {self._target}, ".encode())
        if self._target == "/broken":
            slot.channel.shutdown()
            return
        await slot.write(f"which was sent {self._received} bytes".encode())
        send(slot, h11.EndOfMessage())


class Client:
    """Requests to the server of a URL, on one connection as long as that lasts."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._bootstrap = ClientBootstrap()
        self._connection: Requests | None = None
        self._opened = 0

    async def fetch(
        self, method: str, target: str, body: AsyncIterator[bytes] | None = None
    ) -> None:
        """Make a request, and print what came of it."""
        try:
            connection = self._connection
            if connection is None or connection.channel.is_closing():
                connection = await self._connect()
            answer = await connection.request(method, target, self._server.netloc, body)
            received = b"".join([part async for part in connection.body()])
        except OSError as exc:  # of names, sockets, TLS and HTTP
            print(f"{method} {target} on connection {self._opened} failed: {exc}")
            return
        print(f"{method} {target} on connection {self._opened}: status {answer.status_code}")
        print(f"  {len(received)} bytes: {received[:60]!r}")

    async def _connect(self) -> Requests:
        requests, secure = Requests(), self._server.scheme == "https"
        await self._bootstrap.new_socket_channel(
            self._server.hostname or "",
            self._server.port or (443 if secure else 80),
            tls=TlsContext.client() if secure else None,
            handlers=lambda: [Http1(h11.CLIENT), requests],
            enable_read_back_pressure=True,
        )
        self._opened += 1
        self._connection = requests
        return requests

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.channel.aclose()


async def numbers() -> AsyncIterator[bytes]:
    for number in range(1000):
        yield b"%d\n" % number


async def fetch_all(url: str, *paths: str) -> None:
    parts = urlsplit(url)
    async with contextlib.aclosing(Client(url)) as client:
        for path in (f"{parts.path or '/'}?{parts.query}".removesuffix("?"), *paths):
            if path == "/upload":
                await client.fetch("POST", path, numbers())
            else:
                await client.fetch("GET", path)


async def demonstrate() -> None:
    async with await ServerBootstrap().new_socket_listener(
        "127.0.0.1",
        handlers=lambda: [Http1(h11.SERVER), Answers()],
        enable_read_back_pressure=True,
    ) as listener:
        url = f"http://127.0.0.1:{listener.endpoint.port}/hello"
        await fetch_all(url, "/upload", "/nowhere", "/broken", "/last", "/hello")


if __name__ == "__main__":
    run(fetch_all(*sys.argv[1:]) if len(sys.argv) > 1 else demonstrate())
