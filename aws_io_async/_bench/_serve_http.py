"""HTTP servers that people use, on a loop: each answers all requests by a few bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ._loops import factory
from ._serve_asyncio import listening

BODY = b"Hello, world!\n"


async def application(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def serve_uvicorn() -> None:
    import uvicorn

    config = uvicorn.Config(
        application, lifespan="off", log_level="warning", access_log=False, ws="none"
    )
    sock = listening()
    print(sock.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve([sock])


async def serve_aiohttp() -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sock = listening()
    port = sock.getsockname()[1]
    await web.SockSite(runner, sock).start()
    print(port, flush=True)
    await asyncio.get_running_loop().create_future()


SERVERS = {"uvicorn": serve_uvicorn, "aiohttp": serve_aiohttp}


def main(spec: str, server: str) -> None:
    with asyncio.Runner(loop_factory=factory(spec)) as runner:
        runner.run(SERVERS[server]())
