"""TLS over any stream transport of any asyncio loop, another TLS connection included.

Theory of operation. Two objects make one TLS connection. `TlsProtocol` is the protocol of the lower
transport, `SslTransport` the transport of the application's protocol, and between them a
`TlsEngine` has the keys. Its `TlsState` is the state of the connection; on top of that there are
but two flags: `_closing` (close() or abort() was called, or the lower transport is gone: nothing is
delivered any more) and `_paused` (the application does not want to read now).

Reading. The lower transport reads into a buffer that all connections of a loop share, as the engine
takes its contents at once; an idle connection holds no buffer. All that one wake-up brought is
delivered by one `data_received`. Pausing the application's reading pauses the lower transport at
once, so that the peer feels it; what had come by then stays encrypted in the engine.

Writing. Everything is encrypted and handed to the lower transport at once, except while the
application's protocol is being called about input (`_delivering`): what it writes then leaves as
one piece when it returns. The backlog thus is the lower transport's, whose marks are set to those
of the application, and its pause_writing() and resume_writing() are passed on.

Closing. close() says close_notify behind what has been written, discards what the peer still sends
until its own close_notify or the end, and then closes the lower transport. All of that may take
the shutdown timeout, and as much again whenever that sees the backlog shrink; then it is cut off.
"""

import asyncio
import ssl
from asyncio import constants
from asyncio.log import logger
from contextvars import copy_context
from typing import Any

from .._tls_engine import TlsEngine
from .._tls_state import TlsState
from ._flow_control import WriteFlowControl
from ._socket_tools import LOST_WRITES_BEFORE_WARNING, Buffer, report
from ._tls_app_transport import SslTransport
from ._tls_arguments import default_context, shared_buffer, timeout, writing_is_paused

HELD_WHILE_DELIVERING = 64 * 1024
"""Bytes of ciphertext that are not kept any longer for the sake of one larger send."""

# A global is found faster than an enum's member, and these are looked at for every message.
_HANDSHAKE, _OPEN, _PEER_CLOSED = TlsState.HANDSHAKE, TlsState.OPEN, TlsState.PEER_CLOSED


