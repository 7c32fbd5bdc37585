"""What may be typed: the commands and their options, for argparse and for shells' completion.

`default` names the module that does the command. Metavars tell shells what to complete with:
FILE, FOLDER, PATH and SCRIPT with files, HOST with host names.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from .. import __version__

SHELLS = ("bash", "zsh", "fish")


def at_least(least: int) -> Callable[[str], int]:
    """A whole number no smaller than `least`, for argparse."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    return number


def port(text: str, least: int = 0) -> int:
    """A TCP port, for argparse; 0 is one that the system chooses."""
    if not text.isdecimal() or not least <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be {least} to 65535, not {text!r}")
    return int(text)


def peers_port(text: str) -> int:
    """A TCP port that can be connected to, for argparse."""
    return port(text, 1)


def seconds(text: str) -> float:
    """A positive number of seconds, for argparse."""
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError("must be a positive number of seconds")
    return value


def patience(text: str) -> float:
    """A number of seconds that may be 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}")
    return value


def program() -> str:
    """How the program was called."""
    name = Path(sys.argv[0]).name
    return name if name and name not in ("__main__.py", "-m", "-c") else "python -m aws_io_async"


def build() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=program(),
        description="An asyncio event loop in pure Python: see it at work, look at connections, "
        "names and running loops with it, or run programs on it.",
        epilog="exit statuses: 0 done, 1 failed, 2 misuse or something missing, 3 no address, "
        "4 nobody answers, 5 TLS failed, 130 Ctrl-C",
    )
    parser.set_defaults(error=parser.error)
    parser.add_argument("--version", action="version", version=f"aws-io-async {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for add in (_demo, _run, _connect, _resolve, _echo, _bench, _top, _completion):
        add(commands)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; misuse raises SystemExit, after the usage of its command."""
    options, unknown = build().parse_known_args(arguments)
    if unknown:
        options.error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(
    commands: _Commands, name: str, help: str, description: str = ""
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=description or None
    )
    command.set_defaults(module=f"_{name}", error=command.error)
    return command


def _add_json(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def _add_dns(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dns",
        action="store_true",
        help="ask DNS itself, not the system, and honour its TTLs (needs dnspython)",
    )
    command.add_argument(
        "--server",
        metavar="ADDRESS",
        help="ask this DNS server: 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53",
    )


def _run(commands: _Commands) -> None:
    # `_program` reads these: most of them are the program's own. Here they are for completion.
    run = commands.add_parser(
        "run",
        help="run an asyncio program on this loop: a script, -m module or -c code",
        add_help=False,
    )
    run.add_argument("-m", metavar="MODULE", help="a module or package")
    run.add_argument("-c", metavar="CODE", help="the program itself")
    run.add_argument("script", metavar="SCRIPT", nargs="...")


def _bench(commands: _Commands) -> None:
    commands.add_parser(
        "bench",
        help="compare this loop with asyncio's and uvloop on this machine",
        add_help=False,  # its own
    )


def _demo(commands: _Commands) -> None:
    demo = _add(
        commands,
        "demo",
        "move files over TLS channels",
        "Serve files over TLS and fetch them, through channels with read windows, "
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
        type=at_least(1),
        default=4,
        help="TLS connections at a time (default: %(default)s)",
    )
    demo.add_argument(
        "--size",
        metavar="MIB",
        type=at_least(0),
        help="size of the file of random bytes (default: 64; no such file with FOLDER)",
    )
    demo.add_argument(
        "--loops",
        metavar="N",
        type=at_least(0),
        default=0,
        help="loops to put the channels on, each on a thread of its own (default: 0, all is done "
        "on one loop)",
    )
    _add_json(demo, "what was done")


def _connect(commands: _Commands) -> None:
    connect = _add(
        commands,
        "connect",
        "open a connection, tell all about it, and join it to stdin and stdout",
        "Look up HOST, try its addresses as RFC 8305 has it, negotiate TLS if asked for, and tell "
        "on stderr how that went. Then what comes on stdin is sent, and what the peer sends goes "
        "to stdout, until the peer ends the connection.",
    )
    connect.add_argument("host", metavar="HOST")
    connect.add_argument("port", metavar="PORT", type=peers_port)
    family = connect.add_mutually_exclusive_group()
    family.add_argument("-4", dest="ipv4", action="store_true", help="IPv4 addresses only")
    family.add_argument("-6", dest="ipv6", action="store_true", help="IPv6 addresses only")
    connect.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=10.0,
        help="for each address, and for TLS (default: %(default)g)",
    )
    _add_dns(connect)
    tls = connect.add_argument_group("TLS", "each of these asks for TLS")
    tls.add_argument("--tls", action="store_true", help="negotiate TLS")
    tls.add_argument("--alpn", metavar="LIST", help="application protocols: h2,http/1.1")
    tls.add_argument(
        "--ca", metavar="PATH", type=Path, help="trust the certificates of this file or folder"
    )
    tls.add_argument("--cert", metavar="FILE", type=Path, help="present this certificate, in PEM")
    tls.add_argument(
        "--key", metavar="FILE", type=Path, help="its private key (default: in the same file)"
    )
    tls.add_argument("--server-name", metavar="NAME", help="expect this name (default: HOST)")
    tls.add_argument("--insecure", action="store_true", help="do not verify the certificate")
    connect.add_argument(
        "--trace",
        action="store_true",
        help="tell on stderr what happens when: attempts, TLS messages, the library's log",
    )
    connect.add_argument(
        "--check", action="store_true", help="only tell, on stdout, and close the connection"
    )
    connect.add_argument("--crlf", action="store_true", help="send line ends as CR LF")
    connect.add_argument(
        "--wait",
        metavar="SECONDS",
        type=patience,
        help="once stdin has ended, wait for the peer's end so long (default: forever, but not at "
        "all for TLS if stdin is a terminal)",
    )
    _add_json(connect, "what there is to tell, as --check does,")


