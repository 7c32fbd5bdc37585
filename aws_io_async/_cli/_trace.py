"""`connect --trace`: what happens when, line by line on stderr."""

import logging
import ssl
import sys
import time
from typing import Any

from .. import log

HANDSHAKE, ALERT, CHANGE_CIPHER_SPEC = 22, 21, 20
"""Content types of TLS messages (RFC 8446, section 5.1)."""

_ALERT_LEVELS = {1: "warning", 2: "fatal"}


class Trace(logging.Handler):
    """Writes notes, the library's log and TLS messages, each with the milliseconds since the start.

    Thread: any, a line at a time.
    """

    def __init__(self) -> None:
        super().__init__(log.TRACE)
        self._started = time.perf_counter()

    def __enter__(self) -> "Trace":
        logger = logging.getLogger("aws_io_async")
        logger.addHandler(self)
        self._level_before = logger.level
        logger.setLevel(log.TRACE)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("aws_io_async")
        logger.setLevel(self._level_before)
        logger.removeHandler(self)

    def note(self, subject: str, text: str) -> None:
        """One line."""
        milliseconds = (time.perf_counter() - self._started) * 1000
        print(f"{milliseconds:10.2f} ms  {subject:18} {text}", file=sys.stderr, flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        self.note(record.name.removeprefix("aws_io_async."), record.getMessage())

    def watch_tls(self, context: ssl.SSLContext) -> None:
        """Note the messages of all connections of a context, before there is one.

        OpenSSL's message callback has no public name in `ssl`. It changes nothing of what the
        context does, and is set although ours refuse changes.
        """
        hook = getattr(ssl.SSLContext, "_msg_callback", None)
        if hook is not None:
            hook.__set__(context, self._note_message)

    def _note_message(
        self, _: object, direction: str, version: Any, content: Any, message: Any, data: bytes
    ) -> None:
        arrow = "->" if direction == "write" else "<-"
        if content == ALERT and len(data) == 2:
            level = _ALERT_LEVELS.get(data[0], f"{data[0]}")
            self.note("tls message", f"{arrow} {level} alert: {_name(message)}")
        elif content in (HANDSHAKE, CHANGE_CIPHER_SPEC):
            self.note("tls message", f"{arrow} {_name(message)}, {len(data)} bytes")


def _name(value: Any) -> str:
    return str(value.name) if hasattr(value, "name") else f"message {value}"
