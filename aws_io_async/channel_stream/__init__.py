"""The application's end of a channel as a byte stream, and the short way to one.

    async with await aws_io_async.connect("example.org", 443, tls=True) as stream:
        await stream.send(b"...")
        async for data in stream:
            ...

    async with aws_io_async.serve(handler, "127.0.0.1", 8443, tls=context) as listener:
        await listener.wait_closed()

How it works is told at the heads of `_stream` and `_handler`.
"""

from ._connect import connect
from ._handler import WINDOW
from ._serve import serve
from ._stream import ChannelStream

__all__ = ["WINDOW", "ChannelStream", "connect", "serve"]
