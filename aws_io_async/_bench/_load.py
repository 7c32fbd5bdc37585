"""The load: `load.c`, compiled when it is first needed, or else `_python_load`; and wrk, for HTTP.

Either is a program with the arguments MODE PORT CONNECTIONS BYTES SECONDS WARM_UP SERVER, which
`load.c` explains, and that prints what came of it as JSON.
"""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ._machine import cpu_seconds
from ._processes import Process, ProcessError, python_command, running, served_by

SOURCE = Path(__file__).with_name("load.c")
FLAGS = ["-O2", "-std=gnu11"]
WITH_TLS = ["-DWITH_TLS", "-lssl", "-lcrypto"]
WARM_UP = 0.25
"""Of the seconds that are measured, before these ..."""

LONGEST_WARM_UP = 0.5
"""... but no more than so many seconds."""


@dataclass(frozen=True)
class Figures:
    """What a load has found."""

    operations: int
    seconds: float
    cpu: float | None
    """Seconds of CPU time that the server took meanwhile; None if that cannot be known."""

    p50: float
    """Microseconds that half of the operations took at most."""

    p99: float


@dataclass(frozen=True)
class Loads:
    """What makes the load on this machine."""

    compiled: str | None
    """The program that `load.c` became; None where it cannot be compiled."""

    tls: bool
    """Whether that program knows TLS."""

    wrk: str | None
    note: str
    """What users should know about all that."""

    def command(self, mode: str, *arguments: float, life: float) -> list[str]:
        own = [mode, *(f"{argument:g}" for argument in arguments)]
        if self.compiled and (self.tls or mode not in ("tls", "handshakes", "hold-tls")):
            return [self.compiled, *own]
        return python_command("_python_load", *own, life=life)

    def run(
        self,
        mode: str,
        port: int,
        connections: int,
        size: int,
        seconds: float,
        server: Process,
        cpu: int | None,
    ) -> Figures:
        """Load a server, on that CPU. Raises ProcessError if it does not do its part."""
        warm_up = min(WARM_UP * seconds, LONGEST_WARM_UP)
        command = self.command(
            mode, port, connections, size, seconds, warm_up, server.pid, life=seconds + warm_up
        )
        with served_by(server), running("the load", command, cpu) as load:
            found = json.loads(load.line(seconds + warm_up))
        return Figures(
            found["operations"], found["seconds"], found.get("cpu"), found["p50"], found["p99"]
        )

    def run_http(
        self, port: int, connections: int, seconds: float, server: Process, cpu: int | None
    ) -> Figures:
        """GET requests, by wrk if it is there. Raises ProcessError if they are not answered."""
        if self.wrk is None:
            return self.run("http", port, connections, 0, seconds, server, cpu)
        command = [self.wrk, "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--latency"]
        command.append(f"http://127.0.0.1:{port}/")
        before = cpu_seconds(server.pid)
        with served_by(server), running("wrk", command, cpu) as wrk:
            said = wrk.rest(seconds)
            after = cpu_seconds(server.pid)
            return read_wrk(said, None if before is None or after is None else after - before)


def read_wrk(said: str, cpu: float | None) -> Figures:
    """What wrk has found. Raises ProcessError if that includes errors, or cannot be read."""
    if bad := re.search(r"Non-2xx.*|Socket errors: .*", said):
        raise ProcessError(f"wrk: {bad[0]}")
    total = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", said)
    latencies = {
        share: float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
        for share, number, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", said)
    }
    if not total or not int(total[1]) or len(latencies) != 2:
        raise ProcessError(f"wrk found nothing: {said.strip()}")
    seconds = float(total[2]) * {"ms": 1e-3, "s": 1, "m": 60}[total[3]]
    return Figures(int(total[1]), seconds, cpu, latencies["50"], latencies["99"])


def find_loads(stack: ExitStack) -> Loads:
    """What there is on this machine; `stack` removes at its end what is not to stay."""
    wrk = shutil.which("wrk")
    for_http = "wrk for HTTP" if wrk else ""
    slow = "a load in Python, which is the limit of what can be measured"
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if platform.system() != "Linux":
        why = "load.c needs epoll"
    elif shutil.which(compiler[0]) is None:
        why = f"there is no C compiler, {compiler[0]}"
    else:
        folder = _cache() or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for tls, flags in ((True, WITH_TLS), (False, list[str]())):
            program = _compile(compiler, flags, folder)
            if isinstance(program, Path):
                note = "load.c" if tls else f"load.c; for TLS (no headers of OpenSSL) {slow}"
                return Loads(f"{program}", tls, wrk, ", ".join(filter(None, [note, for_http])))
        why = f"load.c does not compile: {program}"
    return Loads(None, False, wrk, ", ".join(filter(None, [f"{slow} ({why})", for_http])))


def _cache() -> Path | None:
    """A folder of the user's alone that lasts; None if there cannot be one."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(home) / "aws-io-async"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid() else None


def _compile(compiler: list[str], flags: list[str], folder: Path) -> Path | str:
    """The program, from the cache if it is there; or what the compiler says against it."""
    command = [*compiler, *FLAGS, f"{SOURCE}", *flags]
    made_of = SOURCE.read_bytes() + "\0".join([*command, *platform.uname()]).encode()
    program = folder / f"load-{hashlib.sha256(made_of).hexdigest()[:16]}"
    if program.exists():
        return program
    new = program.with_suffix(f".{os.getpid()}")
    command += ["-o", f"{new}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            return done.stderr.strip()[:200] or f"{compiler[0]} ended with {done.returncode}"
        return new.replace(program)
    except OSError as error:
        return str(error)
    finally:
        new.unlink(missing_ok=True)
