"""TLS without I/O: ciphertext in, plaintext out, and the other way round.

Theory of operation. A `TlsEngine` wraps OpenSSL by two memory buffers. Whoever owns it moves the
bytes: what the network gave goes to `receive_data` (and its end to `receive_eof`), and after every
call what `data_to_send` returns goes to the network. Plaintext is pulled, never pushed: `read`
decrypts no more than it is asked for, and the rest stays encrypted until the next call.

The engine knows no loop, clock, thread or logger. Where it stands is one enum, `TlsState`, whose
legal moves are the table `LEGAL_MOVES`:

    HANDSHAKE --> OPEN --> PEER_CLOSED --> CLOSED      the peer closes first
                    \\----> SHUTTING_DOWN --> CLOSED    we close first

and FAILED, from each of them, when OpenSSL reports an error. That error, with its verify code and
text, is raised by the call which met it and by each later one that would need the connection; the
alert which tells the peer is in `data_to_send`.

Three things learned the hard way:

- `ssl.SSLWantReadError` costs as much as decrypting 1 KiB: OpenSSL is asked only while there is
  ciphertext that it has not seen, or plaintext that it holds. (To follow the record headers, so
  as never to ask it about half a record, costs more than that saves.)
- `SSLObject.unwrap` on top of unread application data breaks the connection for good: all input
  is read into the void first.
- The end of the network is never told to OpenSSL, which would then refuse to send as well.
"""

import ssl
import sys
from collections import deque
from typing import Any, TypeVar, cast

from ._failure_of_key import note_cause
from ._tls_state import LEGAL_MOVES, TlsState

Ending = TypeVar("Ending", bytes, int)

MAX_PLAINTEXT = 16 * 1024
"""Bytes; a TLS record carries no more (RFC 8446, section 5.1)."""

MAX_ANSWERS = 64 * 1024
"""Bytes that TLS may have to say by itself to what it reads, beside a share of the plaintext.

That is what peers cost who ask for new keys: they make us work, and need not read the answers.
"""

PLAINTEXT_PER_ANSWER = 64
"""Bytes of plaintext that let one more byte be answered: connections live as long as they like."""

# A global is found faster than an enum's member, and these are looked at for every message.
_HANDSHAKE, _OPEN, _PEER_CLOSED = TlsState.HANDSHAKE, TlsState.OPEN, TlsState.PEER_CLOSED
_SHUTTING_DOWN, _CLOSED, _FAILED = TlsState.SHUTTING_DOWN, TlsState.CLOSED, TlsState.FAILED
_TAKING = frozenset({_OPEN, _SHUTTING_DOWN})


