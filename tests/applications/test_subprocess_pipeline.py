"""Pipelines of processes by asyncio's own calls: the same on each loop."""

import asyncio
import gzip
import itertools
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from pathlib import Path

import pytest

from tests.applications.traffic import KIB, MIB, blob, digest

Commands = tuple[tuple[str, ...], ...]
ROUND_TRIP: Commands = (("cat",), ("gzip", "-1c"), ("gzip", "-dc"))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Move everything from one process to the next, then close its input."""
    while data := await reader.read(64 * KIB):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def feed(data: bytes, process: Process) -> None:
    assert process.stdin is not None
    for start in range(0, len(data), 100_000):
        process.stdin.write(data[start : start + 100_000])
        await process.stdin.drain()
    process.stdin.close()
    await process.stdin.wait_closed()


async def drain(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.read()


# Streams


async def test_a_pipeline_pumped_through_streams() -> None:
    data = blob(4 * MIB)
    stages = [
        await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        for command in ROUND_TRIP
    ]
    async with asyncio.TaskGroup() as group:
        group.create_task(feed(data, stages[0]))
        for left, right in itertools.pairwise(stages):
            assert left.stdout is not None
            assert right.stdin is not None
            group.create_task(pump(left.stdout, right.stdin))
        output = group.create_task(drain(stages[-1]))
    assert digest(output.result()) == digest(data)
    assert [await stage.wait() for stage in stages] == [0, 0, 0]


async def test_a_pipeline_on_pipes_of_the_kernel() -> None:
    data = blob(4 * MIB)
    (first_out, second_in), (second_out, third_in) = (os.pipe()[::-1] for _ in range(2))
    ends = ((PIPE, first_out), (second_in, second_out), (third_in, PIPE))
    stages = []
    for command, (stdin, stdout) in zip(ROUND_TRIP, ends, strict=True):
        stages.append(await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=stdout))
    for fd in (first_out, second_in, second_out, third_in):
        os.close(fd)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed(data, stages[0]))
        output = group.create_task(drain(stages[-1]))
    assert digest(output.result()) == digest(data)
    assert [await stage.wait() for stage in stages] == [0, 0, 0]


async def test_communicate_with_a_shell_pipeline() -> None:
    data = b"the quick brown fox\n" * 100_000
    process = await asyncio.create_subprocess_shell(
        "cat | gzip -1c | gzip -dc | tr a-z A-Z; echo done >&2; exit 3",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    output, errors = await process.communicate(data)
    assert digest(output) == digest(data.upper())
    assert errors == b"done\n"
    assert process.returncode == 3


async def test_many_processes_at_once() -> None:
    async def compressed(data: bytes) -> bytes:
        process = await asyncio.create_subprocess_exec("gzip", "-1c", stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(data)
        assert process.returncode == 0
        return output

    blobs = [blob(200 * KIB, seed) for seed in range(12)]
    outputs = await asyncio.gather(*map(compressed, blobs))
    assert [gzip.decompress(output) for output in outputs] == blobs


async def test_lines_back_and_forth() -> None:
    echo = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", echo, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(100, 200):
        process.stdin.write(b"%d\n" % number)
        assert await process.stdout.readline() == str(number)[::-1].encode() + b"\n"
    process.stdin.close()
    assert await process.stdout.readline() == b""
    assert await process.wait() == 0


async def test_both_outputs_full_at_once() -> None:
    script = "import sys; sys.stdout.write('o' * 2**20); sys.stderr.write('e' * 2**20)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    assert await process.communicate() == (b"o" * MIB, b"e" * MIB)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=PIPE, stderr=STDOUT
    )
    output, errors = await process.communicate()
    assert len(output) == 2 * MIB
    assert not errors


async def test_a_reader_that_waits_holds_the_process_back() -> None:
    process = await asyncio.create_subprocess_exec("yes", stdout=PIPE, limit=4 * KIB)
    assert process.stdout is not None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.2)  # it writes, nobody reads
    assert await process.stdout.readexactly(MIB) == b"y\n" * (MIB // 2)
    process.kill()
    assert len(await process.stdout.read()) < 4 * MIB  # what had been written before
    assert await process.wait() == -signal.SIGKILL


async def test_files_environment_and_working_directory(tmp_path: Path) -> None:
    data = blob(2 * MIB)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        process = await asyncio.create_subprocess_exec("gzip", "-1c", stdin=stdin, stdout=stdout)
        assert await process.wait() == 0
    assert digest(gzip.decompress((tmp_path / "out").read_bytes())) == digest(data)
    process = await asyncio.create_subprocess_shell(
        'echo "$GREETING"; ls', cwd=tmp_path, env={**os.environ, "GREETING": "hi"}, stdout=PIPE
    )
    assert (await process.communicate())[0] == b"hi\nin\nout\n"


# Ends before the end


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop raises RuntimeError at the write
async def test_the_middle_of_a_pipeline_killed_half_way() -> None:
    first = await asyncio.create_subprocess_exec("yes", stdout=PIPE)
    middle = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    last = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    assert first.stdout is not None
    assert middle.stdin is not None
    assert middle.stdout is not None
    assert last.stdin is not None
    assert last.stdout is not None
    inward = asyncio.ensure_future(pump(first.stdout, middle.stdin))
    outward = asyncio.ensure_future(pump(middle.stdout, last.stdin))
    assert await last.stdout.readexactly(MIB) == b"y\n" * (MIB // 2)
    middle.kill()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await inward
    rest = await last.stdout.read()  # to the end: what was under way still comes
    assert set(rest) <= set(b"y\n")
    await outward
    assert await middle.wait() == -signal.SIGKILL
    assert await last.wait() == 0
    first.terminate()
    await first.stdout.read()
    assert await first.wait() == -signal.SIGTERM


async def test_a_process_that_does_not_read_all_its_input() -> None:
    process = await asyncio.create_subprocess_exec("head", "-c", "10", stdin=PIPE, stdout=PIPE)
    output, _ = await process.communicate(b"0123456789" * MIB)  # the rest is dropped
    assert output == b"0123456789"
    assert process.returncode == 0


async def test_a_communicate_that_times_out_can_be_taken_up_again() -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await process.wait()
    assert process.returncode is None
    assert (await process.communicate(b"still there"))[0] == b"still there"
    assert process.returncode == 0


async def test_a_cancelled_communicate_and_a_kill() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "1000", stdout=PIPE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.communicate(), 0.1)
    process.kill()
    assert (await process.communicate())[0] == b""
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


async def test_a_process_handles_a_signal() -> None:
    process = await asyncio.create_subprocess_shell(
        "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done", stdout=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert await process.stdout.read() == b"caught\n"
    assert await process.wait() == 7


async def test_a_program_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("no-such-program", stdin=PIPE, stdout=PIPE)
