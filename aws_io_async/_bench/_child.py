"""Start a part of the benchmark in a process of its own.

    python _child.py LIFE PART [ARGUMENT ...]

This is run as a file, by whichever Python is measured. It imports the copy of the library that it
lies in, and nothing else from where that copy is: the measured Python's own packages are used. The
process ends by SIGALRM after LIFE seconds, should whoever started it be gone by then.
"""

import os
import signal
import sys
from importlib import import_module

NOT_AVAILABLE = 3
"""Exit status: what was to be measured, or what it needs, is not there."""


def main() -> None:
    life, part, *arguments = sys.argv[1:]
    signal.alarm(int(life))
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path[:1] == [folder]:
        del sys.path[0]
    sys.path.insert(0, os.path.dirname(os.path.dirname(folder)))
    package = import_module("aws_io_async")
    del sys.path[0]
    sys.path.append(os.getcwd())  # for loops of one's own
    try:
        import_module(f"{package.__name__}._bench.{part}").main(*arguments)
    except (ImportError, NotImplementedError) as error:
        print(str(error) or f"{type(error).__name__}", file=sys.stderr)
        sys.exit(NOT_AVAILABLE)


if __name__ == "__main__":
    main()
