"""Which of CPython's own asyncio tests are run, and how another event loop gets under them.

The tests are the package `test.test_asyncio` of the running Python, 3.11 to 3.15. The loop gets
into them in two ways:

- `install` makes the loop's factory the default event loop policy's, which covers `asyncio.run`,
  `asyncio.Runner`, `IsolatedAsyncioTestCase` and `asyncio.new_event_loop`.
- CPython writes most tests of the loop as a base class, with a subclass for each of its own
  loops. `SWAPPED` names one subclass of ours for each such base; CPython's are left out.

Some tests look at what only CPython's loop has, among things that any loop must do. `EDITS`
changes those lines; no edit relaxes a check of documented behaviour. Tests that are about
nothing but the inside of CPython's loop (mocked selectors and sockets) are not run at all.
"""

import asyncio
import importlib
import importlib.util
import inspect
import re
import sys
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

PACKAGE = "test.test_asyncio"

# The slowest first: they decide how long a run on several processes takes.
MODULES = [
    "test_tasks",
    "test_ssl",
    "test_subprocess",
    "test_events",
    "test_taskgroups",
    "test_sslproto",
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_free_threading",
    "test_futures2",
    "test_locks",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_server_context",
    "test_sock_lowlevel",
    "test_staggered",
    "test_streams",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
    "test_waitfor",
]

EDITS = {
    "test_base_events": [
        # `setUp` silences a mock selector: a real loop needs its own methods.
        (r"self\.loop\.(?:_process_events|_write_to_self) = mock\.Mock\(\)", "pass"),
        (r"\bself\.loop\._run_once\(\)", "test_utils.run_once(self.loop)"),
        (r"self\.loop\._selector\.select\.assert_called_once_with\(0\)", "pass"),
        (r"self\.assertIsNone\(self\.loop\._default_executor\)", "pass"),
        (r"transport\._sock\.family", "transport.get_extra_info('socket').family"),
    ],
    "test_events": [(r"self\.loop\._stop_serving\(r\)", "pass")],
    "test_server_context": [
        (
            r"not self\.transport\.(?:_ssl_protocol\._app_reading_paused|_paused)",
            "self.transport.is_reading()",
        )
    ],
    "test_server": [(r"self\.assertIsNone\(srv\._(?:sockets|waiters)\)", "pass")],
    "test_taskgroups": [
        (r"asyncio\.EventLoop\(\)", "asyncio.new_event_loop()"),
        (r"= asyncio\.EventLoop$", "= staticmethod(asyncio.new_event_loop)"),
    ],
    # An attribute that the mock loop of these tests has.
    "test_runners": [(r"self\.assertTrue\(policy\.loop\.shutdown_ag_run\)", "pass")],
}


@dataclass(frozen=True)
class Swapped:
    """A test case to make from base classes of a module, on the loop under test.

    `set_up` replaces the bases' own `setUp`, which makes CPython's loop. `only` names the tests
    to take over from bases of which most tests look inside the loop, `without` those to leave.
    """

    name: str
    bases: str
    set_up: bool = False
    only: str = ""
    without: str = ""


