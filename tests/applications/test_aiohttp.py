"""aiohttp, client and server, unmodified: the same on each loop."""

import asyncio
import gzip
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.applications.traffic import KIB, MIB, blob, digest, pieces

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_LIMIT = 64 * MIB


@asynccontextmanager
async def serving(
    *routes: web.AbstractRouteDef,
    tls: ssl.SSLContext | None = None,
    handler_cancellation: bool = False,
) -> AsyncIterator[str]:
    """A running server of these routes; yields its address."""
    app = web.Application(client_max_size=BODY_LIMIT)
    app.add_routes(routes)
    runner = web.AppRunner(app, handler_cancellation=handler_cancellation)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        yield f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"Hello, {request.query.get('name', 'nobody')}")


async def peer_port(request: web.Request) -> web.Response:
    assert request.transport is not None
    return web.json_response(request.transport.get_extra_info("peername")[1])


async def body_digest(request: web.Request) -> web.Response:
    return web.Response(text=digest(await request.read()))


async def echo_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    async for chunk in request.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


# Requests and answers


async def test_get() -> None:
    async with serving(web.get("/", hello)) as url, aiohttp.ClientSession() as session:
        async with session.get(url, params={"name": "world & äöü"}) as response:
            assert response.status == 200
            assert await response.text() == "Hello, world & äöü"
        async with session.get(f"{url}/nowhere") as response:
            assert response.status == 404


async def test_post_with_a_body() -> None:
    body = blob(3 * MIB)
    async with (
        serving(web.post("/", body_digest)) as url,
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body)) as response,
    ):
        assert await response.text() == digest(body)


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with serving(web.get("/", peer_port)) as url, aiohttp.ClientSession() as session:
        ports = set()
        for _ in range(20):
            async with session.get(url) as response:
                ports.add(await response.json())
        assert len(ports) == 1
        async with session.get(url, headers={"Connection": "close"}) as response:
            ports.add(await response.json())
        async with session.get(url) as response:
            ports.add(await response.json())
        assert len(ports) == 2


async def test_many_requests_at_once_each_get_their_own_answer() -> None:
    async def ask(session: aiohttp.ClientSession, url: str, number: int) -> str:
        async with session.get(url, params={"name": str(number)}) as response:
            return await response.text()

    connector = aiohttp.TCPConnector(limit=10)
    async with (
        serving(web.get("/", hello)) as url,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        answers = await asyncio.gather(*(ask(session, url, number) for number in range(200)))
    assert answers == [f"Hello, {number}" for number in range(200)]


async def test_chunked_streams_in_both_directions_at_once() -> None:
    sent = blob(4 * MIB)
    received = bytearray()
    async with (
        serving(web.post("/", echo_stream)) as url,
        aiohttp.ClientSession() as session,
        session.post(url, data=pieces(sent)) as response,
    ):
        assert response.headers["Transfer-Encoding"] == "chunked"
        async for chunk in response.content.iter_chunked(30_000):
            received += chunk
    assert digest(received) == digest(sent)


async def test_a_slow_reader_holds_the_server_back() -> None:
    written = 0
    part = blob(64 * KIB)

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(part)
            written += len(part)

    async with (
        serving(web.get("/", endless)) as url,
        aiohttp.ClientSession() as session,
        session.get(url) as response,
    ):
        assert await response.content.readexactly(len(part)) == part
        before = -1
        while written != before:  # until the server waits for us
            before = written
            await asyncio.sleep(0.05)
        assert 0 < written < BODY_LIMIT
        assert await response.content.readexactly(len(part)) == part
        response.close()


async def test_compressed_bodies() -> None:
    text = b"All work and no play makes Jack a dull boy.\n" * 20_000

    async def compressed(request: web.Request) -> web.Response:
        response = web.Response(body=await request.read())
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with (
        serving(web.post("/", compressed)) as url,
        aiohttp.ClientSession() as session,
        session.post(
            url, data=gzip.compress(text), headers={"Content-Encoding": "gzip"}
        ) as response,
    ):
        assert response.headers["Content-Encoding"] == "gzip"
        assert await response.read() == text


# Files

BIG = blob(8 * MIB)


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(BIG)
    return path


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_upload_of_a_file(
    big_file: Path, tls: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with (
        serving(web.put("/", body_digest), tls=server_tls if tls else None) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls)) as session,
    ):
        with big_file.open("rb") as file:
            async with session.put(url, data=file) as response:
                assert await response.text() == digest(BIG)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_download_of_a_file(
    big_file: Path, tls: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(big_file)  # by loop.sendfile where that works

    async with (
        serving(web.get("/", file), tls=server_tls if tls else None) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls)) as session,
    ):
        for _ in range(2):  # the connection is good for another one
            async with session.get(url) as response:
                assert response.content_length == len(BIG)
                assert digest(await response.read()) == digest(BIG)
        middle = {"Range": "bytes=1000000-1999999"}
        async with session.get(url, headers=middle) as response:
            assert response.status == 206
            assert await response.read() == BIG[1_000_000:2_000_000]


async def test_downloads_given_up_half_way_leave_the_server_well(big_file: Path) -> None:
    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(big_file)

    async with serving(web.get("/", file)) as url, aiohttp.ClientSession() as session:
        for _ in range(5):
            async with session.get(url) as response:
                await response.content.readexactly(100_000)
                response.close()
        async with session.get(url) as response:
            assert digest(await response.read()) == digest(BIG)


# WebSocket


