"""The house has floors: a module imports only what lies below it, or to its left.

`FLOORS` is the table of the whole package, `PACKAGES` that of the packages in it; integrations
know nothing of one another. What is imported for type checking alone does not count. Every module
has a place: one without fails the test.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import aws_io_async

PACKAGE = "aws_io_async"
ROOT = Path(aws_io_async.__file__).parent

FLOORS = [
    [
        "_plain_functions",
        "_error_codes",
        "_error_causes",
        "errors",
        "log",
        "statistics",
        "message_pool",
        "pem",
        "shared_library",
        "stream",
    ],
    [
        "_pkcs12",
        "_failure_of_key",
        "_tls_state",
        "_tls_engine",
        "tls_key_operations",
        "_openssl_keys",
        "_ssl_context",
        "_tls_ciphers",
        "_trust_store",
        "_tls_options",
        "tls_context",
        "_timer_queue",
        "_host_cache",
        "_backoff",
    ],
    ["event_loop", "future"],
    [
        "_loop_io",
        "_socket_options",
        "_os_socket",
        "channel",
        "socket",
        "pipe",
        "host_resolver",
        "async_stream",
        "retry_strategy",
        "pkcs11",
    ],
    [
        "socket_channel_handler",
        "_tls_window",
        "_tls_held_writes",
        "_tls_channel_state",
        "tls_channel_handler",
        "alpn_handler",
    ],
    ["channel_bootstrap", "channel_stream"],
    ["observe"],
    ["integrations"],
    ["testing"],
    [
        "__main__",
        "_bench",
        "_cli",
        "_demo",
        "_demo_certificate",
        "_demo_files",
        "_program",
        "_program_children",
    ],
]
"""From the ground up, each from left to right."""

ENTRY_POINTS = FLOORS[-1]
"""Programs: they alone may import one another, and from the package's own `__init__`."""

PACKAGES = {
    "event_loop": [
        "_until_done",
        "_handles",
        "_registry",
        "_debug",
        "_poller",
        "_wakeup",
        "_statistics",
        "_watchers",
        "_connection_state",
        "_flow_control",
        "_callbacks",
        "_scheduler",
        "_exception_handler",
        "_executor",
        "_async_generators",
        "_runtime",
        "tasks",
        "io_handle",
        "_task_queue",
        "_io_subscriptions",
        "_local_objects",
        "_own_thread",
        "_crt_loop",
        "_socket_tools",
        "_write_side",
        "_transport",
        "_names",
        "_connect_lookup",
        "_happy_eyeballs",
        "_sock_ops",
        "_tls_arguments",
        "_tls_app_transport",
        "_tls_protocol",
        "_tls_transport",
        "_connect",
        "_server",
        "_listen",
        "_datagram",
        "_sendfile",
        "_pipes",
        "_child_watch",
        "_subprocess",
        "_signals",
        "_loop",
        "entry",
        "policy",
        "_cpu",
        "_crossing",
        "_loop_thread",
        "group",
    ],
    "channel": [
        "_loop_end",
        "_handler",
        "_lane",
        "_trace",
        "_slot",
        "_windows",
        "_tasks",
        "_reports",
        "_local_objects",
        "_waiters",
        "_shutdown",
        "_state",
        "_channel",
    ],
    "async_stream": ["_off_loop", "_input", "_output", "_asyncio_ends", "_pump"],
    "host_resolver": ["_names", "_threads", "_refresher", "_resolver"],
    "pkcs11": ["_return_values", "_signatures", "_cryptoki", "_library", "_openssl", "_tls"],
    "testing": ["_loop", "_channel", "_rules", "_trial", "_check", "_streams", "_endpoint"],
    "channel_stream": ["_handler", "_attributes", "_stream", "_connect", "_serve"],
    "channel_bootstrap": ["_arguments", "_setup", "_client", "_server"],
    "observe": ["_loops", "_stalls", "_server", "_prometheus", "_channels"],
}
"""Each package's files, from left to right."""

WITHOUT_IO = {*FLOORS[1]}
"""Logic that has no loop, no clock, no thread and no logger ..."""

IO_MODULES = {"asyncio", "threading", "socket", "time", "logging", "selectors"}
"""... and therefore imports none of these."""

Name = tuple[str, ...]
"""A module by its path below the package: `("event_loop", "_loop")`; `()` is the package."""


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements below `node`, those for type checking only left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from statements(other)
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from statements(child)


def imports(importer: Name, is_package: bool, source: str) -> Iterator[str]:
    """The absolute dotted names that a module imports, down to the names of `from`."""
    for statement in statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                up = statement.level - is_package
                home = (PACKAGE, *importer)
                base = ".".join((*home[: len(home) - up], *filter(None, [statement.module])))
            yield from (f"{base}.{alias.name}" for alias in statement.names)


