"""`python -m aws_io_async demo`: files over TLS channels, every digest checked."""

import asyncio
import contextlib
import json
import os
import selectors
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ._demo_certificate import HOST, make_contexts
from ._demo_files import FileServer, Received, fetch
from .channel_stream import WINDOW, serve
from .event_loop._loop import EventLoop
from .event_loop._statistics import LoopStatistics
from .event_loop.entry import new_event_loop
from .event_loop.group import EventLoopGroup
from .statistics import SocketStatistics, TlsNegotiationStatus, TlsStatistics
from .tls_context import TlsConnectionOptions, TlsContext

MIB = 1024 * 1024
DEFAULT_SIZE = 64


def main(
    folder: Path | None = None,
    *,
    connections: int = 4,
    size: int | None = None,
    loops: int = 0,
    as_json: bool = False,
    server: type[FileServer] = FileServer,
) -> int:
    """Move the files of `folder` and a file of `size` MiB; print what was done.

    The channels are on `loops` loops, each on a thread of its own, or on the loop that also does
    all the rest if that is 0. Returns the exit status: 0, 1 if a file was damaged or the
    connections failed, or 2 if there is nothing to move. Makes and closes a loop of its own: the
    thread must not run one.
    """
    with tempfile.TemporaryDirectory(prefix="aws-io-async-") as temporary:
        try:
            contexts = make_contexts()
            files = _catalogue(folder, size, Path(temporary))
        except (RuntimeError, OSError) as error:
            return _fail(str(error), 2)
        total = sum(file.stat().st_size for file in files.values())
        if not as_json:
            print(f"Moving {_files(len(files))}, {total / MIB:.1f} MiB, over TLS.")
        file_server, failures = server(files), ""
        received = [Received() for _ in range(connections)]
        own_loop = new_event_loop()
        group = EventLoopGroup(loops) if loops else None
        with (
            group or contextlib.nullcontext(),
            asyncio.Runner(loop_factory=lambda: own_loop) as runner,
        ):
            started = time.perf_counter()
            try:
                shown = 0 if as_json else total
                runner.run(_move(file_server, contexts, deque(files), received, shown, group))
            except* OSError as errors:
                failures = "; ".join(map(str, errors.exceptions))
            seconds = time.perf_counter() - started
            figures = [_figures(loop) for loop in group or [own_loop]]
    wrong = failures or _whats_wrong(len(files), received)
    if as_json:
        print(json.dumps(_document(received, seconds, figures, wrong)))
    else:
        _print_table(received, seconds)
        _print_channels("The clients' channels", [each.statistics for each in received])
        _print_channels("The server's channels", file_server.statistics)
        _print_figures(figures)
    if wrong:
        return _fail(wrong, 1)
    if not as_json:
        print(f"\nOK: {_files(len(files))} arrived intact.")
    return 0


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
    contexts: tuple[TlsContext, TlsContext],
    names: deque[str],
    received: Sequence[Received],
    shown: int,
    group: EventLoopGroup | None,
) -> None:
    """Fetch all files, on as many connections as there are `received`, from loops of `group`.

    The progress is told as parts of `shown` bytes, if there are any.
    """
    server_context, client_context = contexts
    tls = TlsConnectionOptions(client_context, server_name=HOST)
    group = group or EventLoopGroup.current()
    async with serve(
        file_server.serve, "127.0.0.1", tls=server_context, event_loop_group=group, window=WINDOW
    ) as listener:
        progress = asyncio.create_task(_report(received, shown))
        try:
            async with asyncio.TaskGroup() as clients:
                for number, each in enumerate(received):
                    client = fetch(listener.endpoint.port, tls, names, each)
                    loop = group.get_loop_at(number % group.loop_count)
                    clients.create_task(group.run(client, loop))
        finally:
            progress.cancel()


async def _report(received: Sequence[Received], total: int) -> None:
    """Print a line for every tenth of the bytes; its timer also shows the loop's lag."""
    tenth = 0
    while True:
        await asyncio.sleep(0.02)
        so_far = sum(each.bytes for each in received)
        if total and so_far * 10 // total > tenth:
            tenth = so_far * 10 // total
            print(f"  {tenth * 10:3} %  {so_far / MIB:.1f} MiB", flush=True)


