"""What channels have moved, in the log."""

import logging
from collections.abc import Sequence

from .. import log
from ..channel import Channel
from ..statistics import (
    SampleInterval,
    SocketStatistics,
    StatisticsHandler,
    TlsNegotiationStatus,
    TlsStatistics,
)

_UNDECIDED = (TlsNegotiationStatus.NONE, TlsNegotiationStatus.ONGOING)


class LoggingStatisticsHandler(StatisticsHandler):
    """Writes a line to the log for each interval of a channel.

        channel.set_statistics_handler(LoggingStatisticsHandler(interval=10))

    It has the bytes of the socket, how the TLS handshake went, once it is over, and the records of
    other handlers by their `repr`. `interval` is in seconds, `level` one of `logging`'s; `logger`
    is by default `aws_io_async.channel`. A handler is for one channel. Raises ValueError if the
    interval is less than a millisecond.
    """

    def __init__(
        self,
        *,
        interval: float = 60.0,
        level: int = logging.INFO,
        logger: logging.Logger | None = None,
    ) -> None:
        if not interval >= 0.001:
            raise ValueError(f"interval must be a millisecond or more, not {interval!r} seconds")
        self.report_interval_ms = round(interval * 1000)
        self._level = level
        self._logger = logger or log.logger(log.LogSubject.CHANNEL)
        self._told_handshake = False

    def process_statistics(
        self, interval: SampleInterval, statistics: Sequence[object], channel: Channel
    ) -> None:
        if not self._logger.isEnabledFor(self._level):
            return
        seconds = (interval.end_ms - interval.begin_ms) / 1000
        told = [text for record in statistics if (text := self._tell(record))]
        if told:
            self._logger.log(self._level, "%r, %.3g s: %s", channel, seconds, "; ".join(told))

    def _tell(self, record: object) -> str:
        if isinstance(record, SocketStatistics):
            return f"{record.bytes_read} bytes read, {record.bytes_written} written"
        if not isinstance(record, TlsStatistics):
            return repr(record)
        if self._told_handshake or record.handshake_status in _UNDECIDED:
            return ""
        self._told_handshake = True
        milliseconds = (record.handshake_end_ns - record.handshake_start_ns) / 1e6
        return f"TLS handshake: {record.handshake_status.name} in {milliseconds:.1f} ms"
