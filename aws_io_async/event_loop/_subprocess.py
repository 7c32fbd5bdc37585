"""Child processes: `subprocess_exec` and `subprocess_shell`.

`subprocess.Popen` starts the child, `_child_watch` waits for its end, `_pipes` reads and writes
its standard streams. What is left to do here is to make one transport of the three, and to keep
the promised order: `connection_made`, then data, then `pipe_connection_lost` for each pipe and
`process_exited` (in any order), then `connection_lost`. There is no task behind the transport
that a program which cancels all tasks could break.
"""

import asyncio
import enum
import signal
import subprocess
import warnings
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from ._child_watch import watch_child
from ._pipes import ReadPipeTransport, WritePipeTransport
from ._scheduler import Scheduler

Command = str | bytes | tuple[Any, ...]
P = TypeVar("P", bound=asyncio.BaseProtocol)


class ChildState(enum.Enum):
    """Where a child process is in its life, seen from the loop."""

    RUNNING = "running"
    EXITED = "exited"  # reaped; pipes may still be open, with output in them
    FINISHED = "finished"  # all pipes are closed, too


_LEGAL_MOVES = {
    ChildState.RUNNING: {ChildState.EXITED},
    ChildState.EXITED: {ChildState.FINISHED},
    ChildState.FINISHED: set[ChildState](),
}


