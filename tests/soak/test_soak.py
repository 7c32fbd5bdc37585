"""The soak, for seconds: `nox -s soak` runs it for minutes."""

import asyncio
import json
import sys
from collections import Counter

import pytest

from aws_io_async.channel_stream import connect
from tests.faults._report import Fault, few
from tests.soak.conversation import HEADER, Ledger, Side
from tests.soak.identity import Identity, LostBytesError, WrongBytesError
from tests.soak.run import Report, soak
from tests.soak.servers import LOOPBACK, channel_server
from tests.soak.wires import ChannelWire
from tests.streams import until

MIXTURE = Fault(
    "Soak",
    "connections of all kinds, plain and TLS, cancelled at random moments, reset and completed,"
    " with names that change, child processes, threads and groups that start and end",
    "all bytes are the right ones; nothing is left of it",
)


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.loops("aws_io_async")
@pytest.mark.timeout(120 + 3 * few(1))
async def test_a_short_soak() -> None:
    report = await soak(seconds=few(2), seed=7, rounds=few(2))
    assert report.broken() == []
    assert report.totals["conversations"] > 10
    assert report.totals["cut"] > 10
    assert report.table()
    assert json.loads(json.dumps(report.as_json()))["totals"] == report.totals
    MIXTURE.seen("all bytes right, nothing left", report.totals["conversations"])


# It would notice


def test_bytes_of_others_and_bytes_in_the_wrong_place() -> None:
    ours, same, theirs = Identity("1"), Identity("1"), Identity("2")
    same.check(ours.take(10_000))
    with pytest.raises(WrongBytesError):
        same.check(theirs.take(10))
    ours.take(10)
    same = Identity("1")
    with pytest.raises(WrongBytesError):
        same.check(ours.take(20))
    with pytest.raises(LostBytesError):
        same.ended(21)


@pytest.mark.loops("aws_io_async")
async def test_a_server_that_hears_somebody_else() -> None:
    ledger = Ledger()
    async with channel_server("ours", ledger) as port:
        wire = ChannelWire(await connect(LOOPBACK, port))
        await wire.send(HEADER.pack(1, 1000, 1000))
        await Side(wire, "ours/2/up", "ours/2/down").send(1000)
        async with asyncio.timeout(30):
            while await wire.receive():
                pass
        await until(lambda: ledger.failures)
        await wire.close()
    (failure,) = ledger.failures
    assert isinstance(failure, ExceptionGroup)
    assert isinstance(failure.exceptions[0], WrongBytesError | ExceptionGroup)


def test_a_report_names_what_was_broken() -> None:
    report = Report(
        seconds=1,
        seed=1,
        totals=Counter({"bytes sent": 3, "bytes received": 2, "bytes verified": 2}),
        begun=Counter(),
        done=Counter(),
        reused=0,
        over={"fds": 1, "tasks": 0},
        resident=[100] * 8 + [100, 101, 102, 103, 104, 105, 106, 107],
        complaints=["something was logged"],
    )
    assert report.broken() == [
        "something was logged",
        "3 bytes were sent, 2 received, 2 verified",
        "1 fds over the start",
        "memory varied by 7.0% in the second half",
    ]
