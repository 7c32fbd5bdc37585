"""The loggers: a name for each subject, silent until the program asks."""

import logging
import subprocess
import sys

import pytest

from aws_io_async import EventLoopGroup, log
from aws_io_async.channel import ChannelDirection, ChannelHandler
from aws_io_async.channel._trace import traced
from aws_io_async.log import LogSubject
from aws_io_async.shared_library import SharedLibrary
from aws_io_async.testing import TestingChannel
from tests.socket_tools import connected


class Expensive:
    """Fails the test if somebody asks what it looks like."""

    def __str__(self) -> str:
        raise AssertionError("a line was made that nobody wanted")


def run(program: str) -> tuple[str, str]:
    """What a program prints to stdout and stderr."""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return ran.stdout, ran.stderr


def test_each_subject_has_a_logger_below_the_packages() -> None:
    names = [log.logger(subject).name for subject in LogSubject]
    assert len(set(names)) == len(LogSubject) == 16
    assert all(name.startswith("aws_io_async.") for name in names)
    assert log.logger(LogSubject.CHANNEL) is logging.getLogger("aws_io_async.channel")


def test_a_level_on_the_package_counts_for_all_subjects(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(log.TRACE, "aws_io_async")
    assert all(log.logger(subject).isEnabledFor(log.TRACE) for subject in LogSubject)


def test_trace_is_a_level_below_debug(caplog: pytest.LogCaptureFixture) -> None:
    logger = log.logger(LogSubject.SOCKET)
    caplog.set_level(logging.DEBUG, logger.name)
    logger.log(log.TRACE, "%s", Expensive())
    caplog.set_level("TRACE", logger.name)
    logger.log(log.TRACE, "read %d bytes", 3)
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [("TRACE", "read 3 bytes")]


def test_one_subject_can_be_on_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aws_io_async.tls")
    log.logger(LogSubject.TLS).debug("shown")
    log.logger(LogSubject.CHANNEL).debug("%s", Expensive())
    assert caplog.messages == ["shown"]


def test_nothing_is_printed_unless_asked_for() -> None:
    program = (
        "from aws_io_async import log\n"
        "log.logger(log.LogSubject.DNS).error('no such host')\n"
        "log.logger(log.LogSubject.DNS).debug('resolving')\n"
    )
    assert run(program) == ("", "")
    asked = "import logging; logging.basicConfig(level='INFO', format='%(name)s %(message)s')\n"
    assert run(asked + program) == ("", "aws_io_async.dns no such host\n")


def test_a_name_that_the_program_gave_to_the_level_stays() -> None:
    program = (
        "import logging; logging.addLevelName(5, 'FINEST')\n"
        "from aws_io_async import log\n"
        "print(logging.getLevelName(log.TRACE))\n"
    )
    assert run(program) == ("FINEST\n", "")


async def test_trace_shows_every_message_between_handlers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(log.TRACE, log.logger(LogSubject.CHANNEL).name)
    async with TestingChannel(ChannelHandler()) as channel:
        channel.push_read(b"abc")
        channel.push_write(b"de")
        await channel.settle()
        messages = [record.getMessage() for record in caplog.records if record.levelno == log.TRACE]
    for direction, size in (("read", 3), ("write", 2)):
        shown = f"{direction}: <IoMessage application data, {size} bytes>"
        assert sum(message.endswith(shown) for message in messages) == 2  # our handler, and the end


async def test_without_trace_handlers_are_called_directly() -> None:
    handler = ChannelHandler()
    assert traced(handler.process_read_message, ChannelDirection.READ) == (
        handler.process_read_message
    )


async def test_what_happens_to_sockets_loops_and_libraries_is_shown_by_subject(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "aws_io_async")
    async with connected():
        pass
    with EventLoopGroup(1):
        pass
    SharedLibrary(None).close()
    shown = {(record.name, record.getMessage().split()[-1]) for record in caplog.records}
    for subject, last in (
        (LogSubject.SOCKET, "closed"),
        (LogSubject.EVENT_LOOP, "ended"),
        (LogSubject.SHARED_LIBRARY, "loaded"),
    ):
        assert (log.logger(subject).name, last) in shown
