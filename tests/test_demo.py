"""The demo moves real files over TLS, proves it, and fails if one is damaged."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import aws_io_async
from aws_io_async import ChannelStream, _demo
from aws_io_async._demo_files import CHUNK, FileServer

ROOT = Path(aws_io_async.__file__).parent.parent


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aws_io_async", "demo", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def row(output: str, name: str) -> str:
    found = re.search(rf"^  {re.escape(name)} +(.*)$", output, re.MULTILINE)
    assert found, f"no {name} in: {output}"
    return found[1]


def number(text: str) -> int:
    return int(text.replace(",", ""))


def section(output: str, title: str) -> str:
    found = re.search(rf"^{re.escape(title)}\n((?:  .*\n)+)", output, re.MULTILINE)
    assert found, f"no section {title} in: {output}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files, 600,003 bytes in all."""
    content = {"empty": b"", "two\nlines ä": b"abc", "deep/er/large": os.urandom(500_000)}
    content["deep/plain"] = bytes(100_000)
    for name, data in content.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path


def test_by_default_the_standard_librarys_asyncio_is_moved() -> None:
    done = demo("--size", "2", "--connections", "3")
    assert (done.returncode, done.stderr) == (0, "")
    files = [*Path(asyncio.__file__).parent.glob("*.py")]
    count = len(files) + 1
    assert row(done.stdout, "Files") == f"{count}"
    total = sum(file.stat().st_size for file in files) + 2 * 1024 * 1024
    assert row(done.stdout, "Bytes") == f"{total:,}"
    assert row(done.stdout, "SHA-256 digests") == f"{count} of {count} match"
    assert row(done.stdout, "Connections") == "3"
    assert row(done.stdout, "Protocol") == "files/1"
    assert row(done.stdout, "TLS version") == "TLSv1.3"
    assert "AES" in row(done.stdout, "Cipher") or "CHACHA" in row(done.stdout, "Cipher")
    assert row(done.stdout, "Read window") == "256 KiB for each stream"
    assert "EventLoop" in row(done.stdout, "Loop")
    assert float(row(done.stdout, "Busy seconds")) > 0
    assert 0 < number(row(done.stdout, "Polls")) <= number(row(done.stdout, "Turns"))


def test_a_folder_with_all_that_is_in_it(folder: Path) -> None:
    done = demo(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert row(done.stdout, "Files") == "4"
    assert row(done.stdout, "Bytes") == "600,003"
    assert done.stdout.endswith("OK: 4 files arrived intact.\n")


def test_more_connections_than_files(folder: Path) -> None:
    done = demo(folder, "--connections", "9", "--size", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert row(done.stdout, "SHA-256 digests") == "5 of 5 match"


def test_statistics_of_both_ends_channels() -> None:
    done = demo("--size", "1", "--connections", "2")
    content = number(row(done.stdout, "Bytes"))
    clients = section(done.stdout, "The clients' channels")
    server = section(done.stdout, "The server's channels")
    for end in (clients, server):
        handshakes = re.fullmatch(r"2, ([\d.]+) to ([\d.]+) ms", row(end, "TLS handshakes"))
        assert handshakes
        assert 0 < float(handshakes[1]) <= float(handshakes[2])
    # TLS adds 22 bytes to each 16 KiB, and some for the handshake.
    assert content < number(row(clients, "Bytes read")) < content * 1.02
    assert content < number(row(server, "Bytes written")) < content * 1.02
    assert 0 < number(row(clients, "Bytes written")) < content * 0.02
    assert 0 < number(row(server, "Bytes read")) < content * 0.02


def test_on_loops_that_have_threads_of_their_own(folder: Path) -> None:
    done = demo(folder, "--loops", "2", "--connections", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert row(done.stdout, "SHA-256 digests") == "4 of 4 match"
    assert row(section(done.stdout, "The clients' channels"), "TLS handshakes").startswith("4, ")
    assert row(section(done.stdout, "The server's channels"), "TLS handshakes").startswith("4, ")
    figures = section(done.stdout, "The figures of 2 loops on threads")
    for name in ("Turns", "Polls", "Events"):
        one, other = map(number, row(figures, name).split())
        assert one > 0
        assert other > 0


class FlipsABit(FileServer):
    """Damages the large file on its way."""

    async def send(self, stream: ChannelStream, data: bytes) -> None:
        if len(data) > 200_000:
            data = bytes([data[0] ^ 1]) + data[1:]
        await super().send(stream, data)


class DropsAChunk(FileServer):
    """Loses the large file's beginning."""

    async def send(self, stream: ChannelStream, data: bytes) -> None:
        if len(data) != CHUNK:
            await super().send(stream, data)


@pytest.mark.parametrize("loops", [0, 2])
@pytest.mark.parametrize("server", [FlipsABit, DropsAChunk])
def test_a_damaged_file_is_named_and_fails_the_demo(
    folder: Path, capsys: pytest.CaptureFixture[str], server: type[FileServer], loops: int
) -> None:
    assert _demo.main(folder, server=server, loops=loops) == 1
    output = capsys.readouterr()
    assert row(output.out, "SHA-256 digests") == "3 of 4 match"
    assert output.err == "error: damaged, or not readable: deep/er/large\n"
    assert "OK" not in output.out


class Vanishes(FileServer):
    """Cuts the connection in the middle of a file."""

    async def send(self, stream: ChannelStream, data: bytes) -> None:
        await stream.send((1000).to_bytes(4) + b"less")
        await stream.aclose()
        raise anyio.BrokenResourceError


@pytest.mark.parametrize("loops", [0, 2])
def test_a_broken_connection_fails_the_demo(
    folder: Path, capsys: pytest.CaptureFixture[str], loops: int
) -> None:
    assert _demo.main(folder, connections=1, loops=loops, server=Vanishes) == 1
    output = capsys.readouterr()
    assert output.err == "error: a connection failed: it ended within deep/er/large\n"
    assert "OK" not in output.out


class Unreadable(FileServer):
    """Finds that a file has gone."""

    async def serve(self, stream: ChannelStream) -> None:
        for file in self._files.values():
            if file.name == "plain":
                await asyncio.to_thread(file.unlink, missing_ok=True)
        await super().serve(stream)


def test_an_unreadable_file_is_named_and_fails_the_demo(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _demo.main(folder, server=Unreadable) == 1
    output = capsys.readouterr()
    assert row(output.out, "SHA-256 digests") == "3 of 4 match"
    assert output.err == "error: damaged, or not readable: deep/plain\n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_certificate_from_the_openssl_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert _demo.main(folder) == 0
    assert row(capsys.readouterr().out, "SHA-256 digests") == "4 of 4 match"


def test_without_a_way_to_make_a_certificate(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    monkeypatch.setenv("PATH", "")
    assert _demo.main(folder) == 2
    assert 'install "aws-io-async[cli]"' in capsys.readouterr().err


@pytest.mark.parametrize("what", ["nothing there", "a file", "an empty folder"])
def test_nothing_to_move(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    path = tmp_path / "path"
    if what == "a file":
        path.write_text("content")
    elif what == "an empty folder":
        path.mkdir()
    assert _demo.main(path) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--connections", "0"], ["--size", "-1"], ["--size", "x"], ["--loops", "-1"], ["a", "b"]],
)
def test_misuse_exits_with_2(arguments: list[str]) -> None:
    done = demo(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
