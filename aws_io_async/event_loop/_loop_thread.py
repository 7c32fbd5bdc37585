"""One thread of a group: it makes a loop, runs it until told to stop, cleans up and closes it.

The threads are daemons, so that an interpreter that exits does not wait for them before it has
called the exit handler of their group, which stops them.
"""

import asyncio
import threading
from asyncio.log import logger
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context

from .. import log
from ._cpu import pin_this_thread
from ._crossing import refuse_crossings

subject = log.logger(log.LogSubject.EVENT_LOOP)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class LoopThread:
    """A running thread and its running loop.

    The loop is made on the thread, in an empty context, and after `cpu`, if given, was pinned.
    What fails before the loop runs is raised by the constructor, with no thread left.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, name: str, new_loop: LoopFactory, cpu: int | None = None) -> None:
        self.ended: Future[None] = Future()
        """Done once the loop is closed; cancelling it does nothing."""
        self.ended.set_running_or_notify_cancel()
        self._new_loop = new_loop
        self._cpu = cpu
        self._started: Future[None] = Future()
        self._stopping = False
        self._exiting = False
        self._thread = threading.Thread(
            target=Context().run, args=(self._main,), name=name, daemon=True
        )
        self._thread.start()
        try:
            self._started.result()
        except BaseException:  # of the thread, or Ctrl-C here
            self.stop()
            self._thread.join()
            raise

    @property
    def name(self) -> str:
        return self._thread.name

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def stop(self, *, exiting: bool = False) -> None:
        """Have the loop cancel its tasks, clean up and close. To be called once. Thread: any."""
        self._exiting = exiting
        self._stopping = True
        if hasattr(self, "loop"):
            try:
                self.loop.call_soon_threadsafe(self.loop.stop)
            except RuntimeError:  # closed: it has failed before
                pass

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most `timeout` seconds; says whether it has come. Not from here."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            if self._cpu is not None:
                pin_this_thread(self._cpu)
            with asyncio.Runner(loop_factory=self._checked_new_loop) as runner:
                self.loop = runner.get_loop()
                self.loop.call_soon(self._started.set_result, None)
                subject.debug("%s runs %r", self.name, self.loop)
                try:
                    self._run_until_told()
                finally:
                    refuse_crossings(self.loop)
        except BaseException as exc:
            self._failed(exc)
        finally:
            subject.debug("%s has ended", self.name)
            self.ended.set_result(None)

    def _checked_new_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._new_loop()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop_factory returned {loop!r}, which is no event loop")
        if loop.is_running() or loop.is_closed():
            raise RuntimeError(f"loop_factory returned {loop!r}: it must make a new loop each time")
        return loop

    def _run_until_told(self) -> None:
        """Neither a task that calls `sys.exit()` nor one that stops the loop ends the others'."""
        while not self._stopping:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as exc:
                logger.error("%s goes on after %r in a callback", self.name, exc, exc_info=exc)
            else:
                if not self._stopping:
                    logger.warning(
                        "%s goes on after a call of its loop's stop(): shut down the group instead",
                        self.name,
                    )

    def _failed(self, exc: BaseException) -> None:
        if not self._started.done():
            self._started.set_exception(exc)
        elif not (self._exiting and isinstance(exc, RuntimeError)):
            logger.error("%s ended with %r", self.name, exc, exc_info=exc)
        # else: Python 3.12 starts no thread while it exits, so the default executor could not be
        # waited for. It need not be: the interpreter has joined its threads before.
