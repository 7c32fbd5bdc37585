"""The extension of IPython, in real kernels of Jupyter and in a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import aws_io_async

ROOT = Path(aws_io_async.__file__).parent.parent
LOAD = "%load_ext aws_io_async.integrations.ipython"
UNLOAD = "%unload_ext aws_io_async.integrations.ipython"
WHERE = """
import asyncio, threading
async def where():
    loop = asyncio.get_running_loop()
    return type(loop).__module__.split(".")[0], threading.current_thread().name
"""
OURS = "('aws_io_async', 'aws-io-loop-0')"
THE_KERNELS = "('asyncio', 'MainThread')"


@pytest.fixture
def run_cells(tmp_path: Path) -> "RunCells":
    return RunCells(tmp_path)


class RunCells:
    """Runs cells in a new kernel; returns what each printed, displayed or raised."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *cells: str) -> list[str]:
        pytest.importorskip("nbclient")
        pytest.importorskip("ipykernel")
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("run_notebook.py"))],
            input=json.dumps(cells),
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self._folder)},
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs: list[str] = json.loads(done.stdout)
        return outputs


def test_cells_that_await_run_on_our_loop(run_cells: RunCells) -> None:
    outputs = run_cells(
        WHERE,
        "await where()",
        LOAD,
        LOAD,
        "await where()",
        "print('printed')\nvariable = await asyncio.sleep(0, 'assigned')\n'the value'",
        "from IPython.display import display\nawait asyncio.sleep(0)\ndisplay('displayed')",
        "variable",
        "await asyncio.sleep(0)\n1 / 0",
        "%autoawait",
        UNLOAD,
        "await where()",
    )
    assert outputs[1] == THE_KERNELS
    assert outputs[4] == OURS
    assert outputs[5] == "printed\n'the value'"
    assert outputs[6] == "'displayed'"
    assert outputs[7] == "'assigned'"
    assert outputs[8] == "ZeroDivisionError: division by zero"
    assert "`aws_io_async`" in outputs[9]
    assert outputs[11] == THE_KERNELS


def test_what_a_cell_leaves_behind_goes_on(run_cells: RunCells) -> None:
    outputs = run_cells(
        LOAD,
        """
import asyncio, socket
async def hello(reader, writer):
    writer.write(b"hello")
    writer.close()
server = await asyncio.start_server(hello, "127.0.0.1", 0)
""",
        # No await: the kernel's own thread blocks, and the server answers all the same.
        "socket.create_connection(server.sockets[0].getsockname()).makefile().read()",
        "from aws_io_async.integrations.ipython import current_group",
        "current_group().submit(asyncio.sleep(0, 'the result')).result()",
        UNLOAD,
        "current_group()",
    )
    assert outputs[2] == "'hello'"
    assert outputs[4] == "'the result'"
    assert outputs[6].startswith("RuntimeError: %load_ext aws_io_async")


def test_an_interrupted_cell_is_cancelled(run_cells: RunCells) -> None:
    interrupt = "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()"
    outputs = run_cells(
        LOAD,
        "import asyncio, os, signal, threading\nsteps = []",
        f"""
{interrupt}
try:
    await asyncio.sleep(100)
except asyncio.CancelledError:
    await asyncio.sleep(0.1)
    steps.append("cleaned up")
    raise
""",
        "steps",
        "await asyncio.sleep(0, 'and so on')",
    )
    assert "KeyboardInterrupt: " in outputs[2]
    assert outputs[3] == "['cleaned up']"
    assert outputs[4] == "'and so on'"


def test_a_group_without_the_extension(run_cells: RunCells) -> None:
    outputs = run_cells(
        WHERE,
        "from aws_io_async import EventLoopGroup\ngroup = EventLoopGroup(1)",
        "await group.run(where()), await where()",
        "group.submit(where()).result()",
        "group.shutdown()",
    )
    assert outputs[2] == f"({OURS}, {THE_KERNELS})"
    assert outputs[3] == OURS


def test_ipython_in_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    lines = [
        *WHERE.strip().splitlines(),
        "",
        LOAD,
        "await where()",
        "x = await where()",
        "x",
        UNLOAD,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor"],
        input="\n".join([*lines, "exit", ""]),
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(OURS) == 2, done.stdout