class TlsProtocol(asyncio.BufferedProtocol):
    """The protocol of a transport that carries TLS. Thread: the loop's.

    `app_protocol` gets its calls from `app_transport`, which exists from the start and until the
    connection is lost. `ssl_context` is True for a client's default. `waiter` gets the outcome of
    the handshake: None, ssl.SSLError (ssl.SSLCertVerificationError has the verify code),
    ConnectionResetError if the peer leaves, ConnectionAbortedError after `handshake_timeout`, or
    what broke the lower transport. With `call_connection_made=False` the application's protocol has
    had that call already. Timeouts are seconds, None for asyncio's 60 and 30. As in asyncio, a
    client without a `server_hostname` accepts the certificate of any host.

    Raises ValueError for a timeout that is not positive, for a server without a context, and for a
    host name that is malformed.
    """

    __slots__ = (
        "__weakref__",
        "_app",
        "_app_is_buffered",
        "_buffer",
        "_callback_context",
        "_closing",
        "_connected",
        "_context",
        "_delivering",
        "_engine",
        "_error",
        "_flow",
        "_flushing",
        "_handshake_timeout",
        "_loop",
        "_lost_writes",
        "_lower",
        "_paused",
        "_shutdown_timeout",
        "_started",
        "_timer",
        "_waiter",
        "app_transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app_protocol: asyncio.BaseProtocol,
        ssl_context: ssl.SSLContext | bool,
        waiter: "asyncio.Future[None] | None",
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        handshake_timeout: float | None = None,
        shutdown_timeout: float | None = None,
        call_connection_made: bool = True,
    ) -> None:
        self._handshake_timeout = timeout(
            handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT, "ssl_handshake_timeout"
        )
        self._shutdown_timeout = timeout(
            shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT, "ssl_shutdown_timeout"
        )
        if not isinstance(ssl_context, ssl.SSLContext):
            ssl_context = default_context(server_side, server_hostname)
        self._context = ssl_context
        self._engine = TlsEngine(
            ssl_context, server_side=server_side, server_hostname=server_hostname or ""
        )
        self._loop = loop
        self._buffer = shared_buffer(loop)
        self._lower: Any = None  # the transport below, from connection_made to connection_lost
        self._waiter = waiter
        self._timer: asyncio.TimerHandle | None = None
        self._started = 0.0  # of the handshake
        self._connected = not call_connection_made  # the application awaits connection_lost
        self._closing = False
        self._paused = False
        self._delivering = False
        self._error: BaseException | None = None  # for connection_lost
        self._flushing = 0  # the backlog when the shutdown timer was set
        self._lost_writes = 0
        self.app_transport = SslTransport(self)
        self._flow = WriteFlowControl(loop, self.app_transport, app_protocol)
        self.set_app_protocol(app_protocol)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine.state.name} over {self._lower!r}>"

    def set_app_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._app: Any = protocol
        self._app_is_buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self._flow.protocol = protocol

    # Called by the lower transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lower = transport
        self._callback_context = copy_context()
        if self._closing:  # the connect was cancelled before it got here
            self._lower.abort()
            return
        if self._connected:
            self._flow.paused = writing_is_paused(transport)
        # With equal marks, the lower transport is full exactly when the writer must pause.
        self._lower.set_write_buffer_limits(self._flow.high, self._flow.low)
        self._timer = self._loop.call_later(self._handshake_timeout, self._handshake_timed_out)
        if self._loop.get_debug():
            logger.debug("%r starts SSL handshake", self)
            self._started = self._loop.time()
        self._handshake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.feed(self._buffer[:nbytes])

    def feed(self, data: bytes | memoryview) -> None:
        """Take ciphertext, and do all that can be done with it."""
        engine = self._engine
        engine.receive_data(data)
        state = engine.state
        if state is _OPEN:
            if not self._paused:
                self._deliver()
        elif state is _HANDSHAKE:
            self._handshake()
        else:
            self._flush()
            self._close_lower_if_done()

    def eof_received(self) -> bool:
        if self._loop.get_debug():
            logger.debug("%r received EOF", self)
        self._engine.receive_eof()
        if self._engine.state is _HANDSHAKE:
            self._fail(
                ConnectionResetError("the peer closed the connection during the SSL handshake"),
                "SSL handshake failed",
            )
        elif self._closing:
            self._close_lower_if_done()
        elif not self._paused:
            self._deliver()
        return not self._closing  # what is held back by a pause has to be read first

    def pause_writing(self) -> None:
        if self._connected:
            self._flow.grown(self.get_write_buffer_size())

    def resume_writing(self) -> None:
        if self._connected:
            self._flow.shrunk(self.get_write_buffer_size())

    def connection_lost(self, exc: BaseException | None) -> None:
        exc = self._error or exc
        self._closing = True
        self._cancel_timer()
        self._engine.abandon()
        self._wake_waiter(
            exc or ConnectionResetError("the connection was lost during the SSL handshake")
        )
        try:
            if self._connected:
                self._connected = False
                self._app.connection_lost(exc)
        finally:
            # No cycles: what OpenSSL holds is to be freed now, not by the garbage collector.
            self._flow.release()
            self._app = self._lower = self._error = self._engine.error = None
            del self.app_transport

    # Handshake

    def _handshake(self) -> None:
        try:
            done = self._engine.handshake()
        except ssl.SSLCertVerificationError as exc:
            self._fail(exc, "SSL handshake failed on verifying the certificate")
            return
        except Exception as exc:  # ssl.SSLError, or what a callback of the context raised
            self._fail(exc, "SSL handshake failed")
            return
        if not done:
            self._flush()
            return
        self._cancel_timer()
        if self._loop.get_debug():
            milliseconds = (self._loop.time() - self._started) * 1e3
            logger.debug("%r: SSL handshake took %.1f ms", self, milliseconds)
        upgraded = self._connected
        if not upgraded:
            self._connected = True
            self._delivering = True  # what is written now leaves with the end of the handshake
            try:
                self._app.connection_made(self.app_transport)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._app_failed(exc, "connection_made")
            finally:
                self._delivering = False
        elif self._paused:
            self._lower.pause_reading()
        self._flush()
        self._wake_waiter(None)
        if self._paused or self._closing:
            return
        if upgraded:
            # The first data comes once start_tls() has returned: before that, the application has
            # but the plain transport to answer by.
            self._lower.pause_reading()
            self._loop.call_soon(self._read_on, context=self._callback_context)
        else:
            self._deliver()

    def _handshake_timed_out(self) -> None:
        self._fail(
            ConnectionAbortedError(
                f"SSL handshake is taking longer than {self._handshake_timeout} seconds: "
                "aborting the connection"
            ),
            "SSL handshake failed",
        )

    def _wake_waiter(self, exc: BaseException | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)

    # Reading

    def _deliver(self) -> None:
        """Pass on what the engine has, and see to what has become of the connection."""
        engine = self._engine
        try:
            if self._app_is_buffered:
                self._deliver_into_buffers()
            elif data := engine.read_available():
                self._delivering = True
                self._app.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if exc is not engine.error:
                self._app_failed(exc, "data_received")
        finally:
            self._delivering = False
            self._flush()
        if engine.state is not _OPEN:
            self._ended()

    def _deliver_into_buffers(self) -> None:
        engine = self._engine
        self._delivering = True
        step = "get_buffer"
        try:
            while self._app_is_buffered and engine.state is _OPEN and not self._paused:
                if not engine.readable:
                    return
                step = "get_buffer"
                buffer = self._app.get_buffer(-1)
                if not len(buffer):
                    raise RuntimeError("get_buffer() returned an empty buffer")
                count = engine.read_into(buffer)
                if not count:
                    return
                step = "buffer_updated"
                self._app.buffer_updated(count)
            if not self._app_is_buffered:  # set_protocol() was called
                self._loop.call_soon(self._read_on, context=self._callback_context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if exc is not engine.error:
                self._app_failed(exc, step)

    def _ended(self) -> None:
        """The engine is open no longer: find out why, and draw the conclusion."""
        engine = self._engine
        if engine.state is _PEER_CLOSED:
            if not self._paused:
                self._tell_eof()
                self.close()
        elif engine.error is not None and not self._closing:
            self._fail(engine.error, "Fatal error on SSL protocol")
        else:
            self._close_lower_if_done()

    def _tell_eof(self) -> None:
        try:
            if self._app.eof_received():
                logger.warning("returning true from eof_received() has no effect when using ssl")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._app_failed(exc, "eof_received")

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        if self.is_reading():
            self._paused = True
            if self._engine.state is not _HANDSHAKE:
                self._lower.pause_reading()

    def resume_reading(self) -> None:
        if not self._paused or self._closing:
            return
        self._paused = False
        if self._engine.readable:
            self._loop.call_soon(self._read_on, context=self._callback_context)
        elif self._engine.state is not _HANDSHAKE:
            self._lower.resume_reading()

    def _read_on(self) -> None:
        """Deliver what came before reading was paused, and only then what is to come."""
        if self.is_reading():
            self._deliver()
        if not self._paused and self._lower is not None:  # if closing, to hear of the peer's end
            self._lower.resume_reading()

    # Writing

    def write(self, data: Buffer) -> None:
        if self._closing:
            self._lost_writes += 1
            if self._lost_writes > LOST_WRITES_BEFORE_WARNING:
                logger.warning("SSL connection is closed")
            return
        try:
            self._engine.write(data)
        except ssl.SSLError as exc:
            self._fail(exc, "Fatal error on SSL protocol")
            return
        if not self._delivering or self._engine.unsent > HELD_WHILE_DELIVERING:
            self._flush()

    def _flush(self) -> None:
        data = self._engine.data_to_send()
        if data and self._lower is not None:
            self._lower.write(data)

    def get_write_buffer_size(self) -> int:
        below = 0 if self._lower is None else self._lower.get_write_buffer_size()
        return self._engine.unsent + int(below)

    def set_write_buffer_limits(self, high: int | None, low: int | None) -> None:
        self._flow.set_limits(high, low, self.get_write_buffer_size())
        if self._lower is not None:
            self._lower.set_write_buffer_limits(self._flow.high, self._flow.low)

    # Closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._engine.state is _HANDSHAKE:
            self.abort()
            return
        self._engine.shutdown()
        self._start_shutdown_timer()
        self._flush()
        if self._paused:
            self._lower.resume_reading()  # to hear the peer's close_notify
        self._close_lower_if_done()

    def abort(self) -> None:
        self._closing = True
        self._engine.abandon()
        self._engine.data_to_send()
        if self._lower is not None:
            self._lower.abort()

    def _close_lower_if_done(self) -> None:
        if self._engine.state in (TlsState.CLOSED, TlsState.FAILED):
            self._lower.close()

    def _start_shutdown_timer(self) -> None:
        self._flushing = self.get_write_buffer_size()
        self._timer = self._loop.call_later(self._shutdown_timeout, self._shutdown_timed_out)

    def _shutdown_timed_out(self) -> None:
        if self.get_write_buffer_size() < self._flushing:
            self._start_shutdown_timer()  # slow, but not stuck
            return
        self._error = self._error or TimeoutError("SSL shutdown timed out")
        self.abort()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fail(self, exc: BaseException, message: str) -> None:
        """End a broken connection; an alert for the peer is sent before."""
        expected = isinstance(exc, OSError)
        report(self._loop, exc, message, self.app_transport, self._app, expected=expected)
        self._error = exc
        self._closing = True
        self._wake_waiter(exc)
        self._cancel_timer()
        if self._engine.state is TlsState.FAILED:
            self._flush()
            self._start_shutdown_timer()
            self._lower.close()
        else:
            self.abort()

    def _app_failed(self, exc: BaseException, method: str) -> None:
        self._fail(exc, f"Fatal error: protocol.{method}() call failed.")

    # For SslTransport

    def get_protocol(self) -> Any:
        return self._app

    def get_extra_info(self, name: str, default: Any) -> Any:
        if name == "sslcontext":
            return self._context
        ssl_object = self._engine.ssl_object
        if ssl_object.version() is not None:  # after the handshake
            match name:
                case "ssl_object":
                    return ssl_object
                case "peercert":
                    return self._engine.peer_certificate
                case "cipher":
                    return ssl_object.cipher()
                case "compression":
                    return ssl_object.compression()
        return default if self._lower is None else self._lower.get_extra_info(name, default)
