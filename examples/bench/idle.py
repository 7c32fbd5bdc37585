"""What idle connections cost: `python examples/bench/idle.py [--help]`.

This is `python -m aws_io_async bench` for that. A server accepts 10,000 connections that do
nothing, tells its resident memory before and after, and then has a message to echo on each of
them: all must be answered. What the kernel keeps for a socket is not in the figures.
"""

import sys

from aws_io_async._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "^memory", *sys.argv[1:]]))
