"""An address for a LOCAL socket that nobody else has.

Source: aws-c-io, `aws_socket_endpoint_init_local_address_for_test`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ..socket import SocketEndpoint


@contextmanager
def local_endpoint() -> Iterator[SocketEndpoint]:
    """A path where no file is, in a folder that is removed at the end with all that is in it.

    The path is short enough for a socket, which those of pytest's `tmp_path` need not be. Raises
    OSError if the system has no room for a folder. Any thread.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield SocketEndpoint(f"{folder}/sock")
