"""dnsmasq on loopback: a DNS server that others wrote, with names from a file of the test's."""

import getpass
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin:/usr/local/sbin")
"""None if it is not installed (Debian: dnsmasq-base)."""


class Dnsmasq:
    """Runs while its `with` statement does; answers with this `ttl`. Names are in `folder`."""

    def __init__(self, folder: Path, ttl: int) -> None:
        self.address = ("127.0.0.1", _free_port())
        self._hosts = folder / "dnsmasq-hosts"
        self._hosts.touch()
        assert PROGRAM is not None
        self._command = [
            PROGRAM,
            "--keep-in-foreground",
            "--log-facility=-",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--no-resolv",
            "--no-hosts",
            f"--user={getpass.getuser()}",
            f"--addn-hosts={self._hosts}",
            f"--local-ttl={ttl}",
            f"--port={self.address[1]}",
            f"--listen-address={self.address[0]}",
            "--bind-interfaces",
        ]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def set(self, name: str, addresses: Sequence[str]) -> None:
        """Have the name stand for these addresses, and for no other."""
        self._hosts.write_text("".join(f"{address} {name}\n" for address in addresses))
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            self._until_read()

    def start(self) -> None:
        """Serve, from the port of before if it was stopped."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        self._until_read()

    def stop(self) -> None:
        """Die: whoever asks is refused by the system."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None

    def _until_read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if f"read {self._hosts} " in line:
                return
        raise RuntimeError(f"dnsmasq does not run: {lines}")


def _free_port() -> int:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(tcp.getsockname())
        port: int = tcp.getsockname()[1]
        return port