class SubprocessTransport(asyncio.SubprocessTransport):
    """A child process and the pipes to it. Thread: the loop's.

    The constructor starts the child, blocking until it has executed its program. `waiter` is done
    once the protocol knows of its transport. Raises what `subprocess.Popen` raises, and
    RuntimeError if the child cannot be watched; no child and no fd is left then.
    """

    _extra: dict[str, Any]
    _closed = True  # until there is something to close

    def __init__(
        self,
        loop: Scheduler,
        protocol: asyncio.BaseProtocol,
        args: Command,
        *,
        waiter: "asyncio.Future[None] | None" = None,
        extra: dict[str, Any] | None = None,
        **popen_kwargs: Any,
    ) -> None:
        super().__init__(extra)
        self._loop = loop
        self._protocol: Any = protocol
        self._state = ChildState.RUNNING
        self._returncode: int | None = None
        self._exit_waiters: list[asyncio.Future[int]] = []
        self._pipes: dict[int, ReadPipeTransport | WritePipeTransport] = {}
        self._open_pipes: set[int] = set()
        self._process: subprocess.Popen[bytes] = subprocess.Popen(args, **popen_kwargs)
        self._extra["subprocess"] = self._process
        try:
            watch_child(loop, self._process, self._process_exited)
        except BaseException:
            with self._process:  # closes the pipes, and reaps
                self._process.kill()
            raise
        self._closed = False
        if loop.get_debug():
            program = args[0] if isinstance(args, tuple) else args
            logger.debug("process %r created: pid %s", program, self._process.pid)
        self._connect_pipes()
        loop.call_soon(self._start, waiter)  # after the pipes' own

    def _connect_pipes(self) -> None:
        process = self._process
        if process.stdin is not None:
            protocol = _ChildPipeProtocol(self, 0)
            self._pipes[0] = WritePipeTransport(self._loop, process.stdin, protocol)
        for fd, pipe in ((1, process.stdout), (2, process.stderr)):
            if pipe is not None:
                protocol = _ChildPipeProtocol(self, fd)
                self._pipes[fd] = ReadPipeTransport(self._loop, pipe, protocol)
        self._open_pipes.update(self._pipes)

    def _start(self, waiter: "asyncio.Future[None] | None") -> None:
        try:
            self._protocol.connection_made(self)
        finally:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        info = [f"pid={self._process.pid}", self._state.value]
        if self._returncode is not None:
            info.append(f"returncode={self._returncode}")
        for fd, name in enumerate(("stdin", "stdout", "stderr")):
            if fd in self._pipes:
                info.append(f"{name}={self._pipes[fd]!r}")
        return f"<{type(self).__name__} {' '.join(info)}>"

    def __del__(self) -> None:
        if not self._closed and self._state is not ChildState.FINISHED:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self.close()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]  # Any for its optional methods

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_pid(self) -> int:
        return self._process.pid

    def get_returncode(self) -> int | None:
        return self._returncode

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return self._pipes.get(fd)

    # Signals

    def send_signal(self, signal: int) -> None:
        """Send `signal` to the child; nothing happens if it has ended in the meantime.

        Raises ProcessLookupError once `connection_lost()` was called, PermissionError if the
        child has changed its user.
        """
        if self._state is ChildState.FINISHED:
            raise ProcessLookupError(f"process {self._process.pid} has finished")
        self._process.send_signal(signal)  # looks first whether the pid is still the child's

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    # The end

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close the pipes, and kill the child if it is running; idempotent."""
        if self._closed:
            return
        self._closed = True
        for pipe in self._pipes.values():
            pipe.close()
        if self._returncode is None and self._process.poll() is None:
            if self._loop.get_debug():
                logger.warning("Close running child process: kill %r", self)
            try:
                self._process.kill()
            except PermissionError:  # it runs as somebody else by now
                pass

    async def _wait(self) -> int:
        """The return code, once the child has ended. For `asyncio.subprocess.Process.wait()`."""
        if self._returncode is not None:
            return self._returncode
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._exit_waiters.append(waiter)
        try:
            return await waiter
        finally:
            if waiter in self._exit_waiters:
                self._exit_waiters.remove(waiter)

    def _process_exited(self, returncode: int) -> None:
        if self._loop.get_debug():
            logger.info("%r exited with return code %r", self, returncode)
        self._returncode = returncode
        self._move_to(ChildState.EXITED)
        try:
            self._protocol.process_exited()
        finally:
            self._finish_if_over()
            # After connection_lost(), if that is due. Else a grandchild may hold a pipe for ever,
            # and the process has ended all the same.
            self._loop.call_soon(self._wake_exit_waiters)

    def _pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        try:
            self._protocol.pipe_connection_lost(fd, exc)
        finally:
            self._open_pipes.discard(fd)
            self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self._state is ChildState.EXITED and not self._open_pipes:
            self._move_to(ChildState.FINISHED)
            self._loop.call_soon(self._connection_lost)

    def _connection_lost(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            self._protocol = None  # which may keep us: no cycle is to be left

    def _wake_exit_waiters(self) -> None:
        waiters, self._exit_waiters = self._exit_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(self._process.returncode)

    def _move_to(self, state: ChildState) -> None:
        if state not in _LEGAL_MOVES[self._state]:
            raise AssertionError(f"{self!r} cannot become {state.value}")
        self._state = state


class _ChildPipeProtocol(asyncio.Protocol):
    """Passes on to the child's protocol what happens to one of its pipes."""

    def __init__(self, child: SubprocessTransport, fd: int) -> None:
        self._child = child
        self._fd = fd

    def data_received(self, data: bytes) -> None:
        self._child._protocol.pipe_data_received(self._fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._child._pipe_connection_lost(self._fd, exc)

    def pause_writing(self) -> None:
        self._child._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._child._protocol.resume_writing()


async def spawn(
    loop: Scheduler,
    protocol_factory: Callable[[], P],
    args: Command,
    *,
    shell: bool,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    **popen_kwargs: Any,
) -> tuple[SubprocessTransport, P]:
    """Start a child, and return once its protocol is connected.

    `args` is a command for `shell=True`, a program and its arguments otherwise; the streams and
    `popen_kwargs` are as for `subprocess.Popen`. Raises what `SubprocessTransport` raises. If the
    call is cancelled, the child is killed and reaped before CancelledError goes on; cancelled once
    more, it is reaped later on.
    """
    protocol = protocol_factory()
    description = None
    if loop.get_debug():  # not the arguments, which may hold passwords
        what = f"run shell command {args!r}" if shell else f"execute program {args[0]!r}"
        description = f"{what} {_describe_streams(stdin, stdout, stderr)}"
        logger.debug(description)
    waiter: asyncio.Future[None] = loop.create_future()
    transport = SubprocessTransport(
        loop,
        protocol,
        args,
        waiter=waiter,
        shell=shell,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        bufsize=0,
        **popen_kwargs,
    )
    try:
        await waiter
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        await transport._wait()
        raise
    if description is not None:
        logger.info("%s: %r", description, transport)
    return transport, protocol


def check_exec_options(
    *,
    shell: bool,
    universal_newlines: bool,
    bufsize: int,
    text: bool | None,
    encoding: str | None,
    errors: str | None,
) -> None:
    """Raise ValueError for options of Popen that `subprocess_exec` does not support."""
    if universal_newlines:
        raise ValueError("universal_newlines must be False")
    if shell:
        raise ValueError("shell must be False")
    _check_binary(bufsize, text, encoding, errors)


def check_shell_options(
    cmd: object,
    *,
    shell: bool,
    universal_newlines: bool,
    bufsize: int,
    text: bool | None,
    encoding: str | None,
    errors: str | None,
) -> None:
    """Raise ValueError for a command, or options, that `subprocess_shell` does not support."""
    if not isinstance(cmd, bytes | str):
        raise ValueError("cmd must be a string")
    if universal_newlines:
        raise ValueError("universal_newlines must be False")
    if not shell:
        raise ValueError("shell must be True")
    _check_binary(bufsize, text, encoding, errors)


def _check_binary(
    bufsize: int, text: bool | None, encoding: str | None, errors: str | None
) -> None:
    if bufsize != 0:
        raise ValueError("bufsize must be 0")
    if text:
        raise ValueError("text must be False")
    if encoding is not None:
        raise ValueError("encoding must be None")
    if errors is not None:
        raise ValueError("errors must be None")


def _describe_streams(stdin: Any, stdout: Any, stderr: Any) -> str:
    info = []
    if stdin is not None:
        info.append(f"stdin={_describe_stream(stdin)}")
    if stdout is not None and stderr == subprocess.STDOUT:
        info.append(f"stdout=stderr={_describe_stream(stdout)}")
    else:
        if stdout is not None:
            info.append(f"stdout={_describe_stream(stdout)}")
        if stderr is not None:
            info.append(f"stderr={_describe_stream(stderr)}")
    return " ".join(info)


def _describe_stream(stream: Any) -> str:
    names = {subprocess.PIPE: "<pipe>", subprocess.STDOUT: "<stdout>"}
    return names.get(stream) or repr(stream)
