"""From a command line to an exit status."""

import importlib
import io
import os
import sys
from collections.abc import Sequence

from . import _parser
from ._exit import CommandError, ExitCode, fail


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; returns the exit status.

    Raises SystemExit, as argparse does, after `--help` and for what cannot be.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Arguments may have what stdout cannot encode: it is told there as it is on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            if arguments[:1] == ["bench"]:
                return _bench(arguments[1:])
            options = _parser.parse(arguments)
            module = importlib.import_module(f".{options.module}", __package__)
            return int(module.main(options))
        except CommandError as error:
            return fail(f"{error}", error.code)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where it is known what to do if nobody reads it
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return ExitCode.OUTPUT_CLOSED
    except OSError as exc:  # of a file, or of an output that can take no more
        _discard_output()
        return fail(f"{exc.strerror or exc}", ExitCode.FAILED)


def _bench(arguments: Sequence[str]) -> int:
    """All arguments are the benchmark's own, which may not be part of the installation."""
    name = f"{__package__.rpartition('.')[0]}._bench"
    try:
        bench = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing == name:
            return fail(f"the benchmark is not installed: there is no {name}", ExitCode.USAGE)
        return fail(
            f'the benchmark needs {missing}: pip install "aws-io-async[cli]", or {missing}',
            ExitCode.USAGE,
        )
    return int(bench.main(list(arguments)))


def _discard_output() -> None:
    """Have the interpreter's own flush at exit find nothing to complain about."""
    if sys.stdout is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # stdout is none of the system's
    finally:
        os.close(nowhere)
