"""Our loop, server and transports take what the newest asyncio's take, on every Python.

What the running Python's asyncio accepts, ours must accept: the same names, in the same order, of
the same kind, with the same defaults. `Newest` spells out the methods that newer Pythons gave
more parameters than the oldest Python we support has.
"""

import asyncio
import inspect
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop._datagram import DatagramTransport
from aws_io_async.event_loop._pipes import ReadPipeTransport, WritePipeTransport
from aws_io_async.event_loop._server import Server
from aws_io_async.event_loop._subprocess import SubprocessTransport
from aws_io_async.event_loop._tls_transport import SslTransport
from aws_io_async.event_loop._transport import SocketTransport


class NewestLoop:
    """Methods of asyncio's loop as of Python 3.14."""

    def create_task(self, coro: Any, **kwargs: Any) -> Any: ...

    async def shutdown_default_executor(self, timeout: Any = None) -> Any: ...

    async def create_connection(
        self,
        protocol_factory: Any,
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        family: Any = 0,
        proto: Any = 0,
        flags: Any = 0,
        sock: Any = None,
        local_addr: Any = None,
        server_hostname: Any = None,
        ssl_handshake_timeout: Any = None,
        ssl_shutdown_timeout: Any = None,
        happy_eyeballs_delay: Any = None,
        interleave: Any = None,
        all_errors: Any = False,
    ) -> Any: ...

    async def create_server(
        self,
        protocol_factory: Any,
        host: Any = None,
        port: Any = None,
        *,
        family: Any = socket.AF_UNSPEC,
        flags: Any = socket.AI_PASSIVE,
        sock: Any = None,
        backlog: Any = 100,
        ssl: Any = None,
        reuse_address: Any = None,
        reuse_port: Any = None,
        keep_alive: Any = None,
        ssl_handshake_timeout: Any = None,
        ssl_shutdown_timeout: Any = None,
        start_serving: Any = True,
    ) -> Any: ...

    async def create_unix_server(
        self,
        protocol_factory: Any,
        path: Any = None,
        *,
        sock: Any = None,
        backlog: Any = 100,
        ssl: Any = None,
        ssl_handshake_timeout: Any = None,
        ssl_shutdown_timeout: Any = None,
        start_serving: Any = True,
        # A new argument, but not a change of what older Pythons' programs rely on.
        cleanup_socket: Any = sys.version_info >= (3, 13),
    ) -> Any: ...


class NewestServer:
    """Methods of asyncio's `Server` as of Python 3.14."""

    def close_clients(self) -> Any: ...

    def abort_clients(self) -> Any: ...


# asyncio's own loop says `sock_recv(sock, n)`, its documentation `sock_recv(sock, nbytes)`.
SYNONYMS = {"nbytes": "n"}

TRANSPORTS: list[tuple[type, type]] = [
    (SocketTransport, asyncio.Transport),
    (SslTransport, asyncio.Transport),
    (DatagramTransport, asyncio.DatagramTransport),
    (SubprocessTransport, asyncio.SubprocessTransport),
    (ReadPipeTransport, asyncio.ReadTransport),
    (WritePipeTransport, asyncio.WriteTransport),
]

# What ours is compared with, the first class that has a method being the one that counts. It is
# asyncio's own loop, since `AbstractEventLoop` lags behind what users get.
COMPARED: list[tuple[type, tuple[type, ...]]] = [
    (EventLoop, (NewestLoop, asyncio.SelectorEventLoop)),
    (Server, (NewestServer, asyncio.base_events.Server)),
    *((ours, (theirs,)) for ours, theirs in TRANSPORTS),
]

Parameters = list[inspect.Parameter]


def public_methods(cls: type) -> list[str]:
    return [
        name
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_") and not isinstance(member, type)
    ]


def split(method: Callable[..., object]) -> tuple[Parameters, dict[str, inspect.Parameter]]:
    """The positional parameters in their order, and the others by name; annotations removed."""
    parameters = [
        p.replace(name=SYNONYMS.get(p.name, p.name), annotation=p.empty)
        for p in inspect.signature(method).parameters.values()
    ]
    parameters[0] = parameters[0].replace(name="self")  # whatever it is called: nobody passes it
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional, {p.name: p for p in parameters if p not in positional}


def has(parameters: dict[str, inspect.Parameter], kind: Any) -> bool:
    return any(p.kind is kind for p in parameters.values())


def differences(ours: Callable[..., object], theirs: Callable[..., object]) -> list[str]:
    """Why a call that `theirs` accepts could fail, or mean something else, with `ours`."""
    our_positional, our_others = split(ours)
    positional, others = split(theirs)
    found = []
    if our_positional[: len(positional)] != positional:
        found.append(f"positional parameters: {our_positional} instead of {positional}")
    for name, parameter in others.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if our_others.get(name) != parameter:
                found.append(f"{parameter!r}: ours is {our_others.get(name)!r}")
        elif not has(our_others, parameter.kind):
            found.append(f"{parameter!r} is missing")
    required = inspect.Parameter.empty
    for more in [*our_positional[len(positional) :], *our_others.values()]:
        variable = more.kind in (more.VAR_POSITIONAL, more.VAR_KEYWORD)
        if more.name not in others and more.default is required and not variable:
            found.append(f"{more!r} is required by ours only")
    return found


def expectations() -> Iterator[Any]:
    for ours, models in COMPARED:
        for name in sorted({name for model in models for name in public_methods(model)}):
            theirs = next(getattr(model, name) for model in models if hasattr(model, name))
            yield pytest.param(ours, theirs, id=f"{ours.__name__}.{name}")


@pytest.mark.parametrize(("ours", "theirs"), list(expectations()))
def test_takes_the_same_parameters(ours: type, theirs: Callable[..., object]) -> None:
    method = getattr(ours, theirs.__name__, None)
    assert method is not None
    assert not differences(method, theirs)


@pytest.mark.parametrize(
    ("newest", "running"),
    [(NewestLoop, asyncio.SelectorEventLoop), (NewestServer, asyncio.base_events.Server)],
)
def test_the_running_asyncio_is_no_newer_than_the_newest(newest: type, running: type) -> None:
    for name in set(public_methods(newest)) & set(public_methods(running)):
        known = inspect.signature(getattr(newest, name)).parameters
        unknown = inspect.signature(getattr(running, name)).parameters.keys() - known.keys()
        assert not unknown or "kwargs" in known, name


ABSTRACT: list[tuple[type, type]] = [
    (EventLoop, asyncio.AbstractEventLoop),
    (Server, asyncio.AbstractServer),
    *TRANSPORTS,
]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    # Of asyncio's own datagram transports the last is true, too, and programs ask.
    [*ABSTRACT, (DatagramTransport, asyncio.Transport)],
)
def test_is_an_asyncio_class(ours: type, theirs: type) -> None:
    assert issubclass(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), ABSTRACT)
def test_implements_every_abstract_method(ours: type, theirs: type) -> None:
    inherited = [m for m in public_methods(theirs) if getattr(ours, m) is getattr(theirs, m)]
    codes = {name: inspect.unwrap(getattr(theirs, name)).__code__ for name in inherited}
    assert [name for name in codes if "NotImplementedError" in codes[name].co_names] == []
