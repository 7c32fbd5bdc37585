"""Servers of other people on our loop, as commands, and hypercorn in the running loop."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypercorn
import hypercorn.asyncio
import pytest
import trustme
import websockets.sync.client

from aws_io_async.integrations.httpx import ChannelTransport
from tests.applications.asgi import Application
from tests.applications.traffic import MIB, blob, digest, pieces

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]
RUN = ("aws_io_async", "run", "-m")
COMMANDS: dict[str, tuple[str, ...]] = {
    "gunicorn": (
        *("gunicorn", "-k", "aws_io_async.integrations.gunicorn.ASGIWorker"),
        *("-b", "unix:{path}", "--workers", "2", "--no-control-socket"),
    ),
    "gunicorn with uvicorn": (
        *("gunicorn", "-k", "aws_io_async.integrations.uvicorn_worker.UvicornWorker"),
        *("-b", "unix:{path}", "--workers", "2", "--no-control-socket"),
    ),
    "hypercorn": (*RUN, "hypercorn", "--workers", "0", "--bind", "unix:{path}"),
}
GRANIAN_FORKS = sys.version_info < (3, 14) and sys.platform == "linux"
"""Elsewhere it starts its workers afresh: they know nothing of `run`."""
if GRANIAN_FORKS:
    options = ("--interface", "asgi", "--loop", "asyncio", "--uds", "{path}")
    COMMANDS["granian"] = (*RUN, "granian", *options)


@contextlib.contextmanager
def command(name: str, path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A server's process, which listens on a local socket."""
    arguments = [argument.format(path=path) for argument in COMMANDS[name]]
    with subprocess.Popen(
        [sys.executable, "-m", *arguments, "tests.applications.asgi:app"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(path.parent)},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def local_client(path: Path) -> httpx.Client:
    """A client of what listens on a local socket, some moments after it has said so."""
    end = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            if sock.connect_ex(str(path)) == 0:
                break
        assert time.monotonic() < end
        time.sleep(0.01)
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE)


class Server:
    """A command that listens, and all that it has said."""

    def __init__(self, process: "subprocess.Popen[str]", path: Path) -> None:
        self.process = process
        self.path = path
        assert process.stdout is not None
        self.lines: list[str] = []
        for line in process.stdout:
            self.lines.append(line)
            if re.search(r"Listening at: unix|Running on|Started worker-1", line):
                return
        raise AssertionError("".join(self.lines))

    def ended_by(self, signum: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(signum)
        rest, _ = self.process.communicate(timeout=50)
        return self.process.returncode, "".join(self.lines) + rest


@pytest.fixture(params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "socket"
    with command(request.param, path) as process:
        yield Server(process, path)


def test_a_server_on_our_loop(server: Server) -> None:
    body = blob(2 * MIB)
    with local_client(server.path) as http:
        assert http.get("/loop").json() == ["aws_io_async.event_loop._loop", "EventLoop", "http"]
        assert http.get("/nowhere").status_code == 404
        assert http.post("/digest", content=body).text == digest(body)
        small = blob(100_000)
        assert http.post("/echo", content=small).content == small
    status, log = server.ended_by(signal.SIGTERM)
    assert status == 0, log
    assert "Traceback" not in log


def test_a_websocket(server: Server) -> None:
    data = blob(MIB // 2)
    with local_client(server.path) as http:
        assert http.get("/loop").status_code == 200
    connect = websockets.sync.client.unix_connect(str(server.path), "ws://localhost/")
    with connect as websocket:
        websocket.send("grüß Gott")
        assert websocket.recv() == "grüß Gott"
        websocket.send(data)
        assert websocket.recv() == data
    status, log = server.ended_by(signal.SIGTERM)
    assert status == 0, log
    assert "Traceback" not in log


# hypercorn in a program of one's own


@pytest.fixture
def certificate(ca: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """As hypercorn wants it: in files."""
    names = {"keyfile": tmp_path / "key.pem", "certfile": tmp_path / "certificate.pem"}
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(names["keyfile"]))
    issued.cert_chain_pems[0].write_to_path(str(names["certfile"]))
    return {name: str(path) for name, path in names.items()}


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Application, str]]:
    """hypercorn in the running loop, and where it listens."""
    app, ended, config = Application(), asyncio.Event(), hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    for name, value in settings.items():
        setattr(config, name, value)
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    class Log(hypercorn.logging.Logger):
        async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
            if found := re.search(r"https?://\S+", message % args if args else message):
                listening.set_result(found[0])

    config.logger_class = Log
    task = asyncio.ensure_future(
        hypercorn.asyncio.serve(app, config, shutdown_trigger=ended.wait)  # type: ignore[arg-type]  # an event's wait returns True
    )
    try:
        yield app, (await listening).replace("127.0.0.1", "localhost")
    finally:
        ended.set()
        await task


async def test_hypercorn_and_http_2_over_channels(
    certificate: dict[str, str], client_tls: ssl.SSLContext
) -> None:
    bodies = [blob(100_000, seed) for seed in range(20)]
    transport = ChannelTransport(verify=client_tls, http2=True)
    async with serving(**certificate) as (app, url):
        async with httpx.AsyncClient(transport=transport, base_url=url, timeout=30) as http:
            answer = await http.get("/loop")
            assert answer.http_version == "HTTP/2"
            loop = type(asyncio.get_running_loop())
            assert answer.json() == [loop.__module__, loop.__name__, "https"]
            answers = await asyncio.gather(*(http.post("/digest", content=b) for b in bodies))
            assert [each.text for each in answers] == [digest(body) for body in bodies]
            streams = {id(each.extensions["network_stream"]) for each in answers}
            assert len(streams) == 1  # all of them on one connection
            big = blob(2 * MIB)
            echoed = await http.post("/echo", content=pieces(big))
            assert digest(echoed.content) == digest(big)
        assert app.events == ["startup"]
    assert app.events == ["startup", "shutdown"]
