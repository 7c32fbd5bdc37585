"""Running the commands: piped, going on in the background, and at a terminal of their own."""

import fcntl
import os
import pty
import re
import selectors
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import aws_io_async

ROOT = Path(aws_io_async.__file__).parent.parent
PROGRAM = [sys.executable, "-W", "error", "-m", "aws_io_async"]
PATIENCE = 50.0
"""Seconds after which something that should have happened is missed."""

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-_])")

# Makes the terminal on stdin the process's own, so that Ctrl-C typed there is a signal for it.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def environment(**changes: str) -> dict[str, str]:
    """This process's, with the package to test on the path."""
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}", "TERM": "xterm-256color", **changes}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        variables.pop(name, None)
    return variables


def run(
    *arguments: str | Path, input: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with pipes; what it says must be UTF-8."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        input=input,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        env=env or environment(),
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in errors, errors
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


class Running:
    """A command that goes on, with pipes."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def line(self) -> str:
        """The next line on stdout, once it is there."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def line_with(self, text: str) -> str:
        """The first of the next lines that has the text."""
        while text not in (line := self.line()):
            assert line, f"it has ended, and not said {text!r}"
        return line

    def type(self, text: str) -> None:
        """Write to stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal; its status, and the rest of what it said."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        """Its status at its end, and the rest of what it said."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert "Traceback" not in errors, errors
        return self.process.returncode, output, errors


@contextmanager
def running(*arguments: str | Path) -> Iterator[Running]:
    """A command that is told to end at the end of the block, if it has not done so by then."""
    command = Running(*arguments)
    try:
        yield command
    finally:
        command.process.terminate()  # it may have files to clean up
        try:
            command.process.communicate(timeout=PATIENCE)
        finally:
            command.process.kill()


class Terminal:
    """A pseudo-terminal, and a program that has it as its own."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], columns: int = 160
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0

    @property
    def text(self) -> str:
        """All that was shown so far, without escape sequences."""
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Read until what was shown since the last match has another."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.compile(pattern).search(self.text, self._seen)):
            assert self._read(deadline - time.monotonic()), f"no {pattern!r} in: {self.text!r}"
        self._seen = found.end()
        return found

    def _read(self, timeout: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._master, selectors.EVENT_READ)
            if not selector.select(max(0.0, timeout)):
                return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the last one who had the terminal has closed it
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)

    def type(self, text: str) -> None:
        """As if at its keyboard; "\\x03" is Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._master, text.encode())

    def wait(self) -> int:
        """The program's status at its end. What it shows until then is read."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        status = self.process.wait(timeout=PATIENCE)
        assert "Traceback" not in self.text, self.text
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(
    *arguments: str | Path,
    program: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    columns: int = 160,
) -> Iterator[Terminal]:
    """A command, or another program, at a terminal; it is killed at the end of the block."""
    command = [*(program or PROGRAM), *map(str, arguments)]
    started = Terminal(command, env or environment(), columns)
    try:
        yield started
    finally:
        started.close()


def without(module: str, folder: Path) -> dict[str, str]:
    """An environment in which a module cannot be imported."""
    (folder / f"{module}.py").write_text(f"raise ImportError('no {module} here', name={module!r})")
    return environment(PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")
