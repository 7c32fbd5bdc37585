"""TLS as a handler of a channel: ciphertext to its left, plaintext to its right.

Theory of operation. The handler owns a `TlsEngine`. Ciphertext that comes goes in at once, but no
more is decrypted than the window to the right allows: the rest stays in the engine until that
window grows. `_state` says where the negotiation is, and whether the connection is still good.

The handler's own window is for ciphertext, and follows the one to the right: `CiphertextWindow`.

The read direction ends when all plaintext that had come has been taken: a graceful shutdown waits
for the window, an immediate one drops what is left. Whether anything is left only decrypting tells,
as close_notify and session tickets look like data: to that end, and then only, one byte is read
ahead of a shut window. The write direction ends with close_notify.

Source: aws-c-io's `tls_channel_handler.h` and the handlers behind it.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable

from . import log
from ._ssl_context import requested_name
from ._tls_channel_state import LEGAL_MOVES, State, ended, is_socket_closed, unknown, why_not
from ._tls_engine import MAX_PLAINTEXT, TlsEngine
from ._tls_held_writes import HeldWrites, completing
from ._tls_state import TlsState
from ._tls_window import HANDSHAKE_WINDOW, RECORD_OVERHEAD, CiphertextWindow
from .channel import ChannelDirection, ChannelHandler, ChannelSlot, ChannelTask
from .errors import AwsIoError, Code, ErrorCode, make, translate
from .event_loop.tasks import TaskStatus
from .message_pool import DataMessage, IoMessage, MessageType
from .statistics import TlsNegotiationStatus, TlsStatistics
from .tls_context import TlsConnectionOptions, TlsNegotiatedProtocol

logger = log.logger(log.LogSubject.TLS)


# Looked at for every message: a global is found faster than an enum's member.
_NEGOTIATED, _FAILED, _DATA = State.NEGOTIATED, State.FAILED, MessageType.APPLICATION_DATA
_READ, _WRITE = ChannelDirection.READ, ChannelDirection.WRITE


class TlsChannelHandler(ChannelHandler):
    """One side of a TLS connection. To be put in a slot, and then told to start.

    The callbacks of `options` are called on the channel's thread: `on_negotiation_result` once,
    with the error if it failed or the channel ended first; `on_data_read(handler, slot, data)` for
    all plaintext, before it goes to the right; `on_error(handler, slot, error)` once, if the
    connection breaks later. A failure shuts the channel down with the error. `options.timeout`
    seconds bound the negotiation (IO_TLS_NEGOTIATION_TIMEOUT).

    Plaintext that comes while there is no handler to the right is kept for one, unless there is an
    `on_data_read`. When the peer says close_notify, the channel is shut down without an error; an
    END_OF_INPUT before that shuts it down with IO_TLS_CLOSED_ABORT, as data may be missing.

    Raises IO_TLS_CTX_ERROR for a context of the other side, and for a `server_name` that is missing
    or malformed. Thread: the channel's, where no other is named.
    """

    initial_window_size = HANDSHAKE_WINDOW
    message_overhead = RECORD_OVERHEAD

    def __init__(self, options: TlsConnectionOptions, server_side: bool) -> None:
        if not isinstance(options, TlsConnectionOptions):
            raise TypeError(f"options must be TlsConnectionOptions, not {options!r}")
        if options.context.server_side is not server_side:
            has, needs = ("a client", "a server") if server_side else ("a server", "a client")
            raise make(ErrorCode.IO_TLS_CTX_ERROR, f"the context is {has}'s, not {needs}'s")
        self._options = options
        self._server_side = server_side
        try:
            self._engine = TlsEngine(
                options.effective_context.ssl_context,
                server_side=server_side,
                server_hostname=options.server_name,
            )
        except ValueError as exc:
            raise make(
                ErrorCode.IO_TLS_CTX_ERROR, f"server_name {options.server_name!r}: {exc}"
            ) from exc
        self._state = State.WAITING
        self._direct = False  # whether what comes is for nobody but the slot to the right
        self._writes = False  # whether what is to be written can be
        self._error: BaseException | None = None  # why it is FAILED
        self._timer: asyncio.TimerHandle | None = None
        self._window = CiphertextWindow()
        self._drained: asyncio.Future[None] | None = None  # done when no plaintext is left
        self._ahead = b""
        self._held = HeldWrites()
        self._reading_ended = False
        self._writing_ended = False
        self.statistics = TlsStatistics()

    @classmethod
    def client(cls, options: TlsConnectionOptions) -> "TlsChannelHandler":
        """The client's side."""
        return cls(options, server_side=False)

    @classmethod
    def server(cls, options: TlsConnectionOptions) -> "TlsChannelHandler":
        """The server's side."""
        return cls(options, server_side=True)

    @property
    def protocol(self) -> str:
        """What ALPN has settled on, such as "h2"; "" for nothing. Known after the negotiation."""
        return self._engine.selected_alpn_protocol or ""

    @property
    def server_name(self) -> str | None:
        """The server's name as the client knows it, which it verifies and sends (SNI).

        On the server's side it is what came, None if nothing did, and always None with an
        SSLContext of one's own, which has an `sni_callback` for that.
        """
        if not self._server_side:
            return self._options.server_name
        return requested_name(self._engine.ssl_object)

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The connection, to ask it for version, cipher and certificate."""
        return self._engine.ssl_object

    def __repr__(self) -> str:
        side = "server" if self._server_side else "client"
        return f"<TlsChannelHandler {side} {self._state.name} {self._engine.version or ''}>"

    def _move_to(self, state: State) -> None:
        if state not in LEGAL_MOVES[self._state]:
            raise AssertionError(f"a TLS handler cannot go from {self._state} to {state}")
        self._state = state
        self._direct = state is _NEGOTIATED and self._options.on_data_read is None
        self._writes = state is _NEGOTIATED and not self._writing_ended

    def _own_slot(self) -> ChannelSlot:
        if self.slot is None:
            raise RuntimeError("put the TLS handler in a slot first")
        return self.slot

    # Negotiation

    def start_negotiation(self) -> None:
        """Begin: the client speaks first, the time of both begins to run. Harmless if it has begun.

        RuntimeError if the handler is in no slot. Thread: any.
        """
        channel = self._own_slot().channel
        if channel.thread_is_callers_thread():
            self._start_negotiation()
        else:
            channel.schedule_task_now(ChannelTask(self._start_by_task, "start_negotiation"))

    def _start_by_task(self, task: ChannelTask, status: TaskStatus) -> None:
        if status is TaskStatus.RUN_READY:
            self._start_negotiation()

    def _start_negotiation(self) -> None:
        if self._state is not State.WAITING:
            return
        channel = self._own_slot().channel
        self._move_to(State.NEGOTIATING)
        self.statistics.handshake_status = TlsNegotiationStatus.ONGOING
        self.statistics.handshake_start_ns = channel.current_clock_time()
        if self._options.timeout:
            self._timer = channel.loop.call_later(
                self._options.timeout, self._negotiation_timed_out
            )
        self._negotiate()

    def _negotiate(self) -> None:
        try:
            done = self._engine.handshake()
        except OSError as exc:  # ssl.SSLError is one
            code = ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
            self._negotiation_failed(translate(exc, self._peer(), fallback=code))
            return
        self._flush()
        if done:
            self._negotiation_succeeded()

    def _peer(self) -> str:
        name = self._options.server_name
        return f"server name {name!r}" if name and not self._server_side else ""

    def _negotiation_succeeded(self) -> None:
        slot = self._own_slot()
        self._move_to(_NEGOTIATED)
        self._note_end(TlsNegotiationStatus.SUCCESS)
        logger.debug("%r: negotiated, protocol %r", self, self.protocol)
        if self._options.advertise_alpn_message and slot.right is not None:
            tag = TlsNegotiatedProtocol(self.protocol)
            message = IoMessage(message_type=MessageType.OTHER, tag=tag)
            slot.send_message(message, _READ)
        self._report(slot.channel.error)  # the protocol may have been refused just now
        self._deliver()

    def _negotiation_timed_out(self) -> None:
        detail = f"not finished in {self._options.timeout:g} s"
        self._negotiation_failed(self._made(ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT, detail))

    def _made(self, code: Code, detail: str) -> AwsIoError:
        return make(code, ": ".join(filter(None, (self._peer(), detail))))

    def _negotiation_failed(self, error: BaseException) -> None:
        self._flush()  # the alert that tells the peer why
        self._own_slot().channel.shutdown(error)
        self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self._fail(error)
        self._note_end(TlsNegotiationStatus.FAILURE)
        self._engine.abandon()
        self._report(error)

    def _fail(self, error: BaseException) -> None:
        self._move_to(_FAILED)
        self._error = error
        logger.debug("%r: %s", self, error)

    def _note_end(self, status: TlsNegotiationStatus) -> None:
        self.statistics.handshake_status = status
        self.statistics.handshake_end_ns = self._own_slot().channel.current_clock_time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report(self, error: BaseException | None) -> None:
        if self._options.on_negotiation_result is not None:
            self._options.on_negotiation_result(self, self._own_slot(), error)

    # Reading

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        """Take ciphertext, and pass on as much plaintext as the window to the right allows.

        Raises IO_CHANNEL_UNKNOWN_MESSAGE_TYPE for another handler's messages.
        """
        lane = slot.lane_to_right
        if self._direct and lane is not None and message.message_type is _DATA:
            # Most messages: there is no window to be minded, and nobody else to be told.
            engine = self._engine
            try:
                data = engine.receive_and_read(message.data)
            except ssl.SSLError:  # is raised again
                data = None
            if data:
                done = engine.settled
                message = DataMessage()
                message.data = data
                message.message_type = _DATA
                message.on_completion = message.tag = None
                lane.deliver(message)
                if done:
                    return
            self._deliver()
            return
        if self._state is _FAILED or self._reading_ended:
            return
        size = len(message.data)
        if message.message_type is _DATA:
            self._window.expected -= size
            self._engine.receive_data(message.data)
        elif message.message_type is MessageType.END_OF_INPUT:
            self._engine.receive_eof()
        else:
            raise unknown(message)
        if self._state is _NEGOTIATED:
            self._deliver()
            return
        self._window.ask(slot, size)  # a handshake needs no window: it takes all that comes
        if self._state is State.WAITING:
            self._start_negotiation()
        else:
            self._negotiate()

    def _deliver(self) -> None:
        """Pass on as much plaintext as there is, and is wanted."""
        slot = self.slot or self._own_slot()
        engine = self._engine
        while not self._reading_ended:
            window = slot.downstream_read_window if slot.right is not None else self._room(slot)
            if not window and (self._drained is None or self._ahead):
                break
            try:
                data = self._read(window or 1)
            except ssl.SSLError as exc:
                self._broken(translate(exc, fallback=ErrorCode.IO_TLS_ERROR_READ_FAILURE))
                break
            if not data:
                if data is not None:
                    self._peer_closed()
                elif window and self._window.is_low:
                    self._window.follow(slot, window)
                self._end_drain()
                break
            if not window:
                self._ahead = data
                break
            if self._options.on_data_read is not None:
                self._options.on_data_read(self, slot, data)
            if slot.right is not None:
                slot.send_message(IoMessage(data), _READ)
            if engine.idle and not self._window.is_low and self._drained is None:
                return  # another round would find nothing to do
        if engine.unsent:
            self._flush()  # TLS answers some of what it reads by itself

    def _read(self, window: int) -> bytes | None:
        """Decrypt so much plaintext, or what is left of it beside the byte that was read ahead."""
        ahead, self._ahead = self._ahead, b""
        if not ahead:
            return self._engine.read(window)
        if window > 1:
            with contextlib.suppress(ssl.SSLError):  # the next read will raise it again
                ahead += self._engine.read(window - 1) or b""
        return ahead

    def _room(self, slot: ChannelSlot) -> int:
        """How much plaintext is wanted."""
        if slot.right is None:
            return MAX_PLAINTEXT if self._options.on_data_read is not None else 0
        return slot.downstream_read_window

    def _peer_closed(self) -> None:
        if self._engine.clean_close:
            self._own_slot().channel.shutdown(None)
        else:
            detail = "the peer left without close_notify"
            self._broken(self._made(ErrorCode.IO_TLS_CLOSED_ABORT, detail))

    def _broken(self, error: AwsIoError) -> None:
        if self._state is _FAILED:
            return
        slot = self._own_slot()
        self._fail(error)
        self._end_drain()
        self._held.fail(slot.channel, error)
        slot.channel.shutdown(error)
        if self._options.on_error is not None:
            self._options.on_error(self, slot, error)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        """The slot to the right takes more: ask for the ciphertext, and pass on what is here."""
        if self._state is _FAILED or self._reading_ended:
            return
        if room := self._room(slot):
            self._window.follow(slot, room)
            if self._state is _NEGOTIATED:
                self._deliver()

    # Writing

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        """Encrypt a message and pass it on.

        One that cannot be sent is completed with the error: IO_TLS_ERROR_NOT_NEGOTIATED if it comes
        too early, IO_TLS_ERROR_WRITE_FAILURE after the shutdown, ERROR_UNSUPPORTED_OPERATION for
        END_OF_INPUT, as TLS ends both directions at once. If nobody waits for its completion,
        something would be missing from the stream: then the error is raised, and ends the channel.
        """
        if not self._writes or message.message_type is not _DATA:
            self._refuse(slot, message, why_not(message, self._error, self._writing_ended))
            return
        try:
            ciphertext = self._engine.encrypt(message.data)
        except ssl.SSLError as exc:
            error = translate(exc, fallback=ErrorCode.IO_TLS_ERROR_WRITE_FAILURE)
            self._broken(error)
            self._refuse(slot, message, error)
            return
        if ciphertext is None:  # TLS 1.2 negotiates again
            self._held.hold(message)
            self._flush()
            return
        out = DataMessage()
        out.data = ciphertext
        out.message_type = _DATA
        out.tag = None
        out.on_completion = None if message.on_completion is None else completing(message)
        lane = slot.lane_to_left
        if lane is not None:
            lane.deliver(out)
        else:
            slot.send_message(out, _WRITE)

    def _refuse(self, slot: ChannelSlot, message: IoMessage, error: AwsIoError) -> None:
        if message.on_completion is None:
            raise error
        message.complete(slot.channel, error)

    def _flush(self) -> None:
        slot = self._own_slot()
        out = IoMessage(self._engine.data_to_send())
        if not out.data or slot.left is None:
            return
        if not self._engine.unsent:
            self._held.go_with(out)
        slot.send_message(out, _WRITE)

    # Shutdown

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> Awaitable[object] | None:
        if direction is _WRITE:
            # Who has ended the connection below TLS expects no close_notify.
            if not free_scarce_resources_immediately and not is_socket_closed(error):
                self._engine.shutdown()
                self._flush()
            self._engine.abandon()
            self._end_writing()
            self._held.fail(slot.channel, ended())
            return None
        if self._state in (State.WAITING, State.NEGOTIATING):
            code, detail = ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE, "the channel was shut down"
            self._negotiation_failed(error or self._made(code, detail))
        if (
            free_scarce_resources_immediately
            or self._state is _FAILED
            or slot.right is None
            or self._engine.state is not TlsState.OPEN
            or not self._engine.readable
        ):
            self._end_reading()
            return None
        return self._drain()

    async def _drain(self) -> None:
        """Wait until all plaintext that has come has been taken."""
        self._direct = False
        self._drained = asyncio.get_running_loop().create_future()
        try:
            self._deliver()
            if self._ahead:
                logger.warning("%r: the shutdown waits until what has come is taken", self)
            await self._drained
        finally:
            self._end_reading()

    def _end_reading(self) -> None:
        self._reading_ended = True
        self._direct = False

    def _end_writing(self) -> None:
        self._writing_ended = True
        self._writes = False

    def _end_drain(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def close(self) -> None:
        """The channel has ended, or goes on without TLS: nobody will be told anything any more."""
        if self._state in (State.WAITING, State.NEGOTIATING):
            code, detail = ErrorCode.ERROR_IO_OPERATION_CANCELLED, "TLS was taken out"
            self._give_up(self._made(code, detail))
        self._engine.abandon()
        self._end_reading()
        self._end_writing()
        self._end_drain()
        self._held.fail(self._own_slot().channel, ended())

    def gather_statistics(self) -> TlsStatistics:
        return self.statistics

    def reset_statistics(self) -> None:
        self.statistics.reset()


def setup_client_tls(
    right_of_slot: ChannelSlot, options: TlsConnectionOptions
) -> TlsChannelHandler:
    """Put a client's TLS handler to the right of a slot of a running channel, and start it.

    What is to the right of it sees plaintext from here on, once the negotiation has succeeded;
    the options' `on_negotiation_result` tells. ALPN needs an `AlpnHandler` of its own. Raises what
    `TlsChannelHandler` raises, before anything is changed. Thread: the channel's.
    """
    handler = TlsChannelHandler.client(options)
    slot = right_of_slot.channel.new_slot()
    right_of_slot.insert_right(slot)
    slot.set_handler(handler)
    handler.start_negotiation()
    return handler