def _resolve(commands: _Commands) -> None:
    resolve = _add(
        commands,
        "resolve",
        "watch a caching resolver at work on names",
        "Look up each HOST, again and again, with the library's caching resolver, and show the "
        "addresses that it knows: in which order they are given out, until when, and, with "
        "--port, which of them nobody answers at.",
    )
    resolve.add_argument("hosts", metavar="HOST", nargs="+")
    resolve.add_argument(
        "--port",
        metavar="PORT",
        type=peers_port,
        help="connect to each address given out, so that those that fail are set aside",
    )
    resolve.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds,
        default=1.0,
        help="between two requests (default: %(default)g)",
    )
    resolve.add_argument("--count", metavar="N", type=at_least(1), help="end after N requests")
    resolve.add_argument("--once", action="store_true", help="the same as --count 1")
    resolve.add_argument(
        "--max-ttl",
        metavar="SECONDS",
        type=seconds,
        default=30.0,
        help="use an address no longer after it was found (default: %(default)g)",
    )
    _add_dns(resolve)
    _add_json(resolve, "a document for each request")


def _echo(commands: _Commands) -> None:
    echo = _add(
        commands,
        "echo",
        "an echo server, plain or with TLS",
        "Send back what comes, until Ctrl-C. With --tls and no certificate, one is made on the "
        "spot, and the file to trust it by is named.",
    )
    echo.add_argument("--host", default="127.0.0.1", help="listen here (default: %(default)s)")
    echo.add_argument(
        "--port", metavar="PORT", type=port, default=0, help="(default: one that is free)"
    )
    tls = echo.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help="with a certificate made on the spot")
    tls.add_argument("--cert", metavar="FILE", type=Path, help="with this certificate, in PEM")
    tls.add_argument(
        "--key", metavar="FILE", type=Path, help="its private key (default: in the same file)"
    )
    tls.add_argument(
        "--ca-out",
        metavar="FILE",
        type=Path,
        help="where to write the certificate to trust (default: a temporary file)",
    )
    tls.add_argument("--alpn", metavar="LIST", help="application protocols: h2,http/1.1")
    tls.add_argument(
        "--client-ca",
        metavar="FILE",
        type=Path,
        help="admit clients with a certificate of this authority only",
    )
    echo.add_argument(
        "--loops",
        metavar="N",
        type=at_least(0),
        default=0,
        help="loops to put connections on, each on a thread of its own (default: 0, one for all)",
    )
    echo.add_argument("--once", action="store_true", help="end after the first connection")
    _add_json(echo, "a document for each event")


def _top(commands: _Commands) -> None:
    top = _add(
        commands,
        "top",
        "watch the loops of running processes",
        "Show what the loops of processes do that have called "
        "aws_io_async.observe.serve_statistics(PATH).",
    )
    top.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    top.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds,
        default=1.0,
        help="between two looks (default: %(default)g)",
    )
    top.add_argument("--count", metavar="N", type=at_least(1), help="end after N looks")
    top.add_argument("--once", action="store_true", help="the same as --count 1")
    _add_json(top, "a document for each process and look")


def _completion(commands: _Commands) -> None:
    completion = _add(
        commands,
        "completion",
        "print a shell's completion script",
        'For bash: eval "$(aws-io-async completion bash)" in ~/.bashrc; zsh likewise in ~/.zshrc, '
        "after compinit; fish: aws-io-async completion fish > "
        "~/.config/fish/completions/aws-io-async.fish",
    )
    completion.add_argument("shell", choices=SHELLS)
