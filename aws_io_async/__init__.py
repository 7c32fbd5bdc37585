"""aws-c-io reborn for asyncio: an event loop in pure Python, and the AWS CRT's I/O model on it.

The names below are imported when they are first used.

PYTEST_DONT_REWRITE: the package has a plugin for pytest, which otherwise warns of each program that
imports the package before pytest.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from .channel import Channel as Channel
    from .channel import ChannelDirection as ChannelDirection
    from .channel import ChannelHandler as ChannelHandler
    from .channel import ChannelSlot as ChannelSlot
    from .channel_bootstrap import ClientBootstrap as ClientBootstrap
    from .channel_bootstrap import ServerBootstrap as ServerBootstrap
    from .channel_stream import ChannelStream as ChannelStream
    from .channel_stream import connect as connect
    from .channel_stream import serve as serve
    from .errors import AwsIoError as AwsIoError
    from .errors import ErrorCode as ErrorCode
    from .event_loop._loop import EventLoop as EventLoop
    from .event_loop._statistics import LoopStatistics as LoopStatistics
    from .event_loop.entry import new_event_loop as new_event_loop
    from .event_loop.entry import run as run
    from .event_loop.group import EventLoopGroup as EventLoopGroup
    from .event_loop.group import EventLoopType as EventLoopType
    from .event_loop.policy import EventLoopPolicy as EventLoopPolicy
    from .event_loop.policy import install as install
    from .host_resolver import HostResolutionConfig as HostResolutionConfig
    from .host_resolver import HostResolver as HostResolver
    from .message_pool import IoMessage as IoMessage
    from .socket import SocketDomain as SocketDomain
    from .socket import SocketEndpoint as SocketEndpoint
    from .socket import SocketOptions as SocketOptions
    from .tls_context import TlsConnectionOptions as TlsConnectionOptions
    from .tls_context import TlsContext as TlsContext
    from .tls_context import TlsContextOptions as TlsContextOptions

_HOME = {
    "AwsIoError": "errors",
    "Channel": "channel",
    "ChannelDirection": "channel",
    "ChannelHandler": "channel",
    "ChannelSlot": "channel",
    "ChannelStream": "channel_stream",
    "ClientBootstrap": "channel_bootstrap",
    "ErrorCode": "errors",
    "EventLoop": "event_loop._loop",
    "EventLoopGroup": "event_loop.group",
    "EventLoopType": "event_loop.group",
    "HostResolutionConfig": "host_resolver",
    "HostResolver": "host_resolver",
    "IoMessage": "message_pool",
    "LoopStatistics": "event_loop._statistics",
    "ServerBootstrap": "channel_bootstrap",
    "SocketDomain": "socket",
    "SocketEndpoint": "socket",
    "SocketOptions": "socket",
    "TlsConnectionOptions": "tls_context",
    "TlsContext": "tls_context",
    "TlsContextOptions": "tls_context",
    "connect": "channel_stream",
    "new_event_loop": "event_loop.entry",
    "run": "event_loop.entry",
    "serve": "channel_stream",
}
if sys.version_info < (3, 16):  # where asyncio has policies
    _HOME |= {"EventLoopPolicy": "event_loop.policy", "install": "event_loop.policy"}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
