"""A pytest plugin: asynchronous tests of pytest-asyncio run on this library's event loop.

It is installed with the library, and does nothing until it is asked:

- for all tests by `pytest --aws-io-async`, or by `aws_io_async = true` in pytest's configuration
- for a test, a class or a module by the marker `aws_io_async`

Who asks has the loop also where a conftest.py names other loops. pytest-asyncio from 1.4 on is
given a loop factory, older ones (0.23 and newer) an event loop policy, in Python up to 3.15.
"""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Generator, Iterator, Mapping

import pytest

MARKER = "aws_io_async"

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "run asynchronous tests on aws_io_async's event loop"
    parser.getgroup("asyncio").addoption(
        "--aws-io-async", action="store_true", default=None, dest="aws_io_async", help=about
    )
    parser.addini("aws_io_async", about, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARKER}: run this asynchronous test on aws_io_async's event loop"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    if not _is_asked_for_all(config) or config.pluginmanager.hasplugin("asyncio"):
        return None
    return "aws_io_async: it is for the tests of pytest-asyncio, which is not there"


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    if not _is_asked(metafunc.config, metafunc.definition):
        yield
        return
    if not _takes_factories(metafunc.config):
        _parametrize_policy(metafunc)
    with _factories(metafunc.config):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    if not _is_asked(item.config, item):
        yield
        return
    with _factories(item.config):
        yield


def _is_asked(config: pytest.Config, item: pytest.Item) -> bool:
    return _is_asked_for_all(config) or item.get_closest_marker(MARKER) is not None


def _is_asked_for_all(config: pytest.Config) -> bool:
    return bool(config.getoption("aws_io_async") or config.getini("aws_io_async"))


def _takes_factories(config: pytest.Config) -> bool:
    return hasattr(config.hook, "pytest_asyncio_loop_factories")


class _Factories:
    """Has our loop, and it alone, for as long as it is registered.

    That is only while one of the tests is looked at that are to have it: pytest-asyncio takes an
    answer of this hook for all tests, and no answer for a mistake.
    """

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Mapping[str, LoopFactory]:
        from ..event_loop.entry import new_event_loop

        return {MARKER: new_event_loop}


@contextlib.contextmanager
def _factories(config: pytest.Config) -> Iterator[None]:
    if not _takes_factories(config):
        yield
        return
    plugin = _Factories()
    config.pluginmanager.register(plugin)
    try:
        yield
    finally:
        config.pluginmanager.unregister(plugin)


def _parametrize_policy(metafunc: pytest.Metafunc) -> None:
    """What pytest-asyncio has before 1.4, if this is a test of its."""
    if "event_loop_policy" not in metafunc.fixturenames or not inspect.iscoroutinefunction(
        metafunc.function
    ):
        return
    hidden = getattr(pytest, "HIDDEN_PARAM", MARKER)  # since pytest 8.4
    metafunc.parametrize("event_loop_policy", [_policy()], ids=[hidden], scope="session")


@functools.cache
def _policy() -> object:
    """The one of all tests: with another one, a loop that tests share would be made anew."""
    from ..event_loop.policy import EventLoopPolicy

    return EventLoopPolicy()