def floor(module: Name) -> int | None:
    return next((n for n, names in enumerate(FLOORS) if module[:1] and module[0] in names), None)


def column(module: Name) -> int | None:
    """Where a file stands in its package; the package's own `__init__` is rightmost."""
    row = PACKAGES.get(module[0])
    if row is None:
        return 0
    if len(module) == 1:
        return len(row)
    return row.index(module[1]) if module[1] in row else None


def home_of(imported: str) -> Name:
    """The module of the table that an imported name of the package is found in."""
    parts = tuple(imported.split("."))[1:]
    if floor(parts) is None:
        return ()
    if parts[0] in PACKAGES and column(parts) is not None:
        return parts[:2]
    return parts[:1]


def why_not(importer: Name, imported: str) -> str | None:
    """What is wrong with an import, if something is."""
    if imported.split(".")[0] != PACKAGE:
        forbidden = importer[0] in WITHOUT_IO and imported.split(".")[0] in IO_MODULES
        return "this floor is logic without I/O" if forbidden else None
    target = home_of(imported)
    if importer[0] in ENTRY_POINTS:
        return "nothing imports testing" if target[:1] == ("testing",) else None
    if not target:
        return "only the entry points import from the package's own namespace"
    if target[0] == importer[0]:
        own, other = column(importer), column(target)
        if importer[0] in PACKAGES and own is not None and other is not None and other >= own:
            return "it does not stand to the left"
        return None
    if target[0] == "testing":
        return "nothing imports testing"
    below, here = floor(target), floor(importer)
    assert below is not None
    assert here is not None
    if below == here:
        row = FLOORS[here]
        return None if row.index(target[0]) < row.index(importer[0]) else "it is to the right"
    return None if below < here else f"floor {below} is not below floor {here}"


def violations(importer: Name, source: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with a module, a sentence each."""
    name = ".".join((PACKAGE, *importer))
    if floor(importer) is None or column(importer) is None:
        return [f"{name} has no place in the table of {Path(__file__).name}: give it one"]
    return [
        f"{name} imports {imported}: {reason}"
        for imported in imports(importer, is_package, source)
        if (reason := why_not(importer, imported)) is not None
    ]


def modules() -> Iterator[tuple[Name, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield (parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


@pytest.mark.parametrize("module", [name for name in MODULES if name], ids=".".join)
def test_a_module_imports_only_what_lies_below_it(module: Name) -> None:
    path = MODULES[module]
    found = violations(module, path.read_text(), is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


def test_the_package_itself_imports_none_of_its_modules_eagerly() -> None:
    own = [name for name in imports((), True, MODULES[()].read_text()) if name.startswith(PACKAGE)]
    assert own == []


def test_no_module_has_two_places() -> None:
    table = [name for names in FLOORS for name in names]
    assert len(table) == len(set(table))
    for row in PACKAGES.values():
        assert len(row) == len(set(row))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "from . import channel"),
        ("errors", "from .pem import load"),  # its own floor, to the right
        ("socket", "from .pipe import Pipe"),  # likewise
        ("errors", "import aws_io_async.channel"),
        ("errors", "def f():\n    from aws_io_async.channel import Channel"),
        ("channel", "from aws_io_async import run"),
        ("channel", "from .testing import Pipe"),
        ("_demo", "from .testing import Pipe"),
        ("channel", "if TYPE_CHECKING:\n    pass\nelse:\n    from . import _demo"),
        ("_timer_queue", "import time"),
        ("_timer_queue", "from asyncio.log import logger"),
        ("_timer_queue", "from .event_loop._loop import EventLoop"),
        ("event_loop._poller", "from ._watchers import Watchers"),
        ("event_loop._poller", "from . import _watchers"),
        ("event_loop._poller", "from .. import channel"),
        ("event_loop._poller", "from ..event_loop import _loop"),
        ("event_loop._newcomer", ""),
        ("newcomer", ""),
    ],
)
def test_violations_are_found(module: str, source: str) -> None:
    name = tuple(module.split("."))
    assert len(violations(name, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("channel", "import time\nfrom .event_loop._loop import EventLoop"),
        ("channel", "from . import errors"),
        ("pem", "from .errors import ErrorCode"),
        ("_timer_queue", "if TYPE_CHECKING:\n    import asyncio\n    from . import channel"),
        ("event_loop._loop", "from . import _watchers, _poller\nfrom .. import _timer_queue"),
        ("integrations.anyio", "from .pytest import plugin\nfrom ..channel import Channel"),
        ("_demo", "from . import __version__, _demo_files"),
        ("testing", "from .event_loop.entry import run"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(tuple(module.split(".")), source) == []
