"""A logger for each subject, below the one named `aws_io_async`.

The subjects are aws-c-io's (`aws/io/logging.h`), the levels those of `logging`, and TRACE below
DEBUG for what happens a message at a time. Nothing is printed unless the program asks for it:

    logging.basicConfig(level=logging.INFO)
    log.logger(log.LogSubject.TLS).setLevel(log.TRACE)

What a call would print may cost more than the work it tells of: in a hot place, ask first.

    if logger.isEnabledFor(log.TRACE):
        logger.log(log.TRACE, "%r: read %d bytes", self, len(data))

Any thread may call everything here.
"""

import enum
import logging

TRACE = 5
"""A level below `logging.DEBUG`."""

if logging.getLevelName(TRACE) == f"Level {TRACE}":  # unless the program has a name for it
    logging.addLevelName(TRACE, "TRACE")

logging.getLogger("aws_io_async").addHandler(logging.NullHandler())


class LogSubject(enum.Enum):
    """What a line of the log is about; the value ends the name of the subject's logger.

    GENERAL, PKI, FILE_UTILS and PEM are for others: what they are about raises here. What an event
    loop logs as asyncio's do, it logs where theirs do: to the logger `asyncio`.
    """

    GENERAL = "general"
    EVENT_LOOP = "event_loop"
    SOCKET = "socket"
    SOCKET_HANDLER = "socket_handler"
    TLS = "tls"
    ALPN = "alpn"
    DNS = "dns"
    PKI = "pki"
    CHANNEL = "channel"
    CHANNEL_BOOTSTRAP = "channel_bootstrap"
    FILE_UTILS = "file_utils"
    SHARED_LIBRARY = "shared_library"
    EXPONENTIAL_BACKOFF_RETRY_STRATEGY = "exponential_backoff_retry_strategy"
    STANDARD_RETRY_STRATEGY = "standard_retry_strategy"
    PKCS11 = "pkcs11"
    PEM = "pem"


def logger(subject: LogSubject) -> logging.Logger:
    """The logger of a subject: `aws_io_async.channel` for `LogSubject.CHANNEL`."""
    return logging.getLogger(f"aws_io_async.{subject.value}")
