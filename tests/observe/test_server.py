"""The local socket at which a process tells of its loops."""

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_io_async import EventLoop, observe
from aws_io_async.errors import AwsIoError, ErrorCode
from tests.crt_loops import PATIENCE, open_ours, open_running
from tests.schemas import validate


@pytest.fixture
def path() -> Iterator[Path]:
    """pytest's own folders have names that are too long for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "statistics")


class Client:
    """Asks a server, on a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(PATIENCE)
        self._sock.connect(f"{path}")
        self._file = self._sock.makefile("rwb")

    def ask(self, line: bytes = b"\n") -> dict[str, Any]:
        self._file.write(line)
        self._file.flush()
        answer = self._file.readline()
        assert answer.endswith(b"\n")
        document: dict[str, Any] = json.loads(answer)
        validate(document, "statistics")
        return document

    def ended(self) -> bool:
        """Whether the server hangs up."""
        return self._file.readline() == b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._sock.close()


def test_it_tells_of_the_loops_that_there_are(path: Path) -> None:
    with observe.serve_statistics(path), Client(path) as client:
        first = client.ask()
        assert first["pid"] == os.getpid()
        known = {loop["name"] for loop in first["loops"]}
        with open_running("aws_io_async") as loop:
            second = client.ask(b"anything\n")
            (new,) = [each for each in second["loops"] if each["name"] not in known]
            assert new["name"] == observe.describe_loop(loop)["name"]
            assert new["thread"] == "aws-io-loop"
        assert {each["name"] for each in client.ask()["loops"]} == known
        assert second["monotonic_seconds"] > first["monotonic_seconds"]


def test_of_chosen_loops_only(path: Path) -> None:
    with (
        open_ours("aws_io_async") as loop,
        observe.serve_statistics(path, [loop]),
        Client(path) as client,
    ):
        (described,) = client.ask()["loops"]
        assert described["state"] == "stopped"
        loop.stop()
        loop.run_forever()
        assert client.ask()["loops"][0]["turns"] == 1


def test_its_own_loop_is_not_among_them(path: Path) -> None:
    before = observe.event_loops()
    with observe.serve_statistics(path):
        assert observe.event_loops() == before


def test_it_answers_while_a_loop_is_stalled(path: Path) -> None:
    end = threading.Event()
    with open_running("aws_io_async") as loop, observe.serve_statistics(path, [loop]):
        begun = threading.Event()
        loop.call_soon_threadsafe(begun.set)
        loop.call_soon_threadsafe(end.wait, PATIENCE)
        assert begun.wait(PATIENCE)
        with Client(path) as client:
            first, second = (client.ask()["loops"][0] for _ in range(2))
            assert first["state"] == second["state"] == "busy"
            assert first["turns"] == second["turns"]
        end.set()


def test_only_the_user_may_connect(path: Path) -> None:
    mask = os.umask(0)
    try:
        with observe.serve_statistics(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    finally:
        os.umask(mask)


def test_its_file_goes_with_it(path: Path) -> None:
    server = observe.serve_statistics(path)
    assert path.is_socket()
    with Client(path) as client:
        client.ask()
        assert f"{path}>" in repr(server)
        server.close()
        assert client.ended()
    assert not path.exists()
    assert "closed" in repr(server)
    server.close()


def test_a_file_that_was_replaced_stays(path: Path) -> None:
    server = observe.serve_statistics(path)
    other = path.with_name("other")
    other.write_text("not a socket")
    os.rename(other, path)
    server.close()
    assert path.read_text() == "not a socket"


def test_what_a_killed_process_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{path}")
        dead.listen()
    with observe.serve_statistics(path), Client(path) as client:
        client.ask()


def test_a_place_that_is_taken(path: Path) -> None:
    with observe.serve_statistics(path):
        with pytest.raises(OSError, match="statistics") as caught:
            observe.serve_statistics(path)
        assert isinstance(caught.value, AwsIoError)
        assert caught.value.code is ErrorCode.IO_SOCKET_ADDRESS_IN_USE
        with Client(path) as client:
            client.ask()  # it was left alone
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        observe.serve_statistics(path)
    assert path.read_text() == "mine"


def test_places_that_cannot_be(path: Path) -> None:
    with pytest.raises(AwsIoError) as caught:
        observe.serve_statistics(path.with_name("x" * 200))
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_ADDRESS
    with pytest.raises(OSError, match="missing"):
        observe.serve_statistics(path.with_name("missing") / "socket")


def test_clients_that_go_or_send_what_has_no_end(path: Path) -> None:
    with observe.serve_statistics(path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{path}")
            sock.sendall(b"\n" * 1000)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(f"{path}")
            try:
                sock.sendall(bytes(200_000))
                assert sock.recv(1) == b""
            except ConnectionError:
                pass
        with Client(path) as client:
            client.ask()


def test_a_program_that_forgets_it_leaves_no_file(path: Path) -> None:
    program = f"""
import aws_io_async, asyncio
from aws_io_async import observe
async def main():
    observe.serve_statistics({f"{path}"!r})
aws_io_async.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not path.exists()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_leaves_it_to_its_parent(path: Path) -> None:
    with observe.serve_statistics(path) as server:
        pid = os.fork()
        if not pid:
            server.close()
            os._exit(0 if path.is_socket() else 1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        with Client(path) as client:
            client.ask()


def test_from_a_coroutine(path: Path) -> None:
    async def main() -> str:
        with observe.serve_statistics(path), Client(path) as client:
            (running,) = [each for each in client.ask()["loops"] if each["thread"] == "MainThread"]
            return str(running["state"])

    loop = EventLoop()
    assert loop.run_until_complete(main()) == "busy"
    loop.close()
