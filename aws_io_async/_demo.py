"""`python -m aws_io_async demo`: files over TLS, both ends on one loop, every digest checked."""

import asyncio
import os
import selectors
import ssl
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from ._demo_certificate import HOST, make_contexts
from ._demo_files import FileServer, Received, fetch
from .event_loop._statistics import LoopStatistics
from .event_loop.entry import new_event_loop

MIB = 1024 * 1024
DEFAULT_SIZE = 64


def main(
    folder: Path | None = None,
    *,
    connections: int = 4,
    size: int | None = None,
    server: type[FileServer] = FileServer,
) -> int:
    """Move the files of `folder` and a file of `size` MiB; print what was done.

    Returns the exit status: 0, 1 if a file was damaged or the connections failed, or 2 if there is
    nothing to move. Makes and closes a loop of its own: the thread must not run one.
    """
    with tempfile.TemporaryDirectory(prefix="aws-io-async-") as temporary:
        try:
            contexts = make_contexts()
            files = _catalogue(folder, size, Path(temporary))
        except (RuntimeError, OSError) as error:
            return _fail(str(error), 2)
        total = sum(file.stat().st_size for file in files.values())
        print(f"Moving {_files(len(files))}, {total / MIB:.1f} MiB, over TLS.")
        received, failures = Received(), ""
        loop = new_event_loop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            started = time.perf_counter()
            try:
                runner.run(_move(server(files), contexts, files, connections, received, total))
            except* OSError as errors:
                failures = "; ".join(map(str, errors.exceptions))
            seconds = time.perf_counter() - started
            figures = loop.statistics()
    _print_table(received, connections, seconds)
    _print_figures(type(loop).__name__, figures)
    return _fail(failures, 1) if failures else _verdict(len(files), received)


def _catalogue(folder: Path | None, size: int | None, temporary: Path) -> dict[str, Path]:
    """What to move: files by name, the largest first. Raises OSError if there is nothing."""
    if folder is None:
        package = Path(asyncio.__file__).parent
        files = {f"asyncio/{file.name}": file for file in package.glob("*.py")}
        size = DEFAULT_SIZE if size is None else size
    elif folder.is_dir():
        found = (file for file in folder.rglob("*") if file.is_file())
        files = {str(file.relative_to(folder)): file for file in found}
    else:
        raise OSError(f"not a folder: {folder}")
    if size:
        name = f"random-{size}-MiB"
        files[name] = temporary / name
        with files[name].open("wb") as file:
            for _ in range(size):
                file.write(os.urandom(MIB))
    if not files:
        raise OSError(f"no files in {folder}")
    return dict(sorted(files.items(), key=lambda item: -item[1].stat().st_size))


async def _move(
    file_server: FileServer,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    names: Iterable[str],
    connections: int,
    received: Received,
    total: int,
) -> None:
    server_context, client_context = contexts
    server = await asyncio.start_server(file_server.serve, "127.0.0.1", 0, ssl=server_context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        left = iter(names)
        progress = asyncio.create_task(_report(received, total))
        try:
            async with asyncio.TaskGroup() as clients:
                for _ in range(connections):
                    clients.create_task(fetch(port, client_context, HOST, left, received))
        finally:
            progress.cancel()


async def _report(received: Received, total: int) -> None:
    """Print a line for every tenth of the bytes; its timer also shows the loop's lag."""
    tenth = 0
    while True:
        await asyncio.sleep(0.02)
        if total and received.bytes * 10 // total > tenth:
            tenth = received.bytes * 10 // total
            print(f"  {tenth * 10:3} %  {received.bytes / MIB:.1f} MiB", flush=True)


def _print_table(received: Received, connections: int, seconds: float) -> None:
    intact = received.files - len(received.damaged)
    rows = {
        "Files": received.files,
        "Bytes": f"{received.bytes:,}",
        "Seconds": f"{seconds:.3f}",
        "MB/s": f"{received.bytes / seconds / 1e6:.1f}",
        "Connections": connections,
        "TLS version": ", ".join(sorted({version for version, _ in received.tls})),
        "Cipher": ", ".join(sorted({cipher for _, cipher in received.tls})),
        "SHA-256 digests": f"{intact} of {received.files} match",
    }
    _print_rows("Transfer", rows)


def _print_figures(loop: str, figures: LoopStatistics) -> None:
    rows = {
        "Loop": f"{loop} on {selectors.DefaultSelector.__name__}",
        "Turns": f"{figures.turns:,}",
        "Polls": f"{figures.polls:,}",
        "Events": f"{figures.events:,}",
        "Busy seconds": f"{figures.busy_seconds:.3f}",
        "Idle seconds": f"{figures.idle_seconds:.3f}",
        "Largest lag": f"{figures.max_lag * 1000:.1f} ms",
    }
    _print_rows("The loop's own figures", rows)


def _print_rows(title: str, rows: Mapping[str, object]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:16} {value}")


def _verdict(expected: int, received: Received) -> int:
    if received.damaged:
        return _fail(f"damaged, or not readable: {', '.join(sorted(received.damaged))}", 1)
    if received.files != expected:
        return _fail(f"only {received.files} of {_files(expected)} arrived", 1)
    print(f"\nOK: {_files(received.files)} arrived intact.")
    return 0


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _fail(message: str, status: int) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    return status