def _print_table(received: Sequence[Received], seconds: float) -> None:
    files = sum(each.files for each in received)
    total = sum(each.bytes for each in received)
    rows = {
        "Files": files,
        "Bytes": f"{total:,}",
        "Seconds": f"{seconds:.3f}",
        "MB/s": f"{total / seconds / 1e6:.1f}",
        "Connections": len(received),
        "Protocol": _distinct(each.protocol for each in received),
        "TLS version": _distinct(each.tls_version for each in received),
        "Cipher": _distinct(each.cipher for each in received),
        "Read window": f"{WINDOW // 1024} KiB for each stream",
        "SHA-256 digests": f"{files - len(_damaged(received))} of {files} match",
    }
    _print_rows("Transfer", rows)


def _print_channels(title: str, channels: Iterable[Iterable[object]]) -> None:
    """What the handlers of channels have counted, together."""
    records = [record for statistics in channels for record in statistics]
    sockets = [record for record in records if isinstance(record, SocketStatistics)]
    milliseconds = sorted(
        (record.handshake_end_ns - record.handshake_start_ns) / 1e6
        for record in records
        if isinstance(record, TlsStatistics)
        and record.handshake_status is TlsNegotiationStatus.SUCCESS
    )
    rows = {
        "Bytes read": f"{sum(record.bytes_read for record in sockets):,}",
        "Bytes written": f"{sum(record.bytes_written for record in sockets):,}",
        "TLS handshakes": f"{len(milliseconds)}",
    }
    if milliseconds:
        rows["TLS handshakes"] += f", {milliseconds[0]:.1f} to {milliseconds[-1]:.1f} ms"
    _print_rows(title, rows)


def _figures(loop: asyncio.AbstractEventLoop) -> LoopStatistics:
    assert isinstance(loop, EventLoop)
    return loop.statistics()


def _print_figures(loops: Sequence[LoopStatistics]) -> None:
    """A column for each loop."""
    columns = {
        "Turns": [f"{loop.turns:,}" for loop in loops],
        "Polls": [f"{loop.polls:,}" for loop in loops],
        "Events": [f"{loop.events:,}" for loop in loops],
        "Busy seconds": [f"{loop.busy_seconds:.3f}" for loop in loops],
        "Idle seconds": [f"{loop.idle_seconds:.3f}" for loop in loops],
        "Largest lag": [f"{loop.max_lag * 1000:.1f} ms" for loop in loops],
    }
    rows = {"Loop": f"{EventLoop.__name__} on {selectors.DefaultSelector.__name__}"}
    for name, column in columns.items():
        rows[name] = "".join(f"{value:10}" for value in column).rstrip()
    one = len(loops) == 1
    _print_rows(
        "The loop's own figures" if one else f"The figures of {len(loops)} loops on threads", rows
    )


def _print_rows(title: str, rows: Mapping[str, object]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:16} {value}")


def _whats_wrong(expected: int, received: Sequence[Received]) -> str:
    if damaged := _damaged(received):
        return f"damaged, or not readable: {', '.join(damaged)}"
    if (files := sum(each.files for each in received)) != expected:
        return f"only {files} of {_files(expected)} arrived"
    return ""


def _document(
    received: Sequence[Received], seconds: float, loops: Sequence[LoopStatistics], wrong: str
) -> dict[str, Any]:
    """As docs/schemas/demo.json has it."""
    return {
        "files": sum(each.files for each in received),
        "bytes": sum(each.bytes for each in received),
        "seconds": seconds,
        "connections": len(received),
        "protocol": _distinct(each.protocol for each in received),
        "tls_version": _distinct(each.tls_version for each in received),
        "cipher": _distinct(each.cipher for each in received),
        "damaged": _damaged(received),
        "loops": [{**asdict(loop), "busy_seconds": loop.busy_seconds} for loop in loops],
        "error": wrong or None,
    }


def _damaged(received: Iterable[Received]) -> list[str]:
    return sorted(name for each in received for name in each.damaged)


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted({*values} - {""}))


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _fail(message: str, status: int) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    return status
