"""A channel's figures in the log, over real connections."""

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trustme

from aws_io_async.observe import LoggingStatisticsHandler
from aws_io_async.statistics import SampleInterval, TlsNegotiationStatus, TlsStatistics
from tests.streams import PATIENCE, PLAIN, Security, stream_pair, tls_of


class Lines(logging.Handler):
    """Hands out what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: asyncio.Queue[logging.LogRecord] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.put_nowait(record)

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return (await self.records.get()).getMessage()


def new_logger(level: int = logging.DEBUG) -> tuple[logging.Logger, Lines]:
    logger, lines = logging.Logger("test", level), Lines()
    logger.addHandler(lines)
    return logger, lines


@pytest.mark.parametrize("with_tls", [False, True])
async def test_bytes_and_handshake(ca: trustme.CA, with_tls: bool) -> None:
    security: Security = tls_of(ca) if with_tls else PLAIN
    logger, lines = new_logger()
    async with stream_pair(security) as (client, server):
        handler = LoggingStatisticsHandler(interval=0.01, logger=logger)
        client.channel.set_statistics_handler(handler)
        await client.send(bytes(1000))
        received = 0
        while received < 1000:
            received += len(await server.receive())
        first = await lines.next()
        second = await lines.next()
    written = re.search(r"(\d+) bytes read, (\d+) written", first)
    assert written
    assert int(written[2]) >= 1000
    assert re.match(r"<Channel \S+ active \[SocketChannelHandler .*\]>, [\d.]+ s: ", first)
    assert bool(re.search(r"TLS handshake: SUCCESS in \d+\.\d ms$", first)) == with_tls
    assert "handshake" not in second
    assert "0 written" in second


@pytest.mark.loops("aws_io_async")
async def test_nothing_is_logged_below_its_level() -> None:
    logger, lines = new_logger(logging.WARNING)
    told = asyncio.Event()

    class Notes(LoggingStatisticsHandler):
        def process_statistics(
            self, interval: SampleInterval, statistics: Sequence[object], channel: object
        ) -> None:
            super().process_statistics(interval, statistics, channel)  # type: ignore[arg-type]
            told.set()

    async with stream_pair() as (client, _):
        client.channel.set_statistics_handler(Notes(interval=0.01, logger=logger))
        async with asyncio.timeout(PATIENCE):
            await told.wait()
    assert lines.records.empty()


@pytest.mark.loops("aws_io_async")
async def test_its_level_and_its_logger(caplog: pytest.LogCaptureFixture) -> None:
    async with stream_pair() as (client, _):
        handler = LoggingStatisticsHandler(level=logging.WARNING)
        assert handler.report_interval_ms == 60_000
        handler.process_statistics(
            SampleInterval(0, 60_000), client.channel.statistics(), client.channel
        )
        handler.process_statistics(SampleInterval(0, 60_000), [], client.channel)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("aws_io_async.channel", "WARNING")
    assert "60 s: 0 bytes read, 0 written" in record.getMessage()


@dataclass
class Queue:
    """A record of a user's own handler."""

    depth: int


@pytest.mark.loops("aws_io_async")
async def test_other_records_and_a_handshake_that_fails() -> None:
    logger, lines = new_logger()
    handler = LoggingStatisticsHandler(logger=logger)
    async with stream_pair() as (client, _):
        ongoing = TlsStatistics(1_000_000, 0, TlsNegotiationStatus.ONGOING)
        handler.process_statistics(SampleInterval(0, 500), [ongoing, Queue(7)], client.channel)
        failed = TlsStatistics(1_000_000, 3_500_000, TlsNegotiationStatus.FAILURE)
        handler.process_statistics(SampleInterval(0, 500), [failed], client.channel)
    assert (await lines.next()).endswith(", 0.5 s: Queue(depth=7)")
    assert (await lines.next()).endswith(", 0.5 s: TLS handshake: FAILURE in 2.5 ms")


def test_an_interval_that_is_too_short() -> None:
    for interval in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="interval"):
            LoggingStatisticsHandler(interval=interval)
