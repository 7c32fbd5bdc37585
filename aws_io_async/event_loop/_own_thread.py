"""A loop that runs on a thread of its own, until it is stopped; and again, if wanted."""

import threading
from contextvars import Context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._crt_loop import CrtLoop


class OwnThread:
    """The thread that runs one loop, one at a time. Thread: see each method."""

    def __init__(self, loop: "CrtLoop") -> None:
        self._loop = loop
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._error: BaseException | None = None

    def start(self, name: str) -> None:
        """Return once the loop runs. Not from two threads at once."""
        self.join()
        # A stop() too many was about the run before, and what ended that is no news of this one.
        self._loop._stopping = False
        self._error = None
        self._started.clear()
        # A daemon, so that a program that forgets its loop can end.
        thread = threading.Thread(target=Context().run, args=(self._main,), name=name, daemon=True)
        thread.start()
        self._thread = thread
        self._started.wait()

    def _main(self) -> None:
        try:
            self._loop.call_soon(self._started.set)
            self._loop.run_forever()
        except BaseException as exc:
            self._error = exc
        finally:
            self._started.set()

    def wait(self) -> None:
        """Wait until the thread has ended, and raise what ended it if that was no stop()."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("the event loop's own thread would wait for its own end")
        self.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def join(self) -> None:
        """Wait until the thread, if there is one, has ended."""
        thread = self._thread
        if thread is not None:
            thread.join()
            self._thread = None

    def disown(self) -> None:
        """This process is a forked child: it has not got the thread."""
        self._thread = None
