"""The ASGI application of the uvicorn tests, in the test's process and in one of its own."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.applications.traffic import digest

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application:
    """Answers by path; writes down its lifespan in `events`.

    /loop: the class of the running loop and the HTTP scheme. /digest: the body's digest.
    /echo: the body, streamed. /slow: an answer that waits for `release`, once `arrived` is set.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(receive, send)
        else:
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        for what in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{what}"
            self.events.append(what)
            await send({"type": f"lifespan.{what}.complete"})

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        async def answer(text: str, status: int = 200) -> None:
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": text.encode()})

        match scope["path"]:
            case "/loop":
                loop = type(asyncio.get_running_loop())
                await answer(json.dumps([loop.__module__, loop.__name__, scope["scheme"]]))
            case "/digest":
                await answer(digest(await self._body(receive)))
            case "/echo":
                await self._echo(receive, send)
            case "/slow":
                self.arrived.set()
                await self.release.wait()
                await answer("done")
            case "/fault":
                raise RuntimeError("the application is at fault")
            case path:
                await answer(f"nothing at {path}", 404)

    async def _body(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)

    async def _echo(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            body = message.get("body", b"")
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _websocket(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """One application a process, made when the loop runs."""
    global _app
    if _app is None:
        _app = Application()
    await _app(scope, receive, send)


_app: Application | None = None
