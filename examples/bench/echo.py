"""Echo servers on several event loops, side by side: `python examples/bench/echo.py [--help]`.

This is `python -m aws_io_async bench` for these servers: protocols, streams, sockets, datagrams,
TLS, and channels on each of the loops.
"""

import sys

from aws_io_async._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "^echo", *sys.argv[1:]]))
