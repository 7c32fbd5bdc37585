"""Secrets that are told from everything else, and all places where one could turn up."""

import asyncio
import base64
import gc
import io
import json
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from aws_io_async import observe
from aws_io_async.observe import describe_loop

SECRET = b"canary-5f0c2e9b71d84a36"
"""Not to be read anywhere but where it was sent to."""


def in_all_forms(secret: bytes) -> list[str]:
    """As text, in hexadecimal digits, in base64 at any of its three offsets, as numbers."""
    forms = [secret.decode(), secret.hex(), ", ".join(map(str, secret[:8]))]
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret).decode()
        forms.append(encoded[4:-4] if offset else encoded[:-4])
    return forms


class Leaks:
    """What was said while it listened: logs of all levels, warnings, what is printed on demand."""

    def __init__(self) -> None:
        self._said = io.StringIO()

    def add(self, text: str) -> None:
        self._said.write(text + "\n")

    def add_error(self, error: BaseException) -> None:
        """An exception, its causes and contexts, as a traceback shows them."""
        self.add("".join(traceback.format_exception(error)))
        self.add(repr(error))

    def add_objects(self) -> None:
        """The reprs of all objects of the library that there are."""
        for each in gc.get_objects():
            if type(each).__module__.startswith("aws_io_async"):
                self.add(repr(each))

    def add_statistics(self) -> None:
        """The figures of all loops, as the two servers of them tell."""
        loops = observe.event_loops()
        self.add(json.dumps([describe_loop(loop) for loop in loops]))

    @property
    def text(self) -> str:
        return self._said.getvalue()

    def check(self, *secrets: bytes) -> None:
        """Fail if one of them was said in any form."""
        text = self.text
        for secret in secrets or (SECRET,):
            for form in in_all_forms(secret):
                at = text.find(form)
                assert at < 0, f"it was told: …{text[max(0, at - 500) : at + 200]}…"


class _Handler(logging.Handler):
    def __init__(self, leaks: Leaks) -> None:
        super().__init__(1)
        self._leaks = leaks
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._leaks.add(self.format(record))
        self._leaks.add(repr(record.args))


@contextmanager
def listening_to_everything() -> Iterator[Leaks]:
    """Loggers at their lowest level, loops in debug mode that tell of each callback, warnings."""
    leaks = Leaks()
    root, own = logging.getLogger(), logging.getLogger("aws_io_async")
    handler = _Handler(leaks)
    levels = root.level, own.level
    root.addHandler(handler)
    root.setLevel(1)
    own.setLevel(1)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield leaks
        for warning in caught:
            leaks.add(f"{warning.message} {warning.source!r}")
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def tell_of_each_callback(loop: asyncio.AbstractEventLoop) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