async def echo_websocket(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(max_msg_size=0)
    await websocket.prepare(request)
    async for message in websocket:
        if message.type is aiohttp.WSMsgType.TEXT:
            if message.data == "close":
                await websocket.close(code=4001, message=b"as you wish")
            else:
                await websocket.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await websocket.send_bytes(message.data)
    return websocket


@pytest.mark.parametrize("compress", [0, 15], ids=["plain", "compressed"])
async def test_websocket_text_and_binary(compress: int) -> None:
    async with (
        serving(web.get("/", echo_websocket)) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(url, compress=compress, max_msg_size=0) as websocket,
    ):
        assert bool(websocket.compress) is bool(compress)
        await websocket.send_str("grüß Gott")
        assert await websocket.receive_str() == "grüß Gott"
        for size in (0, 1, 125, 126, 65_536, 2 * MIB):
            data = blob(size)
            await websocket.send_bytes(data)
            assert digest(await websocket.receive_bytes()) == digest(data)


async def test_websocket_ping_and_pong() -> None:
    async with (
        serving(web.get("/", echo_websocket)) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(url, autoping=False) as websocket,
    ):
        await websocket.ping(b"are you there?")
        message = await websocket.receive()
        assert message.type is aiohttp.WSMsgType.PONG
        assert message.data == b"are you there?"


async def test_websocket_closed_by_the_client() -> None:
    closed_with: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def note_close(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for _ in websocket:
            pass
        closed_with.set_result(websocket.close_code)
        return websocket

    async with serving(web.get("/", note_close)) as url, aiohttp.ClientSession() as session:
        websocket = await session.ws_connect(url)
        await websocket.close(code=4000)
        assert await closed_with == 4000
        assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSED


async def test_websocket_closed_by_the_server_over_tls(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with (
        serving(web.get("/", echo_websocket), tls=server_tls) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=client_tls) as websocket,
    ):
        await websocket.send_str("close")
        message = await websocket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4001)
        assert message.extra == "as you wish"


# TLS


async def test_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def version(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=request.transport.get_extra_info("ssl_object").version())

    routes = (web.get("/", version), web.post("/", echo_stream))
    async with (
        serving(*routes, tls=server_tls) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls)) as session,
    ):
        async with session.get(url) as response:
            assert await response.text() == "TLSv1.3"
        sent = blob(4 * MIB)
        async with session.post(url, data=pieces(sent)) as response:
            assert digest(await response.read()) == digest(sent)


async def test_a_certificate_of_an_unknown_authority_is_refused(
    server_tls: ssl.SSLContext,
) -> None:
    async with serving(web.get("/", hello), tls=server_tls) as url, aiohttp.ClientSession() as s:
        with pytest.raises(aiohttp.ClientConnectorCertificateError) as raised:
            await s.get(url)
        assert isinstance(raised.value.certificate_error, ssl.SSLCertVerificationError)


async def test_plain_http_to_a_tls_server_fails(server_tls: ssl.SSLContext) -> None:
    async with serving(web.get("/", hello), tls=server_tls) as url, aiohttp.ClientSession() as s:
        with pytest.raises(aiohttp.ClientError):
            await s.get(url.replace("https", "http"))


# Time-outs, cancellation, shutdown


async def test_a_timeout_ends_the_request_on_both_sides() -> None:
    given_up = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        raise AssertionError

    routes = (web.get("/", never), web.get("/hello", hello))
    async with (
        serving(*routes, handler_cancellation=True) as url,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(TimeoutError):
            await session.get(url, timeout=aiohttp.ClientTimeout(total=0.1))
        await given_up.wait()
        with pytest.raises(aiohttp.SocketTimeoutError):
            await session.get(url, timeout=aiohttp.ClientTimeout(sock_read=0.1))
        async with session.get(f"{url}/hello") as response:
            assert await response.text() == "Hello, nobody"


async def test_a_cancelled_request_does_not_answer_the_next_one() -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def late(request: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response(text="the late answer")

    routes = (web.get("/late", late), web.get("/hello", hello))
    connector = aiohttp.TCPConnector(limit=1)
    async with (
        serving(*routes) as url,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        request = asyncio.ensure_future(session.get(f"{url}/late"))
        await arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        release.set()
        for number in range(10):
            async with session.get(f"{url}/hello", params={"name": str(number)}) as response:
                assert await response.text() == f"Hello, {number}"


async def test_a_refused_connection() -> None:
    async with serving(web.get("/", hello)) as url:
        pass
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get(url)
        assert isinstance(raised.value.os_error, ConnectionRefusedError)


async def test_a_shutdown_lets_a_request_in_flight_finish() -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response(text="done")

    app = web.Application()
    app.add_routes([web.get("/", slow)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        request = asyncio.ensure_future(session.get(url))
        await arrived.wait()
        cleanup = asyncio.ensure_future(runner.cleanup())
        refused = False
        while not refused:  # the server stops listening first
            try:
                async with aiohttp.ClientSession() as other, other.get(f"{url}/nowhere"):
                    pass
            except aiohttp.ClientConnectionError:
                refused = True
        assert not cleanup.done()
        release.set()
        async with await request as response:
            assert await response.text() == "done"
        await cleanup


# Unix sockets


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    app = web.Application(client_max_size=BODY_LIMIT)
    app.add_routes([web.post("/", body_digest)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    body = blob(2 * MIB)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
        session.post("http://anything/", data=io.BytesIO(body)) as response,
    ):
        assert await response.text() == digest(body)
    await runner.cleanup()