SWAPPED = {
    "test_base_events": [
        Swapped(
            "LoopTests",
            "BaseEventLoopTests",
            set_up=True,
            only="""
                test_asyncgen_finalization_by_gc test_asyncgen_finalization_by_gc_in_other_thread
                test_call_later_negative_delays test_call_soon_non_callable test_check_thread
                test_close test_create_named_task_with_custom_factory
                test_create_named_task_with_default_factory test_create_task_error_closes_coro
                test_default_exc_handler_callback test_default_exc_handler_coro
                test_run_forever_keyboard_interrupt test_run_forever_pre_stopped test_run_once
                test_run_until_complete_baseexception test_run_until_complete_loop
                test_run_until_complete_loop_orphan_future_close_loop
                test_run_until_complete_type_error test_set_debug test_set_default_executor_error
                test_set_exc_handler_broken test_set_exc_handler_custom
                test_set_exc_handler_invalid test_set_task_factory test_set_task_factory_invalid
                test_shutdown_default_executor_timeout test_subprocess_exec_invalid_args
                test_subprocess_shell_invalid_args test_time_and_call_at
            """,
        ),
        Swapped(
            "LoopSocketTests",
            "BaseEventLoopWithSelectorTests",
            set_up=True,
            only="""
                test_call_coroutine test_create_connection_host_port_sock
                test_create_connection_no_host_port_sock
                test_create_connection_no_ssl_server_hostname_errors
                test_create_connection_ssl_server_hostname_errors
                test_create_connection_ssl_timeout_for_plain_socket
                test_create_connection_wrong_sock test_create_datagram_endpoint_addr_error
                test_create_datagram_endpoint_existing_sock_unix
                test_create_datagram_endpoint_no_matching_family
                test_create_datagram_endpoint_noaddr_nofamily test_create_datagram_endpoint_sock
                test_create_datagram_endpoint_sock_sockopts
                test_create_datagram_endpoint_sock_unix test_create_datagram_endpoint_sockopts
                test_create_datagram_endpoint_wrong_sock test_create_server_host_port_sock
                test_create_server_ipv6 test_create_server_no_host_port_sock
                test_create_server_ssl_timeout_for_plain_socket test_create_server_stream_bittype
                test_create_server_wrong_sock test_log_slow_callbacks
            """,
        ),
    ],
    "test_buffered_proto": [Swapped("BufferedProtocolTests", "BufferedProtocolSelectorTests")],
    "test_events": [Swapped("EventLoopTests", "EventLoopTestsMixin SubprocessTestsMixin TestCase")],
    "test_sendfile": [Swapped("SendfileTests", "SendfileTestsBase TestCase")],
    "test_server": [Swapped("StartServerTests", "SelectorStartServerTests")],
    "test_sock_lowlevel": [Swapped("SockTests", "BaseSockTestsMixin TestCase")],
    "test_sslproto": [Swapped("StartTLSTests", "SelectorStartTLSTests")],
    "test_subprocess": [Swapped("SubprocessTests", "SubprocessMixin TestCase", set_up=True)],
    "test_unix_events": [
        Swapped(
            "UnixSocketTests",
            "SelectorEventLoopUnixSocketTests",
            set_up=True,
            without="test_create_unix_server_bind_error",  # mocks a socket
        )
    ],
}

# The cases to leave out of a module: CPython's loops, one by one, and tests of their inside.
LEFT_OUT = {
    "test_base_events": "(?!RunningLoopTests)",
    "test_buffered_proto": "BufferedProtocol",
    "test_events": "(Select|Proactor|Kqueue|EPoll|Poll)EventLoopTests",
    "test_sendfile": "(Select|Proactor|Kqueue|EPoll|Poll)EventLoopTests",
    "test_server": "(Selector|Proactor)StartServerTests",
    "test_server_context": "(Selector|Proactor)",
    "test_sock_lowlevel": "(Select|Proactor|Kqueue|EPoll|Poll)EventLoopTests",
    "test_sslproto": "(Selector|Proactor)StartTLSTests|SslProtoHandshakeTests",
    "test_subprocess": ".*Watcher|SubprocessTransportTests",
    "test_unix_events": "(?!TestFunctional|TestFork)",
}


class CountingFactory:
    """An event loop factory that knows how often it was called."""

    def __init__(self, specification: str) -> None:
        module, _, name = specification.partition(":")
        factory: LoopFactory = getattr(importlib.import_module(module), name)
        # asyncio.new_event_loop asks the policy, which is about to ask us.
        self._factory = asyncio.SelectorEventLoop if factory is asyncio.new_event_loop else factory
        self.calls = 0

    def __call__(self) -> asyncio.AbstractEventLoop:
        self.calls += 1
        return self._factory()


def install(factory: LoopFactory) -> None:
    """Make `factory` the one of asyncio's default policy, and the test package ready for it."""

    # Policies are private from Python 3.14 on: asking for them in public is deprecated.
    home, name = asyncio, "DefaultEventLoopPolicy"
    if sys.version_info >= (3, 14):
        home, name = importlib.import_module("asyncio.unix_events"), f"_{name}"
    default: Any = getattr(home, name)

    class Policy(default):  # type: ignore[misc]  # its base depends on the Python
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return factory()

    setattr(home, name, Policy)
    forget_policy()
    _follow_mocked_logger()
    _close_any_loop()


