"""Which coroutines the package has that somebody else's code may await."""

import functools
import importlib
import inspect
import pkgutil
import re
import warnings
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import aws_io_async

PACKAGE = aws_io_async.__name__

COMMANDS = ("_bench", "_cli", "_demo", "_program", "__main__")
"""How modules begin that are programs, which nobody imports."""

AWAITABLE = re.compile(r"\b(Awaitable|Coroutine|AsyncIterator|AsyncGenerator|Future|Task)\b")
"""In an annotation of what a function returns."""

PROTOCOLS = {"__aenter__", "__aexit__", "__anext__", "__await__", "__call__"}


@functools.cache
def public_coroutines() -> dict[str, CodeType]:
    """`function` and `Class.method` of all that is public and awaited, or gives what is.

    Classes count that are public, and methods of others by which they are what somebody else's
    base class says: a server is an `asyncio.AbstractServer`, whatever its own name.
    """
    found: dict[str, CodeType] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of event loop policies
        public = set(_public_objects())

    def note(name: str, function: FunctionType) -> None:
        code = inspect.unwrap(function).__code__
        assert found.setdefault(name, code) is code, f"there are two of the name {name}"

    for module in _modules():
        for thing in list(vars(module).values()):
            if getattr(thing, "__module__", "") != module.__name__:
                continue
            if inspect.isfunction(thing) and thing in public and _is_awaited(thing):
                note(thing.__qualname__, thing)
            elif inspect.isclass(thing):
                for name, method in _methods(thing, public):
                    note(f"{thing.__qualname__}.{name}", method)
    return found


def _methods(cls: type[Any], public: set[Any]) -> Iterator[tuple[str, FunctionType]]:
    for name, value in list(vars(cls).items()):
        if name.startswith("_") and name not in PROTOCOLS:
            continue
        function = inspect.unwrap(getattr(value, "__func__", value))
        if not isinstance(function, FunctionType):
            continue
        if not (_is_awaited(function) or name == "__await__"):
            continue
        others = [base for base in cls.__mro__[1:] if hasattr(base, name)]
        bases = [base for base in others if base in public or not _is_ours(base)]
        users = [known for known in public if inspect.isclass(known) and cls in known.__mro__]
        if users or bases:
            yield name, function


def _is_awaited(function: Any) -> bool:
    function = inspect.unwrap(function)
    returns = str(function.__annotations__.get("return", ""))
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or bool(AWAITABLE.search(returns))
    )


def _is_ours(cls: type[Any]) -> bool:
    return cls.__module__.partition(".")[0] == PACKAGE


def _public_objects() -> Iterator[Any]:
    """What the modules export: by `__all__`, or by defining it."""
    for module in _modules():
        if any(part.startswith("_") for part in module.__name__.split(".")):
            continue
        names = getattr(module, "__all__", None)
        for name, value in vars(module).items() if names is None else ():
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
                yield value
        for name in names or ():
            value = getattr(module, name)
            if callable(value):
                yield value


def _modules() -> Iterator[ModuleType]:
    yield aws_io_async
    for info in pkgutil.walk_packages(aws_io_async.__path__, f"{PACKAGE}."):
        if not info.name.removeprefix(f"{PACKAGE}.").startswith(COMMANDS):
            yield importlib.import_module(info.name)
