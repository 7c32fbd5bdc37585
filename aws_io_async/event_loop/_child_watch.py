"""Waiting for a child process to end, without SIGCHLD and without blocking the loop.

On Linux a pidfd becomes readable when the child ends, and the loop polls it. Where there is none
(macOS, kernels before 5.3, a seccomp filter, no fd left) a daemon thread blocks in `waitpid`. Both
ways the loop reports the end from its ready queue. Exactly one child is ever waited for, so other
code may have children and wait for them as it likes.

Someone else may reap the child first: `Popen.poll()` does, and so does the kernel if SIGCHLD is
ignored. Popen then has the return code; if it has none, 255 stands for the one that is lost.
"""

import os
import subprocess
import sys
import threading
from asyncio.log import logger
from collections.abc import Callable

from ._scheduler import Scheduler

UNKNOWN_RETURNCODE = 255
"""As in asyncio: reported for a child that someone else has reaped."""

Popen = subprocess.Popen[bytes]
OnExit = Callable[[int], object]


def watch_child(loop: Scheduler, process: Popen, on_exit: OnExit) -> None:
    """Reap `process` when it ends, and call `on_exit(returncode)` once, from the ready queue.

    Thread: the loop's. If the loop is closed first, `on_exit` is never called and a warning is
    logged. Raises RuntimeError if a thread is needed and cannot be started.
    """
    pidfd = _open_pidfd(process.pid)
    if pidfd is None:
        _watch_by_thread(loop, process, on_exit)
        return
    watch = _PidfdWatch(loop, process, on_exit, pidfd)
    try:
        loop._add_reader(pidfd, watch.readable)
    except OSError:  # the user's epoll watches are used up
        watch.close()
        _watch_by_thread(loop, process, on_exit)


def _open_pidfd(pid: int) -> int | None:
    if sys.platform == "linux":
        try:
            return os.pidfd_open(pid)
        except (AttributeError, OSError):  # an interpreter or a kernel without it, or see the head
            pass
    return None


class _PidfdWatch:
    """The owner of a pidfd. The loop's table of readers keeps it, and lets go of it at close."""

    __slots__ = ("_fd", "_loop", "_on_exit", "_process")

    def __init__(self, loop: Scheduler, process: Popen, on_exit: OnExit, fd: int) -> None:
        self._loop = loop
        self._process = process
        self._on_exit = on_exit
        self._fd = fd

    def readable(self) -> None:
        """The child has ended."""
        self._loop._remove_reader(self._fd)
        self.close()
        # By the ready queue: the child may have ended before its protocol is connected.
        self._loop.call_soon(_report, self._process, _wait(self._process), self._on_exit)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            if self._loop.is_closed():
                _warn_of_closed_loop(self._loop, self._process)
            self.close()


def _watch_by_thread(loop: Scheduler, process: Popen, on_exit: OnExit) -> None:
    threading.Thread(
        target=_wait_in_thread,
        name=f"waitpid-{process.pid}",
        args=(loop, process, on_exit),
        daemon=True,
    ).start()


def _wait_in_thread(loop: Scheduler, process: Popen, on_exit: OnExit) -> None:
    returncode = _wait(process)
    try:
        loop.call_soon_threadsafe(_report, process, returncode, on_exit)
    except RuntimeError:  # closed
        if returncode is not None:
            process.returncode = returncode
        _warn_of_closed_loop(loop, process)


def _wait(process: Popen) -> int | None:
    """Block until the child has ended; its return code, or None if someone else has it."""
    try:
        _, status = os.waitpid(process.pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)


def _report(process: Popen, returncode: int | None, on_exit: OnExit) -> None:
    if returncode is None:
        returncode = process.returncode
    if returncode is None:
        logger.warning(
            "child process pid %d exit status already read: will report returncode %d",
            process.pid,
            UNKNOWN_RETURNCODE,
        )
        returncode = UNKNOWN_RETURNCODE
    process.returncode = returncode
    on_exit(returncode)


def _warn_of_closed_loop(loop: Scheduler, process: Popen) -> None:
    logger.warning("Loop %r that handles pid %r is closed", loop, process.pid)