class TlsEngine:
    """One side of a TLS connection (1.2 or 1.3, as the context allows).

    A client must say whose certificate it expects, if its context checks host names, in
    `server_hostname`; the empty string gives that check up, where Python lets it (3.14 does not any
    more). Raises ValueError if it is missing or malformed.

    Thread: none in particular, but one at a time.
    """

    __slots__ = (
        "_aligned", "_answered", "_eof", "_incoming", "_leftover", "_outgoing", "_plaintext",
        "_waiting", "_waiting_bytes", "clean_close", "error", "settled", "ssl_object", "state",
    )  # fmt: skip

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> None:
        if server_side:
            server_hostname = None
        elif server_hostname is None and context.check_hostname:
            # OpenSSL would not mind, and then accept a certificate of anyone.
            raise ValueError("server_hostname is required: the context checks host names")
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname or None
        )
        self.state = _HANDSHAKE
        self.error: Exception | None = None
        self.clean_close = False
        """Whether the peer said close_notify; False after PEER_CLOSED means a cut connection."""
        self.settled = False
        """Whether the engine is `idle`, as far as `receive_and_read` knows."""
        self._aligned = True  # OpenSSL holds no part of a record; all there is waits in _incoming
        self._leftover = False  # OpenSSL holds plaintext, of which a part has been read
        self._eof = False
        self._waiting: deque[bytes] = deque()  # plaintext that could not be encrypted yet
        self._waiting_bytes = 0
        self._plaintext = 0  # bytes that have been read
        self._answered = 0  # bytes that TLS had to say to what was read

    def __repr__(self) -> str:
        return f"<TlsEngine {self.state.name} {self.version or ''}>"

    # Ciphertext in

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take ciphertext that the network gave; `data` is copied.

        Once we are shutting down it is decrypted and dropped, until the peer's close_notify.
        """
        if self.state is _CLOSED or self.state is _FAILED:
            return
        if self._eof:
            raise RuntimeError("receive_data() after receive_eof(): the peer's data had ended")
        self.settled = False
        self._incoming.write(data)
        if self.state is _SHUTTING_DOWN and self._discard_input():
            self._move(_CLOSED)

    def receive_eof(self) -> None:
        """The network has ended: once what came before has been read, the peer is gone.

        A handshake that is not finished then fails in `handshake()`. Calling it again is harmless.
        """
        self._eof = True
        self.settled = False
        if self.state is _SHUTTING_DOWN:
            self._move(_CLOSED)

    # Handshake

    def handshake(self) -> bool:
        """Go on with the handshake; says whether it is finished.

        Raises ssl.SSLCertVerificationError (with `verify_code` and `verify_message`) for a
        certificate that is refused, ssl.SSLEOFError if the peer has gone, ssl.SSLError for
        everything else, such as no protocol version in common, or a private key that cannot be used
        (the `__cause__` is then what its handler raised).
        """
        if self.state is not _HANDSHAKE:
            self._raise_if_failed()
            return True
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            if self._eof:
                self._fail(ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer left in the handshake"))
                self._raise_if_failed()
            return False
        except Exception as exc:  # also what a callback of the context raised
            note_cause(exc)
            self._fail(exc)
            raise
        self._move(_OPEN)
        self._encrypt_waiting()
        return True

    # Plaintext out

    @property
    def readable(self) -> bool:
        """Whether a read may have something to tell: plaintext, the end, or an error."""
        if self.state is _OPEN:
            return self._eof or self._leftover or self._incoming.pending > 0
        return self.state is not _HANDSHAKE

    @property
    def idle(self) -> bool:
        """Whether there is nothing to read, nothing to send, and nothing to tell."""
        return self.state is _OPEN and not (
            self._incoming.pending
            or self._leftover
            or self._eof
            or self._outgoing.pending
            or self._waiting
        )

    def read(self, max_bytes: int) -> bytes | None:
        """Decrypt at most `max_bytes`, of one record; the rest is kept.

        Returns, like `io.RawIOBase.read`, None if more ciphertext is needed first, and b"" once
        the peer has closed (`clean_close` says how) or we have. Raises what the connection failed
        with, ssl.SSLError mostly, after all plaintext that came before it has been read.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, got {max_bytes!r}")
        chunk = self._read_record(max_bytes if max_bytes < MAX_PLAINTEXT else MAX_PLAINTEXT)
        return chunk if chunk is not None else self._why_nothing(b"")

    def receive_and_read(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """`receive_data`, and `read` of one record: half the price if nothing was left before.

        `settled` tells afterwards whether that was all there is to do.
        """
        if not self.settled:
            self.receive_data(data)
            chunk = self.read(MAX_PLAINTEXT)
            self.settled = self.idle
            return chunk
        self._incoming.write(data)
        size = len(data)
        limit = size if size < MAX_PLAINTEXT else MAX_PLAINTEXT
        try:
            chunk = self.ssl_object.read(limit)
        except ssl.SSLError as exc:
            self.settled = False
            self._note_read_error(exc)
            self._note_answers(0)
            return self._why_nothing(b"")
        size = len(chunk)
        self._plaintext += size
        if self._incoming.pending or self._outgoing.pending or not 0 < size < limit:
            if not limit:
                return None  # nothing has come: that is not the peer's end
            self.settled = False
            self._note_answers(0)
            self._note_read(size, limit)
        return chunk or self._why_nothing(b"")

    def read_available(self, max_bytes: int = sys.maxsize) -> bytes | None:
        """Decrypt everything that has come, but at most `max_bytes`, in one piece.

        Returns and raises like `read`.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, got {max_bytes!r}")
        first = self._read_record(max_bytes if max_bytes < MAX_PLAINTEXT else MAX_PLAINTEXT)
        if first is None:
            return self._why_nothing(b"")
        if not self._incoming.pending and not self._leftover and not self._eof:
            return first
        chunks = [first]
        left = max_bytes - len(first)
        while left:
            chunk = self._read_record(left if left < MAX_PLAINTEXT else MAX_PLAINTEXT)
            if chunk is None:
                break
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks) if len(chunks) > 1 else first

    def read_into(self, buffer: bytearray | memoryview) -> int | None:
        """Decrypt into `buffer` until it is full or nothing is left; returns how many bytes.

        None and 0 mean what None and b"" mean for `read`, and it raises the same; ValueError for
        a buffer without room.
        """
        view = memoryview(buffer)
        size = view.nbytes
        if not size:
            raise ValueError("the buffer to read into is empty")
        filled = self._read_record_into(view)
        if not filled:
            return self._why_nothing(0)
        while filled < size and (count := self._read_record_into(view[filled:])):
            filled += count
        return filled

    def _read_record(self, limit: int) -> bytes | None:
        pending = self._incoming.pending
        if self.state is not _OPEN or not (pending or self._leftover):
            self._note_no_input()
            return None
        if self._aligned and pending < limit:
            # No plaintext is longer than its ciphertext: a short message gets a short allocation.
            limit = pending
        unsent = self._outgoing.pending
        try:
            chunk = self.ssl_object.read(limit)
        except ssl.SSLError as exc:
            self._note_read_error(exc)
            self._note_answers(unsent)
            return None
        size = len(chunk)
        self._plaintext += size
        if self._outgoing.pending != unsent:
            self._note_answers(unsent)
        if 0 < size < limit:
            self._leftover = False
            self._aligned = True
            return chunk
        self._note_read(size, limit)
        return chunk or None

    def _read_record_into(self, view: memoryview) -> int | None:
        if self.state is not _OPEN or not (self._incoming.pending or self._leftover):
            self._note_no_input()
            return None
        limit = len(view)
        unsent = self._outgoing.pending
        try:
            count = cast(int, self.ssl_object.read(limit, view))  # typeshed knows bytes only
        except ssl.SSLError as exc:
            self._note_read_error(exc)
            self._note_answers(unsent)
            return None
        self._plaintext += count
        if self._outgoing.pending != unsent:
            self._note_answers(unsent)
        self._note_read(count, limit)
        return count

    def _note_no_input(self) -> None:
        """OpenSSL has nothing more to be asked for: that may be the end."""
        if self.state is _OPEN and self._eof:
            self._move(_PEER_CLOSED)

    def _note_read(self, count: int, limit: int) -> None:
        # No record has more than MAX_PLAINTEXT: of one that filled such a limit nothing is left.
        self._leftover = count == limit < MAX_PLAINTEXT and self.ssl_object.pending() > 0
        self._aligned = not self._leftover
        if not count:
            self.clean_close = True
            self._move(_PEER_CLOSED)

    def _note_read_error(self, exc: ssl.SSLError) -> None:
        self._leftover = self._aligned = False
        if not isinstance(exc, ssl.SSLWantReadError):
            self._fail(exc)
        elif self._eof:  # the last records were session tickets or the like
            self._move(_PEER_CLOSED)

    def _note_answers(self, unsent: int) -> None:
        """TLS has said something by itself, if more is `unsent` now than was."""
        self._answered += self._outgoing.pending - unsent
        allowed = MAX_ANSWERS + self._plaintext // PLAINTEXT_PER_ANSWER
        if self._answered > allowed and self.state in _TAKING and not self.clean_close:
            text = f"the peer asks for new keys again and again: {self._answered} bytes of answers"
            self._fail(ssl.SSLError(ssl.SSL_ERROR_SSL, text))

    def _why_nothing(self, end: Ending) -> Ending | None:
        self._raise_if_failed()
        return None if self.state is _OPEN or self.state is _HANDSHAKE else end

    def _discard_input(self) -> bool:
        """Read what has come into the void; says whether the peer has closed."""
        unsent = self._outgoing.pending
        try:
            while self._incoming.pending or self._leftover:
                self._leftover = False
                if not self.ssl_object.read(MAX_PLAINTEXT):
                    self.clean_close = True
                    return True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # what OpenSSL says instead of b"" if we closed first
            self.clean_close = True
            return True
        except ssl.SSLError as exc:
            self._fail(exc)
        finally:
            self._note_answers(unsent)
        return False

    # Plaintext in, ciphertext out

    @property
    def unsent(self) -> int:
        """Bytes that wait here: ciphertext for `data_to_send`, plaintext for its encryption."""
        return self._outgoing.pending + self._waiting_bytes

    def write(self, data: bytes | bytearray | memoryview) -> bool:
        """Encrypt `data`, or keep a copy until that is possible; a memoryview must be of bytes.

        Says whether all of it is encrypted. Raises RuntimeError after `shutdown`, and what the
        connection failed with.
        """
        if self.state is not _OPEN and self.state is not _PEER_CLOSED:
            self._raise_if_failed()
            if self.state is not _HANDSHAKE:
                raise RuntimeError("write() after shutdown(): nothing can be sent any more")
        elif not self._waiting:
            try:
                written = self.ssl_object.write(data)
            except ssl.SSLWantReadError:  # TLS 1.2 is negotiating again
                written = 0
            except ssl.SSLError as exc:
                self._fail(exc)
                raise
            self.settled = False  # until it is sent
            if written == len(data):
                return True
            data = data[written:]
        self._waiting.append(bytes(data))
        self._waiting_bytes += len(data)
        return False

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """`write`, and then `data_to_send`; None if not all of it could be encrypted."""
        if self.state is _OPEN and not self._waiting:
            try:
                written = self.ssl_object.write(data)
            except ssl.SSLError:
                written = 0  # `write` gets the same, and says why
            if written == len(data):
                return self._outgoing.read()
            data = data[written:]
        return self._outgoing.read() if self.write(data) else None

    def data_to_send(self) -> bytes:
        """Take all ciphertext there is for the network; b"" if there is none."""
        if self._waiting:
            self._encrypt_waiting()
        return self._outgoing.read()

    def shutdown(self) -> None:
        """Say close_notify, and discard all input from now on.

        The state is SHUTTING_DOWN until the peer has said it too, or CLOSED if it already has, or
        if there is no one to say it to (in a handshake, where plaintext that waits is dropped, and
        after a cut connection).
        Raises nothing: a connection that fails here is FAILED. Calling it again is harmless.
        """
        if self.state is _HANDSHAKE:
            self.abandon()
        if self.state is not _OPEN and self.state is not _PEER_CLOSED:
            return
        self._encrypt_waiting()
        peer_closed = self._discard_input() if self.state is _OPEN else True
        if self.state is _FAILED:
            return
        if self._eof and not self.clean_close:
            self._move(_CLOSED)  # who left without a word expects none
            return
        try:
            self.ssl_object.unwrap()
        except ssl.SSLWantReadError:
            if not peer_closed and not self._eof:
                self._move(_SHUTTING_DOWN)
                return
        except OSError as exc:
            self._fail(exc)
            return
        self._move(_CLOSED)

    def abandon(self) -> None:
        """Let go of the connection without a word: CLOSED, unless it has FAILED."""
        self._waiting.clear()
        self._waiting_bytes = 0
        if self.state is not _CLOSED and self.state is not _FAILED:
            self._move(_CLOSED)

    def _encrypt_waiting(self) -> None:
        while self._waiting and (self.state is _OPEN or self.state is _PEER_CLOSED):
            data = self._waiting.popleft()
            try:
                written = self.ssl_object.write(data)
            except ssl.SSLWantReadError:
                self._waiting.appendleft(data)
                return
            except ssl.SSLError as exc:
                self._fail(exc)
                return
            self._waiting_bytes -= written
            if written < len(data):
                self._waiting.appendleft(data[written:])

    # What was negotiated

    @property
    def version(self) -> str | None:
        """The protocol version, such as "TLSv1.3"; None before it is agreed on."""
        return self.ssl_object.version()

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """Name, protocol version and secret bits of the cipher; None before it is agreed on."""
        return self.ssl_object.cipher()

    @property
    def selected_alpn_protocol(self) -> str | None:
        """The application protocol agreed on, such as "h2", if any."""
        return self.ssl_object.selected_alpn_protocol()

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """As `SSLSocket.getpeercert` returns it; None if there is none (yet)."""
        return None if self.version is None else self.ssl_object.getpeercert()

    # State

    def _move(self, state: TlsState) -> None:
        if state not in LEGAL_MOVES[self.state]:
            raise RuntimeError(f"a TLS engine cannot go from {self.state.name} to {state.name}")
        self.state = state
        self.settled = False

    def _fail(self, exc: Exception) -> None:
        self.error = exc
        self._waiting.clear()
        self._waiting_bytes = 0
        self._move(_FAILED)

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            raise self.error
