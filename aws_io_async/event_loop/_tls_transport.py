"""TLS for the rest of the loop: `TlsProtocol`, `SslTransport`, and the upgrade of a connection."""

import asyncio
import ssl
from typing import Any

from ._tls_app_transport import SslTransport as SslTransport
from ._tls_protocol import TlsProtocol as TlsProtocol


async def start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: Any,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> asyncio.Transport:
    """Put TLS on a connection that is open; returns the transport to use from now on.

    `transport` is one of ours or of the loop's, plain or TLS, and `protocol` goes on as the
    protocol of the new one. If that is asyncio's `StreamReaderProtocol`, what its reader has
    buffered is taken for the beginning of the TLS conversation, never for the application's: the
    peer may have sent it right behind the line that asked for TLS.

    Raises TypeError for a transport or a context that cannot do this, ConnectionResetError if the
    connection is closing, and what `TlsProtocol` says of the arguments and the handshake. A failed
    or cancelled handshake closes the connection.

    Thread: the loop's.
    """
    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
        )
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    if transport.is_closing():
        raise ConnectionResetError("start_tls() on a connection that is closed or closing")
    waiter: asyncio.Future[None] = loop.create_future()
    tls = TlsProtocol(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side=server_side,
        server_hostname=server_hostname,
        handshake_timeout=ssl_handshake_timeout,
        shutdown_timeout=ssl_shutdown_timeout,
        call_connection_made=False,
    )
    app_transport = tls.app_transport
    transport.set_protocol(tls)
    try:
        tls.connection_made(transport)
        if isinstance(protocol, asyncio.StreamReaderProtocol):
            _take_over_stream(protocol, transport, tls)
        transport.resume_reading()  # the reader may have paused it
        await waiter
    except BaseException:
        app_transport.close()
        raise
    finally:
        del waiter  # its exception has a traceback, which leads to this frame
    return app_transport


def _take_over_stream(protocol: Any, transport: Any, tls: TlsProtocol) -> None:
    """Make a stream use the new transport, and move what it has read ahead to the engine.

    asyncio does the first after the handshake, and for the writer only: by then the reader may have
    paused the wrong transport.
    """
    protocol._over_ssl = True
    reader = protocol._stream_reader
    if reader is None or reader._transport is not transport:  # it has no transport yet
        return
    protocol._transport = tls.app_transport
    reader._transport = tls.app_transport
    reader._paused = False
    read_ahead = bytes(reader._buffer)
    reader._buffer.clear()
    if read_ahead:
        tls.feed(read_ahead)
    if reader._eof:
        tls.eof_received()
