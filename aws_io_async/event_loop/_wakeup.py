"""What gets a loop out of its poll: a socket pair whose reading end the poller watches.

`wake()` may be called from any thread and from signal handlers; many calls before the loop gets
to `drain()` cost one write. Signals come in by the same pair: `signal.set_wakeup_fd` has the
interpreter's C handler write each signal's number there, whereas `wake()` writes a zero.
"""

import socket


class Wakeup:
    """A wake-up call for one loop. Thread: any for `wake`, the loop's for the others."""

    __slots__ = ("_pending", "_receiver", "_sender")

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._pending = False

    def fileno(self) -> int:
        """The fd that becomes readable by `wake()`."""
        return self._receiver.fileno()

    def signal_fileno(self) -> int:
        """The fd for `signal.set_wakeup_fd`."""
        return self._sender.fileno()

    def wake(self) -> None:
        """Make the fd readable. Does nothing after `close()`."""
        if self._pending:
            return
        self._pending = True
        try:
            self._sender.send(b"\0")
        except BlockingIOError:  # full: it is readable
            pass
        except OSError:  # closed: the loop that was to be woken is gone
            pass

    def drain(self) -> bytes:
        """Take what has been written: the numbers of the signals that came in, in order."""
        try:
            data = self._receiver.recv(4096)
        except (BlockingIOError, InterruptedError):
            data = b""
        # Cleared only now: had a wake() in between been allowed to write, that byte could be among
        # those just taken, and `_pending` would stay set with nothing in the pair. Whoever calls
        # wake() has queued its work before, and the loop looks at the queue after this.
        self._pending = False
        return data.replace(b"\0", b"")

    def close(self) -> None:
        """Close both ends; idempotent."""
        self._receiver.close()
        self._sender.close()
