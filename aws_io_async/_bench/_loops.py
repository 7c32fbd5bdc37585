"""The loops that are compared: by name, or as MODULE:FACTORY."""

import asyncio
import json
import platform
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata

KNOWN = {
    "aws_io_async": "aws_io_async:new_event_loop",
    "uvloop": "uvloop:new_event_loop",
    "asyncio": "asyncio:SelectorEventLoop",
    "rloop": "rloop:new_event_loop",
}
BARE = "bare"
"""No loop at all: a server that does nothing but wait, read and write. It marks the limit."""


@dataclass(frozen=True)
class Loop:
    name: str
    spec: str
    """MODULE:FACTORY; empty for `BARE`."""

    version: str = ""


def by_name(name: str) -> Loop:
    """What a user calls `name`. Raises ValueError if that is nobody's name."""
    if name == BARE:
        return Loop(BARE, "")
    if name in KNOWN:
        return Loop(name, KNOWN[name])
    module, _, attribute = name.partition(":")
    if module and attribute:
        return Loop(name, name)
    known = ", ".join([*KNOWN, BARE])
    raise ValueError(f"unknown loop {name!r}: it is one of {known}, or MODULE:FACTORY")


def factory(spec: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Raises ImportError if there is no such module, or nothing of that name in it."""
    module, _, path = spec.partition(":")
    found = import_module(module)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise ImportError(str(error)) from None
    assert callable(found), f"{spec} cannot be called"
    return found


def main(spec: str) -> None:
    """Make a loop and close it; prints what was found, as JSON."""
    factory(spec)().close()
    module = spec.partition(":")[0].partition(".")[0]
    try:
        version = metadata.version(module.replace("_", "-"))
    except metadata.PackageNotFoundError:
        version = platform.python_version() if module == "asyncio" else ""
    if module == "aws_io_async":
        version = import_module(module).__version__
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(json.dumps({"version": version, "python": python, "openssl": ssl.OPENSSL_VERSION}))
