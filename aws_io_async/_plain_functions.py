"""Functions that are called and not awaited: who gives a coroutine function is told so."""

import inspect


def check_plain_function(name: str, function: object, instead: str) -> None:
    """Raise TypeError, which says what to do `instead`, for what is no plain function."""
    if not callable(function):
        raise TypeError(f"{name} must be callable, not {function!r}")
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{name} must be a plain function, not the coroutine function {function!r}: {instead}"
        )
