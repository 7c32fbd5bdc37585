"""Bootstraps: from a name and a port to a channel that is ready, and from a port to channels.

Source: aws-c-io's `channel_bootstrap.h`. Reference counts are Python's own; what is a callback
there can be awaited here, or be one, or both.
"""

from ._client import ClientBootstrap
from ._server import ServerBootstrap, SocketListener

__all__ = ["ClientBootstrap", "ServerBootstrap", "SocketListener"]
