"""uvicorn, asked by httpx: in the test's loop, and as a command with our loop by name."""

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import websockets

from tests import loops
from tests.applications.asgi import Application
from tests.applications.traffic import MIB, blob, digest, pieces

ROOT = Path(__file__).parents[2]


class Server(uvicorn.Server):
    """uvicorn's, which says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class Running:
    """A server in a task of the running loop."""

    def __init__(self, app: Application, **options: Any) -> None:
        self.app = app
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        config = uvicorn.Config(app, log_config=None, ws="websockets-sansio", **options)
        self.server = Server(config)

    async def serve(self) -> None:
        await self.server.serve(sockets=[self.listener])


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Running]:
    running = Running(Application(), **options)
    task = asyncio.ensure_future(running.serve())
    await running.server.ready.wait()
    try:
        yield running
    finally:
        running.server.should_exit = True
        await task


@pytest.fixture
def server_files(ca: Any, tmp_path: Path) -> dict[str, str]:
    """A certificate and its key as uvicorn wants them: as names of files."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(key))
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(str(certificate), append=number > 0)
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}


def client(running: Running, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{running.port}", trust_env=False, **options
    )


def name_of(loop: asyncio.AbstractEventLoop) -> list[str]:
    return [type(loop).__module__, type(loop).__name__]


# In the running loop


async def test_requests_on_the_running_loop() -> None:
    async with serving() as running, client(running) as http:
        answer = await http.get("/loop")
        assert answer.status_code == 200
        assert answer.http_version == "HTTP/1.1"
        assert answer.json() == [*name_of(asyncio.get_running_loop()), "http"]
        assert (await http.get("/nowhere")).status_code == 404
        body = blob(3 * MIB)
        assert (await http.post("/digest", content=body)).text == digest(body)


async def test_streams_in_both_directions() -> None:
    sent, received = blob(4 * MIB), bytearray()
    async with (
        serving() as running,
        client(running) as http,
        http.stream("POST", "/echo", content=pieces(sent)) as answer,
    ):
        assert answer.headers["Transfer-Encoding"] == "chunked"
        async for chunk in answer.aiter_bytes():
            received += chunk
    assert digest(received) == digest(sent)


async def test_many_requests_at_once() -> None:
    bodies = [blob(10_000, seed) for seed in range(100)]
    limits = httpx.Limits(max_connections=10)
    async with serving() as running, client(running, limits=limits, timeout=60) as http:
        answers = await asyncio.gather(*(http.post("/digest", content=body) for body in bodies))
    assert [answer.text for answer in answers] == [digest(body) for body in bodies]


async def test_tls(server_files: dict[str, str], client_tls: ssl.SSLContext) -> None:
    body = blob(2 * MIB)
    async with serving(**server_files) as running:
        url = f"https://localhost:{running.port}"
        async with httpx.AsyncClient(base_url=url, verify=client_tls, trust_env=False) as http:
            answer = await http.get("/loop")
            assert answer.json() == [*name_of(asyncio.get_running_loop()), "https"]
            assert (await http.post("/digest", content=body)).text == digest(body)
            answer = await http.post("/echo", content=pieces(body))
            assert digest(answer.content) == digest(body)


async def test_a_client_that_does_not_trust_the_server(server_files: dict[str, str]) -> None:
    async with serving(**server_files) as running:
        url = f"https://localhost:{running.port}"
        async with httpx.AsyncClient(trust_env=False) as http:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(url)


async def test_an_application_at_fault_answers_500_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as running, client(running) as http:
        assert (await http.get("/fault")).status_code == 500
        assert (await http.get("/loop")).status_code == 200
    assert "the application is at fault" in caplog.text


async def test_lifespan_and_a_request_in_flight_at_the_end() -> None:
    async with serving(lifespan="on") as running, client(running) as http:
        app = running.app
        assert app.events == ["startup"]
        request = asyncio.ensure_future(http.get("/slow"))
        await app.arrived.wait()
        running.server.should_exit = True
        app.release.set()
        assert (await request).text == "done"
    assert app.events == ["startup", "shutdown"]


async def test_a_client_timeout() -> None:
    async with serving() as running, client(running) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/slow", timeout=0.1)
        running.app.release.set()
        assert (await http.get("/loop")).status_code == 200


async def test_a_websocket() -> None:
    data = blob(MIB // 2)
    async with (
        serving() as running,
        websockets.connect(f"ws://127.0.0.1:{running.port}", proxy=None) as websocket,
    ):
        await websocket.send("grüß Gott")
        assert await websocket.recv() == "grüß Gott"
        await websocket.send(data)
        assert await websocket.recv() == data


# As a command

NAMES = {
    "aws_io_async": "aws_io_async:new_event_loop",
    "asyncio": "asyncio",
    "uvloop": "uvloop",
}


class Command:
    """A uvicorn process that has said that it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = self.until(r"running on (http://\S+)")

    def until(self, pattern: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found[found.re.groups]
        raise AssertionError("".join(self.lines))

    def ended_by(self, signum: signal.Signals) -> tuple[int, str]:
        """Send the signal; the exit status and all that was logged."""
        self.process.send_signal(signum)
        _, rest = self.process.communicate()
        return self.process.returncode, "".join(self.lines) + rest


@contextmanager
def command(loop: str) -> Iterator[Command]:
    arguments = ["--loop", NAMES[loop], "--port", "0", "--no-use-colors", "--lifespan", "on"]
    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments, "tests.applications.asgi:app"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Command(process)
        finally:
            process.kill()


@pytest.mark.parametrize("loop", loops.FACTORIES)
def test_the_command_with_a_loop_by_name(loop: str) -> None:
    body = blob(2 * MIB)
    made = loops.FACTORIES[loop]()
    expected = name_of(made)
    made.close()
    with command(loop) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        module, name, scheme = http.get("/loop").json()
        if loop != "asyncio":  # there uvicorn has the choice
            assert [module, name] == expected
        assert scheme == "http"
        assert http.post("/digest", content=body).text == digest(body)
        http.close()
        status, log = server.ended_by(signal.SIGTERM)
    assert "Application shutdown complete" in log
    assert "Finished server process" in log
    assert "Traceback" not in log
    assert status in (0, -signal.SIGTERM)


@pytest.mark.parametrize("loop", loops.FACTORIES)
def test_the_command_ends_on_ctrl_c_once_the_requests_are_answered(loop: str) -> None:
    with command(loop) as server:
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port)) as sock:
            head = b"POST /digest HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n"
            sock.sendall(head + b"Expect: 100-continue\r\n\r\nhal")
            assert sock.recv(1000).startswith(b"HTTP/1.1 100")  # the application has it
            server.process.send_signal(signal.SIGINT)
            server.until("Waiting for connections to close")
            sock.sendall(b"ves")
            answer = sock.makefile("rb").read()
        assert answer.endswith(digest(b"halves").encode() + b"\r\n0\r\n\r\n")
        _, rest = server.process.communicate()
    log = "".join(server.lines) + rest
    assert "Application shutdown complete" in log
    assert "Traceback" not in log
