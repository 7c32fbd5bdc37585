"""The command line: `python -m aws_io_async`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__, _program


def _at_least(least: int) -> Callable[[str], int]:
    """A whole number no smaller than `least`, for argparse."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aws_io_async",
        description="An asyncio event loop in pure Python: see it at work, or run programs on it.",
    )
    parser.add_argument("--version", action="version", version=f"aws-io-async {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    commands.add_parser(
        "run",
        help="run an asyncio program on this loop: a script, -m module or -c code",
        add_help=False,  # `_program` reads its arguments: most of them are the program's own
    )
    demo = commands.add_parser(
        "demo",
        help="move files over TLS channels",
        description="Serve files over TLS and fetch them, through channels with read windows, "
        "with certificates made on the spot. Checks every file's digest; exits with 1 if one is "
        "wrong.",
    )
    demo.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        help="move the files in here (default: the standard library's asyncio package, and one "
        "file of random bytes)",
    )
    demo.add_argument(
        "--connections",
        metavar="N",
        type=_at_least(1),
        default=4,
        help="TLS connections at a time (default: %(default)s)",
    )
    demo.add_argument(
        "--size",
        metavar="MIB",
        type=_at_least(0),
        help="size of the file of random bytes (default: 64; no such file with FOLDER)",
    )
    demo.add_argument(
        "--loops",
        metavar="N",
        type=_at_least(0),
        default=0,
        help="loops to put the channels on, each on a thread of its own (default: 0, all is done "
        "on one loop)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["run"]:
        _program.run(given[1:])
        return 0
    options = _parser().parse_args(given)

    from . import _demo  # not above: programs that are run have no use for it

    return _demo.main(
        options.folder,
        connections=options.connections,
        size=options.size,
        loops=options.loops,
    )


if __name__ == "__main__":
    sys.exit(main())
