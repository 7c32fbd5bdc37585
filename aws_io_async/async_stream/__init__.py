"""Byte streams that are awaited: sources, sinks, and what joins them to everybody else's.

An `AsyncInputStream` is an anyio `ByteReceiveStream` and an `AsyncOutputStream` a `ByteSendStream`:
whatever takes those takes these. The other way, `from_anyio`, `from_reader` and `from_writer` take
anyio's and asyncio's streams, `from_pipe` an end of one of our pipes, `from_path` and
`from_open_file` files, which are read and written on worker threads, and `from_stream` an
`InputStream`. `stream_reader` and `stream_writer` hand one of ours to code that wants asyncio's.
`pump` copies from a source to a sink.

A stream closes what it opened itself, and leaves open what it was given.

Errors: what belongs to a stream's use is told as anyio does (`ClosedResourceError`,
`BusyResourceError`, `EndOfStream`); a file that fails raises `AwsIoError`; what another library's
stream raises passes through.

Source: aws-c-io, `async_stream.h`, which has the input alone.
"""

from ._asyncio_ends import stream_reader, stream_writer
from ._input import AsyncInputStream
from ._output import AsyncOutputStream
from ._pump import pump

__all__ = ["AsyncInputStream", "AsyncOutputStream", "pump", "stream_reader", "stream_writer"]
