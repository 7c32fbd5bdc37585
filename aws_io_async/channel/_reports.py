"""Statistics of a channel, gathered from its handlers and reported at an interval."""

import asyncio
from typing import TYPE_CHECKING

from ..statistics import SampleInterval, StatisticsHandler
from ._handler import ChannelHandler

if TYPE_CHECKING:
    from ._channel import Channel


class Reports:
    """Calls a statistics handler again and again. Thread: the channel's."""

    __slots__ = ("_begin_ms", "_channel", "_handler", "_timer")

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._handler: StatisticsHandler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begin_ms = 0

    def set_handler(self, handler: StatisticsHandler | None) -> None:
        """Report to `handler` from now on, which is this object's to close; None: to nobody.

        TypeError for what is no handler, ValueError for an interval that is not positive.
        """
        if handler is not None:
            if not isinstance(handler, StatisticsHandler):
                raise TypeError(f"a channel reports to a StatisticsHandler, not to {handler!r}")
            if not handler.report_interval_ms > 0:
                raise ValueError(f"report_interval_ms of {handler!r} must be positive")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        old, self._handler = self._handler, handler
        if handler is not None:
            self._reset(self._now_ms())
            self._schedule(handler)
        if old is not None:
            old.close()

    def _schedule(self, handler: StatisticsHandler) -> None:
        delay = handler.report_interval_ms / 1000
        self._timer = self._channel.loop.call_later(delay, self._report)

    def _report(self) -> None:
        handler, self._timer = self._handler, None
        if handler is None or self._channel._shutdown is not None:
            return  # who is told might judge a channel that ends as one that is ill
        interval = SampleInterval(self._begin_ms, self._now_ms())
        try:
            handler.process_statistics(interval, self.gather(), self._channel)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._channel._report_failure(handler, exc)
        self._reset(interval.end_ms)
        if self._handler is handler and self._timer is None:
            self._schedule(handler)

    def gather(self) -> list[object]:
        """The figures of the handlers that have some, left to right."""
        call = self._channel._call
        found = [call(handler.gather_statistics) for handler in self._handlers()]
        return [statistics for statistics in found if statistics is not None]

    def _reset(self, begin_ms: int) -> None:
        self._begin_ms = begin_ms
        for handler in self._handlers():
            self._channel._call(handler.reset_statistics)

    def _handlers(self) -> list[ChannelHandler]:
        return [slot.handler for slot in self._channel.slots() if slot.handler is not None]

    def _now_ms(self) -> int:
        return self._channel.current_clock_time() // 1_000_000
