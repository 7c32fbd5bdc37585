"""IPython and Jupyter: cells that `await` run on our loop, which has a thread of its own.

    %load_ext aws_io_async.integrations.ipython

There is no loop to choose in Jupyter: the kernel has one running already, for itself. So this has
the cells with `await` run elsewhere: on the one loop of an `EventLoopGroup`, one cell after the
other, while the kernel waits. What cells leave behind, tasks, servers, connections, goes on between
them, and while other cells compute. Cells without `await` run where they always did; they have the
group by `current_group()`, for `current_group().submit(coroutine).result()`.

Without the extension, `await group.run(coroutine)` in a cell crosses from the kernel's loop to one
of any `EventLoopGroup`.

Needs IPython 8 or newer.
"""

import threading
from collections.abc import Coroutine
from typing import Any

from ..event_loop.group import EventLoopGroup

PATIENCE = 5.0
"""Seconds that an interrupted cell may take to clean up before the prompt comes back."""


class _Runner:
    """What IPython calls with the coroutine of a cell."""

    def __init__(self, shell: Any) -> None:
        self.group = EventLoopGroup(1)
        self._shell = shell
        self._others = shell.loop_runner, shell.autoawait
        shell.loop_runner, shell.autoawait = self, True

    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell; on Ctrl-C, or an interrupt of the kernel, it is cancelled."""
        ended = threading.Event()

        async def run() -> Any:
            try:
                return await coroutine
            finally:
                ended.set()

        future = self.group.submit(run())
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            ended.wait(PATIENCE)
            raise

    def __str__(self) -> str:
        return "aws_io_async"  # what `%autoawait` says

    def end(self) -> None:
        self._shell.loop_runner, self._shell.autoawait = self._others
        self.group.shutdown()


_runner: _Runner | None = None


def load_ipython_extension(shell: Any) -> None:
    """For `%load_ext`. Thread: the shell's."""
    global _runner
    if _runner is None:
        _runner = _Runner(shell)


def unload_ipython_extension(shell: Any) -> None:
    """For `%unload_ext`: cells run on the kernel's loop again, and what they left on ours ends."""
    global _runner
    if _runner is not None:
        runner, _runner = _runner, None
        runner.end()


def current_group() -> EventLoopGroup:
    """The group whose loop cells run on. RuntimeError if the extension is not loaded."""
    if _runner is None:
        raise RuntimeError("%load_ext aws_io_async.integrations.ipython comes first")
    return _runner.group
