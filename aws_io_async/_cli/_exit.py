"""How commands end."""

import enum
import sys


class ExitCode(enum.IntEnum):
    """What a command's exit status says."""

    OK = 0
    FAILED = 1
    """The command could not do all that it should, or was told of an error on the way."""
    USAGE = 2
    """The command line cannot be, or something that it needs is missing: a file, a package."""
    UNRESOLVED = 3
    """A name has no address."""
    UNREACHABLE = 4
    """Nobody answers at any address, or at the socket's path."""
    TLS_FAILED = 5
    """There is a connection, and no TLS over it."""
    INTERRUPTED = 130
    """Ctrl-C."""
    OUTPUT_CLOSED = 141
    """Who read the output has gone: `| head`."""
    TERMINATED = 143
    """SIGTERM, where the command has something to clean up."""


class CommandError(Exception):
    """Ends a command with a message and a status."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def fail(message: str, code: ExitCode) -> ExitCode:
    """Say on stderr what went wrong; returns the code."""
    if sys.stdout is not None:
        sys.stdout.flush()
    if sys.stderr is not None:
        print(f"error: {message}", file=sys.stderr, flush=True)
    return code
