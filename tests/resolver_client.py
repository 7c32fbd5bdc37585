"""A client whose getaddrinfo reads the test's hosts file: a process with mounts of its own.

`python -m tests.resolver_client HOST PORT MAX_TTL` connects to HOST for each line that it is sent,
and answers with a line: the address that it has reached, and how many good ones are known.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_io_async
from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver

ROOT = Path(aws_io_async.__file__).parent.parent

MOUNTED = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && "$@"'
"""A shell's: run a command that sees these two files instead of the system's."""

UNSHARES = (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"])
"""For root, and for others where they may."""


class ResolverClient:
    """The process, with a hosts file that may be written at any time, and no DNS server."""

    def __init__(self, folder: Path) -> None:
        self.hosts = folder / "hosts"
        self.hosts.touch()
        self._resolv_conf = folder / "resolv.conf"
        self._resolv_conf.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self._process: Any = None

    def unshared(self, *command: str) -> list[str] | None:
        """The command line with mounts of its own; None if there is no way to have them."""
        tail = ["sh", "-c", MOUNTED, "sh", str(self.hosts), str(self._resolv_conf)]
        for unshare in UNSHARES:
            try:
                subprocess.run([*unshare, *tail, "true"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            return [*unshare, *tail, *command]
        return None

    def set(self, name: str, addresses: list[str]) -> None:
        """Have the name stand for these addresses; written in place, as the file is mounted."""
        self.hosts.write_text("".join(f"{address} {name}\n" for address in addresses))

    async def start(self, command: list[str]) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    async def visit(self) -> tuple[str, int]:
        """Connect; the address that was reached, and the number of good ones."""
        self._process.stdin.write(b"\n")
        line = await self._process.stdout.readline()
        address, count = line.decode().rsplit(None, 1)
        return address, int(count)

    async def stop(self) -> None:
        self._process.stdin.close()
        assert await self._process.wait() == 0


async def visit(bootstrap: ClientBootstrap, host: str, port: int) -> str:
    """Connect, and say to which address; or what went wrong."""
    try:
        channel = await bootstrap.new_socket_channel(host, port)
    except OSError as exc:
        return f"{exc}"
    async with channel:
        (slot,) = channel.slots()
        handler: Any = slot.handler
        address: str = handler.get_socket().getpeername()[0]
        return address


async def main(host: str, port: str, max_ttl: str) -> None:
    config = HostResolutionConfig(max_ttl=float(max_ttl), resolve_frequency=0.1)
    with HostResolver(config=config) as resolver:
        bootstrap = ClientBootstrap(host_resolver=resolver)
        while await asyncio.to_thread(sys.stdin.readline):
            reached = await visit(bootstrap, host, int(port))
            sys.stdout.write(f"{reached} {resolver.get_host_address_count(host)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    aws_io_async.run(main(*sys.argv[1:]))
