"""Making the emulation available: as a selector class, or to the whole process."""

import ast
import functools
import pathlib
import select
import selectors
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kqueue_emulation._filter import platform_select
from tests.kqueue_emulation._kevent import CONSTANTS, Kevent
from tests.kqueue_emulation._kqueue import Kqueue


@functools.cache
def emulated_select() -> Any:
    """What `import select` gives on a platform with kqueue: there, that very module's names.

    On Linux: Linux's names without epoll's, and with the emulation's `kqueue`, `kevent`, `KQ_*`.
    """
    if hasattr(platform_select, "kqueue"):
        return platform_select
    names = {k: v for k, v in vars(platform_select).items() if not k.lower().startswith("epoll")}
    return types.SimpleNamespace(**names | CONSTANTS, kqueue=Kqueue, kevent=Kevent)


@functools.cache
def kqueue_selector_class() -> Any:
    """`selectors.KqueueSelector`; on Linux the same source, over the emulation.

    The standard library defines the class only where `select` has kqueue. That statement is run
    here in a copy of the module's namespace with another `select`: its base classes and keys are
    the ones that everybody gets from `selectors`.
    """
    if hasattr(platform_select, "kqueue"):
        return vars(selectors)["KqueueSelector"]
    source = pathlib.Path(selectors.__file__).read_text()
    statements: list[ast.stmt] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If)
        and any(isinstance(n, ast.ClassDef) and n.name == "KqueueSelector" for n in node.body)
    ]
    namespace = {**vars(selectors), "select": emulated_select()}
    code = compile(ast.Module(statements, []), selectors.__file__, "exec")
    exec(code, namespace)
    return namespace["KqueueSelector"]


@contextmanager
def installed(*, hide_epoll: bool = False) -> Iterator[None]:
    """Make this process look as if its platform had kqueue, until the block ends.

    Sets `select.kqueue`, `select.kevent`, `select.KQ_*`, `selectors.KqueueSelector` and makes the
    latter `selectors.DefaultSelector`. With `hide_epoll`, `select.epoll`, `select.EPOLL*` and
    `selectors.EpollSelector` are gone, as on macOS. Modules that look at import time for what
    there is must be imported anew inside the block. Selectors made in it go on working after it.
    Does nothing where there is a kqueue. Not for two threads at once.
    """
    if hasattr(platform_select, "kqueue"):
        yield
        return
    selector = kqueue_selector_class()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CONSTANTS | {"kqueue": Kqueue, "kevent": Kevent}).items():
            patch.setattr(select, name, value, raising=False)
        patch.setattr(selectors, "KqueueSelector", selector, raising=False)
        patch.setattr(selectors, "DefaultSelector", selector)
        if hide_epoll:
            patch.delattr(selectors, "EpollSelector")
            for name in [name for name in vars(select) if name.lower().startswith("epoll")]:
                patch.delattr(select, name)
        yield
