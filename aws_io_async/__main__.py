"""The command line: `python -m aws_io_async`, and `aws-io-async`."""

import sys
from collections.abc import Sequence

from . import _program


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["run"]:
        _program.run(given[1:])
        return 0

    from ._cli import _main  # not above: programs that are run have no use for it

    return _main.main(given)


if __name__ == "__main__":
    sys.exit(main())
