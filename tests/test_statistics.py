"""What handlers count, and the contract of who is told."""

import copy
from collections.abc import Sequence

import pytest

from aws_io_async.statistics import (
    SampleInterval,
    SocketStatistics,
    StatisticsCategory,
    StatisticsHandler,
    TlsNegotiationStatus,
    TlsStatistics,
)


def test_a_record_starts_from_nothing() -> None:
    assert SocketStatistics() == SocketStatistics(bytes_read=0, bytes_written=0)
    assert TlsStatistics() == TlsStatistics(0, 0, TlsNegotiationStatus.NONE)


def test_the_bytes_of_a_socket_are_counted_anew_after_a_reset() -> None:
    statistics = SocketStatistics()
    statistics.bytes_read += 3
    statistics.bytes_written += 5
    kept = copy.copy(statistics)
    statistics.reset()
    assert statistics == SocketStatistics()
    assert kept == SocketStatistics(3, 5)


def test_a_handshake_happens_once_and_outlives_a_reset() -> None:
    statistics = TlsStatistics(10, 20, TlsNegotiationStatus.SUCCESS)
    statistics.reset()
    assert statistics == TlsStatistics(10, 20, TlsNegotiationStatus.SUCCESS)


def test_a_record_says_what_it_is() -> None:
    socket, tls = SocketStatistics(), TlsStatistics()
    assert (socket.category, tls.category) == (StatisticsCategory.SOCKET, StatisticsCategory.TLS)
    assert (socket.category.value, tls.category.value) == (256, 257)  # the CRT's


def test_what_a_record_does_not_count_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        SocketStatistics().bytes_raed = 1  # type: ignore[attr-defined] # the point


def test_a_handler_must_say_what_it_does() -> None:
    class Silent(StatisticsHandler):
        pass

    with pytest.raises(TypeError, match="process_statistics"):
        Silent()  # type: ignore[abstract] # the point


def test_a_handler_picks_the_records_it_knows() -> None:
    class Throughput(StatisticsHandler):
        report_interval_ms = 250
        bytes_per_second = 0.0

        def process_statistics(
            self, interval: SampleInterval, statistics: Sequence[object], channel: object
        ) -> None:
            seconds = (interval.end_ms - interval.begin_ms) / 1000
            for record in statistics:
                if isinstance(record, SocketStatistics):
                    self.bytes_per_second = record.bytes_read / seconds

    handler = Throughput()
    records = [SocketStatistics(bytes_read=500), TlsStatistics(), object()]
    handler.process_statistics(SampleInterval(1000, 1250), records, None)
    assert handler.bytes_per_second == 2000
    handler.close()
