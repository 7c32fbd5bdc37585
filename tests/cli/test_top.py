"""`top`: the loops of real processes, while they work, stall and end."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import environment, run, running, terminal
from tests.schemas import validate

WATCHED = """
import asyncio, sys, time
import aws_io_async
from aws_io_async import observe

async def main():
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(commands)
    await loop.connect_read_pipe(lambda: protocol, sys.stdin)
    with observe.serve_statistics(sys.argv[1]):
        print("serving", flush=True)
        while command := (await commands.readline()).decode().strip():
            if command == "stall":
                print("stalled", flush=True)
                time.sleep(3600)
            await asyncio.sleep(0)

aws_io_async.run(main())
"""


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "app.sock")


@contextmanager
def watched(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A program with one loop, that serves its statistics."""
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, f"{path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def stall(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("stall\n")
    process.stdin.flush()
    assert process.stdout.readline() == "stalled\n"


def document(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)
    validate(found, "top")
    return found


def test_one_look(path: Path) -> None:
    with watched(path) as process:
        done = run("top", path, "--once", "--json")
    found = document(done.stdout)
    assert (done.returncode, found["path"], found["rates"]) == (0, f"{path}", {})
    assert found["statistics"]["pid"] == process.pid
    (loop,) = found["statistics"]["loops"]
    assert (loop["thread"], loop["state"]) == ("MainThread", "waiting")


def test_rates_between_looks(path: Path) -> None:
    with watched(path):
        done = run("top", path, "--count", "2", "--interval", "0.1", "--json")
    first, second = map(document, done.stdout.splitlines())
    assert first["rates"] == {}
    (name,) = [loop["name"] for loop in second["statistics"]["loops"]]
    rates = second["rates"][name]
    assert rates["turns_per_second"] >= 0
    assert rates["load"] < 0.5
    assert rates["stalled_seconds"] == 0


def test_a_table(path: Path) -> None:
    with watched(path) as process:
        done = run("top", path, "--count", "2", "--interval", "0.1")
    assert done.returncode == 0
    first, second = done.stdout.split("\n\n")
    title, about, headings, row = second.splitlines()
    assert title.startswith(f"{process.pid}  {sys.executable}")
    assert about.startswith(f"Python {sys.version.partition(' ')[0]}")
    assert headings.split()[:4] == ["Loop", "Thread", "State", "Load"]
    assert row.split()[1:3] == ["MainThread", "waiting"]
    assert len(first.splitlines()) == 4


def test_a_stalled_loop_is_told(path: Path) -> None:
    with (
        watched(path) as process,
        running("top", path, "--interval", "0.05", "--json") as command,
    ):
        command.line()
        stall(process)
        while True:
            (rates,) = document(command.line())["rates"].values()
            if rates["stalled_seconds"] > 0.2:
                break
        assert rates["load"] > 0.9
        assert command.end()[0] == 130


def test_live_at_a_terminal(path: Path) -> None:
    with watched(path) as process, terminal("top", path, "--interval", "0.1") as screen:
        screen.wait_for(rf"{process.pid} ")
        screen.wait_for(r"loop-1 +MainThread +waiting +0%")
        stall(process)
        screen.wait_for(r"MainThread +stalled \d+ s +100%")
        screen.type("\x03")
        assert screen.wait() == 130
        assert screen.raw.rindex("\x1b[?25h") > screen.raw.rindex("\x1b[?25l")


def test_a_narrow_terminal_shows_fewer_columns_and_those_whole(path: Path) -> None:
    with watched(path) as process, terminal("top", path, "--once", columns=80) as screen:
        screen.wait_for(rf"{process.pid} ")
        headings = screen.wait_for(r"Loop .*")[0]
        assert headings.split()[:3] == ["Loop", "State", "Load"]
        screen.wait_for(r"loop-1 +waiting +\d+%")
        assert screen.wait() == 0
    assert max(map(len, screen.text.splitlines()[-2:])) <= 80
    assert "…" not in screen.text


def test_several_processes_and_their_ends(path: Path) -> None:
    other = path.with_name("other.sock")
    with (
        watched(path) as one,
        watched(other) as two,
        running("top", path, other, "--interval", "0.05", "--json") as command,
    ):
        documents = [document(command.line()) for _ in range(2)]
        assert [each["statistics"]["pid"] for each in documents] == [one.pid, two.pid]
        one.kill()
        while document(command.line())["statistics"] is not None:
            pass
        two.kill()
        status, _, errors = command.wait()
    assert (status, errors) == (1, "error: all have ended\n")


def test_nobody_there(path: Path) -> None:
    done = run("top", path)
    assert done.returncode == 4
    assert done.stderr == f"error: {path}: No such file or directory\n"
    with watched(path) as process:
        process.kill()
        process.wait()
        assert run("top", path).returncode == 4


def test_what_a_killed_process_has_left_hides_no_other(path: Path) -> None:
    """Such as `top app-*.sock` comes upon after a worker has crashed."""
    left = path.with_name("left.sock")
    with watched(left) as process:
        process.kill()
        process.wait()
    with watched(path) as process:
        done = run("top", left, path, "--once")
        documents = run("top", left, path, "--once", "--json").stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{left}: Connection refused\n")
    assert f"\n{process.pid}  " in done.stdout
    assert [each["statistics"] is None for each in map(document, documents)] == [True, False]
    done = run("top", left, path, "--once")
    assert done.returncode == 4
    assert done.stderr == f"error: {left}: Connection refused; {path}: Connection refused\n"


def answer_with(path: Path, line: bytes) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}")
    listener.listen()

    def answer() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(1)
            connection.sendall(line)
            connection.recv(1)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not the socket of"),
        (b"[]\n", "not the socket of"),
        (b'{"version": 99}\n', "it speaks version 99"),
        (b'{"version": 1}\n', "but not well: KeyError('loops')"),
        (b'{"version": 1, "loops": [7]}\n', "but not well: TypeError"),
    ],
)
def test_something_else_there(path: Path, line: bytes, message: str) -> None:
    thread = answer_with(path, line)
    done = run("top", path, "--once")
    thread.join()
    assert done.returncode == 1
    assert message in done.stderr


def test_something_else_hides_no_process(path: Path) -> None:
    """Such as a worker of another release."""
    other = path.with_name("other.sock")
    with watched(path) as process:
        thread = answer_with(other, b'{"version": 99}\n')
        done = run("top", path, other, "--count", "2", "--interval", "0.1")
        thread.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(f"{process.pid}  ") == 2
    assert done.stdout.count(f"{other}: it speaks version 99") == 2


def test_somebody_elses(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may look at everybody's")
    path.parent.chmod(0)
    assert run("top", path).returncode == 4
    path.parent.chmod(0o700)


@pytest.mark.parametrize("arguments", [[], ["x", "--interval", "0"], ["x", "--count", "0"]])
def test_misuse(arguments: list[str]) -> None:
    assert run("top", *arguments).returncode == 2
