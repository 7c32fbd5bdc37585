"""What the page on integrations shows works: each snippet is run, against servers of the tests."""

import contextlib
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import trustme

from tests.integrations.database_servers import postgresql, redis
from tests.integrations.test_ipython import RunCells
from tests.integrations.test_servers import GRANIAN_FORKS, local_client
from tests.s3_server import s3_server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrations.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)}
EXAMPLE = "https://example.com/"


def snippets(section: str, language: str = "python") -> list[str]:
    fence = rf"^```{language}\n(.*?)^```$"
    return re.findall(fence, SECTIONS[section], re.MULTILINE | re.DOTALL)


def run(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done.stdout


def run_program(folder: Path, source: str, **environment: str) -> str:
    (folder / "program.py").write_text(source)
    return run(folder, "-W", "error", "program.py", **environment)


class _Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # it keeps connections

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def example(server_tls: ssl.SSLContext) -> Iterator[str]:
    """A server in the place of example.com."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        server.socket = server_tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


def test_pytest(tmp_path: Path) -> None:
    (configuration,) = snippets("pytest", "toml")
    (test,) = snippets("pytest")
    (tmp_path / "test_it.py").write_text(test)
    quiet = ("-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider")
    pytest_run = ("-m", "pytest", "-q", *quiet)
    assert "1 passed" in run(tmp_path, *pytest_run)
    (tmp_path / "pyproject.toml").write_text(configuration)
    (tmp_path / "test_it.py").write_text(re.sub("@pytest.*\n", "", test))
    assert "1 passed" in run(tmp_path, *pytest_run)


def test_httpx(tmp_path: Path, example: str, trusted: str) -> None:
    (program,) = snippets("httpx and httpcore")
    output = run_program(tmp_path, program.replace(EXAMPLE, example), SSL_CERT_FILE=trusted)
    assert output.startswith("200\nSocketStatistics(bytes_read=")
    assert "\nTlsStatistics(handshake_start_ns=" in output


def test_aiohttp(tmp_path: Path, example: str, trusted: str) -> None:
    program, _ = snippets("aiohttp")
    program = program.replace(EXAMPLE, example)
    assert run_program(tmp_path, program, SSL_CERT_FILE=trusted) == "200\n"


@pytest.mark.parametrize("by", ["itself", "gunicorn"])
def test_the_server_of_aiohttp(tmp_path: Path, by: str) -> None:
    _, program = snippets("aiohttp")
    (command,) = snippets("aiohttp", "sh")
    path = tmp_path / "sock"
    application, run_app, address = program.partition("web.run_app(")
    if by == "itself":
        address = address.replace('host="127.0.0.1", port=8080', f"path={str(path)!r}")
        (tmp_path / "program.py").write_text(application + run_app + address)
        arguments = ["-u", "program.py"]
    else:
        (tmp_path / "app.py").write_text(application)
        arguments = shlex.split(f"{command.strip()} --no-control-socket -b unix:{path}")[1:]
    with serving(tmp_path, *arguments), local_client(path) as client:
        assert client.get("/").text.startswith("aws_io_async.")


COMMANDS = "".join(snippets("Servers", "sh")).splitlines()
LISTEN_ON = {
    "uvicorn": "--uds {}",
    "gunicorn": "--no-control-socket -b unix:{}",
    "granian": "--uds {}",
    "hypercorn": "--bind unix:{}",
}


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A server that has said where it listens."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            started = r"Listening at: \S+sock|[Rr]unning on|Started worker-1"
            assert any(re.search(started, line) for line in lines)
            yield process
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=50)
            assert "Traceback" not in rest
        finally:
            process.kill()


def write_application(folder: Path) -> None:
    (application,) = re.findall("async def app.*?\n\n", snippets("Servers")[0], re.DOTALL)
    (folder / "app.py").write_text(f"import asyncio\n\n{application}")


def test_there_are_five_commands() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_servers(tmp_path: Path, command: str) -> None:
    (server,) = {word for word in shlex.split(command) if word in LISTEN_ON}
    if server == "granian" and not GRANIAN_FORKS:
        pytest.skip("as the page says")
    write_application(tmp_path)
    path = tmp_path / "sock"
    words = shlex.split(f"{command} {LISTEN_ON[server].format(path)}")
    arguments = words[1:] if words[0] == "python" else ["-m", *words]
    with serving(tmp_path, *arguments), local_client(path) as client:
        assert client.get("/").text.startswith("aws_io_async.")


def test_hypercorn_in_a_program(tmp_path: Path) -> None:
    program, _ = snippets("Servers")
    path = tmp_path / "sock"
    (tmp_path / "program.py").write_text(program.replace("127.0.0.1:8000", f"unix:{path}"))
    with serving(tmp_path, "program.py"), local_client(path) as client:
        assert client.get("/").text.startswith("aws_io_async.")


def test_granian_in_a_program(tmp_path: Path) -> None:
    _, program = snippets("Servers")
    write_application(tmp_path)
    (tmp_path / "program.py").write_text(program)
    with serving(tmp_path, "program.py"), local_client(tmp_path / "socket") as client:
        assert client.get("/").text.startswith("aws_io_async.")


def test_workers_can_be_looked_into(tmp_path: Path) -> None:
    (application,) = snippets("Workers and what they do")
    (top,) = snippets("Workers and what they do", "sh")
    (tmp_path / "app.py").write_text(application)
    path = tmp_path / "sock"
    worker = "aws_io_async.integrations.uvicorn_worker.UvicornWorker"
    options = ("-w", "2", "--no-control-socket", "-b", f"unix:{path}", "-k", worker)
    with serving(tmp_path, "-m", "gunicorn", *options, "app:app"), local_client(path) as client:
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "aws_io_async_stalls_total 0\n" in answer.text
        while len(sockets := sorted(tmp_path.glob("worker-*.sock"))) < 2:
            client.get("/")  # one worker has answered, and the other one is about to
        _, *arguments = shlex.split(top.replace("worker-*.sock", " ".join(map(str, sockets))))
        shown = run(tmp_path, *arguments, "--once")
    assert sorted(re.findall(r"^(\d+)  ", shown, re.MULTILINE)) == sorted(
        path.stem.removeprefix("worker-") for path in sockets
    )
    assert not list(tmp_path.glob("worker-*.sock"))


def test_ipython(tmp_path: Path) -> None:
    outputs = RunCells(tmp_path)(*snippets("Jupyter and IPython"))
    assert outputs[0] == ""
    assert outputs[1].startswith("<EventLoop running=True")
    assert outputs[2:] == ["'hello'", "'from the other loop'"]


def test_databases(tmp_path: Path, ca: trustme.CA) -> None:
    for_postgresql, for_redis = snippets("Databases")
    with redis(ca) as server:
        program = for_redis.replace("localhost", f"localhost:{server.port}")
        assert run_program(tmp_path, program) == "b'value'\n"
    with postgresql(ca) as server:
        address = f"test@localhost:{server.port}/postgres"
        assert (
            run_program(tmp_path, for_postgresql.replace("user@localhost/database", address))
            == "42\n"
        )


def test_s3(tmp_path: Path) -> None:
    (program,) = snippets("S3")
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    with s3_server() as url:
        httpx.put(f"{url}/bucket", trust_env=False).raise_for_status()
        output = run_program(tmp_path, program, AWS_ENDPOINT_URL=url, **keys)
    assert output == "b'hello'\n"


def test_dns(tmp_path: Path) -> None:
    (program,) = snippets("DNS with its own times")
    assert run_program(tmp_path, program) == ""


def test_every_snippet_is_run() -> None:
    tested = {
        "pytest": 1,
        "httpx and httpcore": 1,
        "aiohttp": 2,
        "Servers": 2,
        "Workers and what they do": 1,
        "Jupyter and IPython": 4,
        "Databases": 2,
        "S3": 1,
        "DNS with its own times": 1,
    }
    assert {name: len(snippets(name)) for name in SECTIONS if snippets(name)} == tested