def forget_policy() -> None:
    """Whoever asks next for a policy gets a new one, which has no loop yet."""
    events = importlib.import_module("asyncio.events")
    private = getattr(events, "_set_event_loop_policy", None)  # from Python 3.14 on
    (private or asyncio.set_event_loop_policy)(None)


def _follow_mocked_logger() -> None:
    """Send to the mock what a loop logs while a test mocks `asyncio.base_events.logger`.

    A loop that is not CPython's reaches the same logger by `logging.getLogger("asyncio")`.
    """
    base_events = importlib.import_module("asyncio.base_events")
    logger = base_events.logger

    def following(name: str) -> Callable[..., None]:
        original = getattr(logger, name)

        def log(*args: Any, **kwargs: Any) -> None:
            mocked = base_events.logger is not logger
            (getattr(base_events.logger, name) if mocked else original)(*args, **kwargs)

        return log

    for name in ("debug", "info", "warning", "error", "exception", "critical"):
        setattr(logger, name, following(name))


def _close_any_loop() -> None:
    """Let the tests' `close_loop` close loops that have no `_default_executor`."""
    utils = importlib.import_module(f"{PACKAGE}.utils")
    original = utils.TestCase.close_loop

    def close_loop(loop: asyncio.AbstractEventLoop) -> None:
        if hasattr(loop, "_default_executor"):
            original(loop)
            return
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    utils.TestCase.close_loop = staticmethod(close_loop)


class _EditingLoader(SourceFileLoader):
    """Loads a module from its source with `EDITS` applied; line numbers stay as they are."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        for pattern, text in EDITS.get(fullname.rpartition(".")[2], ()):
            source = re.sub(pattern, text, source, flags=re.MULTILINE)
        return compile(source, self.path, "exec", dont_inherit=True)


def _import(name: str) -> ModuleType:
    full_name = f"{PACKAGE}.{name}"
    found = importlib.util.find_spec(full_name)
    assert found is not None
    assert found.origin is not None, f"{full_name} has no source"
    loader = _EditingLoader(full_name, found.origin)
    spec = importlib.util.spec_from_loader(full_name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    loader.exec_module(module)
    return module


def _swapped_case(
    module: ModuleType, swapped: Swapped, factory: LoopFactory
) -> type[unittest.TestCase]:
    """The class that `swapped` describes."""
    test_case = importlib.import_module(f"{PACKAGE}.utils").TestCase
    bases = [test_case if b == "TestCase" else getattr(module, b) for b in swapped.bases.split()]

    def make_loop(self: unittest.TestCase) -> asyncio.AbstractEventLoop:
        return factory()

    def set_up(self: Any) -> None:
        test_case.setUp(self)
        self.loop = factory()
        self.set_event_loop(self.loop)

    body: dict[str, Any] = {"create_event_loop": make_loop, "new_loop": make_loop}
    body |= {"__module__": module.__name__, "__qualname__": swapped.name}
    if swapped.set_up:
        body["setUp"] = set_up
    only, without = swapped.only.split(), swapped.without.split()
    for test in {n for base in bases for n in dir(base) if n.startswith("test")}:
        if test in without or (only and test not in only):
            body[test] = None  # hides it from unittest's loader
    return type(swapped.name, tuple(bases), body)


def load(name: str, factory: LoopFactory) -> list[type[unittest.TestCase]]:
    """The test cases to run of the module `name`, on loops that `factory` makes.

    Call `install` first. Raises `unittest.SkipTest` if the module skips itself as a whole.
    """
    module = _import(name)
    left_out = LEFT_OUT.get(name, "(?!)")
    cases = [
        case
        for case_name, case in inspect.getmembers(module, inspect.isclass)
        if issubclass(case, unittest.TestCase)
        and case.__module__ == module.__name__
        and not re.match(left_out, case_name)
    ]
    if name == "test_runners":
        module.BaseTest.new_loop = lambda self: factory()  # instead of a half-mocked loop
    return cases + [_swapped_case(module, s, factory) for s in SWAPPED.get(name, ())]


def modules() -> list[str]:
    """The names of `MODULES` that the running Python has."""
    return [m for m in MODULES if importlib.util.find_spec(f"{PACKAGE}.{m}")]
