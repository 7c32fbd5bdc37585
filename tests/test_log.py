"""The loggers: a name for each subject, silent until the program asks."""

import logging
import subprocess
import sys

import pytest

from aws_io_async import log
from aws_io_async.log import LogSubject


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
