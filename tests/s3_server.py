"""moto's server, which speaks S3, in a process of its own."""

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """A running server, started with this environment; yields its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://[\d.:]+", line)))
        log = threading.Thread(target=process.stderr.read)
        log.start()
        try:
            yield url
        finally:
            process.terminate()
            log.join()
