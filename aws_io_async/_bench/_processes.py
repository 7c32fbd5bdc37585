"""Other processes: started on a CPU, spoken with by lines, never left behind."""

import contextlib
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from ._child import NOT_AVAILABLE
from ._machine import pinned

CHILD = str(Path(__file__).with_name("_child.py"))
PATIENCE = 60.0
"""Seconds that a process may take to say something, beyond what it was told to take."""

GRACE = 1.0
"""Seconds that a process gets to end, after its connections have."""

TAIL = 200
"""Characters of a failed process's last line that are shown."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessError(Exception):
    """A process did not do its part; says which, and how it ended."""


class NotAvailableError(Exception):
    """What was to be measured is not there, or cannot do this; says what is missing."""


class Process:
    """See `running`."""

    def __init__(self, what: str, command: Sequence[str], cpu: int | None) -> None:
        self._what = what
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._unread = b""
        try:
            with pinned(cpu):
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    bufsize=0,
                )
        except OSError as error:
            self._errors.close()
            raise ProcessError(f"{what} did not start: {error}") from None
        self.pid = self._process.pid

    def line(self, timeout: float = 0.0) -> str:
        """The next line that it prints, within `timeout` seconds and some more.

        Raises ProcessError if it ends instead or takes too long, NotAvailableError if it says so.
        """
        deadline = time.monotonic() + timeout + PATIENCE
        while b"\n" not in self._unread:
            if not self._read(deadline):
                self._process.wait()
                self.check()
                raise ProcessError(f"{self._what} ended too early{self.last_words()}")
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def rest(self, timeout: float) -> str:
        """All that it prints until it ends, which is to be well, and within `timeout` seconds.

        Raises as `line` does.
        """
        deadline = time.monotonic() + timeout + PATIENCE
        while self._read(deadline):
            pass
        self._process.wait()
        self.check()
        return self._unread.decode()

    def tell(self, line: str = "") -> None:
        """Write a line to its stdin. Raises ProcessError if it has ended."""
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            self._process.wait()
            self.check()
            raise ProcessError(f"{self._what} does not listen{self.last_words()}") from None

    def check(self, grace: float = 0.0) -> None:
        """Raise ProcessError or NotAvailableError if it has ended badly, within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        status = self._process.returncode
        if status == NOT_AVAILABLE:
            raise NotAvailableError(self.last_words().removeprefix(": "))
        if status:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise ProcessError(f"{self._what} ended by {how}{self.last_words()}")

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            assert file
            file.close()

    def _read(self, deadline: float) -> bool:
        """Wait for more of what it prints; False if that has come to its end."""
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise ProcessError(f"{self._what} hangs{self.last_words()}")
        data = self._process.stdout.read(65536)
        self._unread += data or b""
        return bool(data)

    def last_words(self, who: str = "") -> str:
        """The last line that it wrote to stderr, after `who` and a colon; empty if it did not."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        words = next(filter(None, map(str.rstrip, reversed(lines))), "")
        return f"{who}: {words[-TAIL:]}" if words else ""


@contextlib.contextmanager
def running(what: str, command: Sequence[str], cpu: int | None) -> Iterator[Process]:
    """Start `command` on a CPU, and kill it at the end of the block, however that comes.

    `what` is its name in errors. Raises ProcessError if it cannot be started.
    """
    with contextlib.ExitStack() as stack:
        with _undisturbed():
            process = Process(what, command, cpu)
            stack.callback(process.close)
        yield process


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off signals to the end of the block: what it starts is not lost to who must end it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    handled = [number for number in ENDING if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


@contextlib.contextmanager
def served_by(server: Process) -> Iterator[None]:
    """Explain a failure of what uses `server` by what has become of that."""
    try:
        yield
    except ProcessError as error:
        server.check(GRACE)
        raise ProcessError(f"{error}{server.last_words('; the server')}") from None


def python_command(
    part: str, *arguments: str, python: str = sys.executable, life: float
) -> list[str]:
    """What runs a part of the benchmark, for `life` seconds at most (and some more)."""
    return [python, CHILD, str(round(life + 2 * PATIENCE)), part, *arguments]
