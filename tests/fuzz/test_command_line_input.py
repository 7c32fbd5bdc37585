"""Command lines that may be typed, or come from a script with an empty or damaged variable.

They are run in this process, by what `python -m aws_io_async` calls: all that end by themselves.
Names and addresses are such that nobody but this machine is asked. Arguments have no NUL, as the
system passes none; bytes that are no UTF-8 come as Python has them, as lone surrogates.
"""

import contextlib
import io
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aws_io_async import __main__
from aws_io_async._cli import _parser
from aws_io_async._cli._exit import ExitCode
from aws_io_async.errors import AwsIoError
from aws_io_async.host_resolver._names import literal, normalize
from tests.faults._report import Fault
from tests.fuzz import corpora
from tests.fuzz.test_options_input import KEPT, TEXTS
from tests.models.rounds import bounded, seeded

ODD_ARGUMENTS = Fault(
    "Input",
    "command lines with arguments that are wrong, odd, missing or too many",
    "a documented exit status and a message; no traceback",
)


@contextlib.contextmanager
def streams() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    """stdout and stderr as a program has them in a pipe, and nothing on stdin."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    with (
        open(os.devnull) as nothing,
        mock.patch.multiple("sys", stdin=nothing, stdout=out, stderr=err),
    ):
        yield out, err


def text_of(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def status_of(function: Callable[[], int]) -> int:
    """What it returns, or exits with."""
    try:
        return function()
    except SystemExit as exc:
        status = exc.code
    assert isinstance(status, int)
    return status


def run(arguments: Sequence[str]) -> tuple[int, str, str]:
    """The exit status, and what was written to stdout and stderr."""
    with streams() as (out, err):
        return status_of(lambda: __main__.main(arguments)), text_of(out), text_of(err)


def check(arguments: Sequence[str]) -> None:
    status, out, err = run(arguments)
    assert status in tuple(ExitCode)
    assert "Traceback" not in out + err
    assert status == ExitCode.OK or out + err
    assert status != ExitCode.USAGE or not out
    if "--json" in arguments and "--" not in arguments and status != ExitCode.USAGE:
        for line in out.splitlines():
            json.loads(line)
    ODD_ARGUMENTS.seen(f"status {status}")


# Arguments


def asks_nobody(host: str) -> bool:
    """Whether it cannot be a host, or is this machine."""
    try:
        address = literal(host)
        if address is not None:
            return ipaddress.ip_address(address).is_loopback
        return normalize(host) == "localhost"
    except AwsIoError:
        return True


def without_nul(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return texts.filter(lambda text: "\0" not in text)


@pytest.fixture(scope="module", autouse=True)
def closed_port() -> Iterator[int]:
    """A port of this machine that nobody listens at, and nobody else gets."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        CLOSED.append(str(sock.getsockname()[1]))
        yield sock.getsockname()[1]
        CLOSED.clear()


CLOSED: list[str] = []
"""The port, while there is one; a strategy cannot ask a fixture."""

ODD = without_nul(TEXTS | st.sampled_from([*KEPT.values()]))
HOSTS = without_nul(ODD | st.sampled_from(["127.0.0.1", "::1", "localhost"])).filter(asks_nobody)
NUMBERS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "-1",
        "65535",
        "65536",
        "1.5",
        "1e400",
        "nan",
        "inf",
        "x",
        "\u0661",
        "1_0",
        "9" * 5000,
    ]
)
PORTS = NUMBERS | st.deferred(lambda: st.sampled_from([CLOSED[0]]))
SECONDS = st.sampled_from(["0.2", "0.5"]) | NUMBERS.filter(lambda text: text not in ("65535",))
FILES = st.sampled_from(["", "/nowhere", "/", __file__, "\udcff", "x" * 300, "/dev/null"])
FLAGS = ["-4", "-6", "--tls", "--insecure", "--trace", "--check", "--crlf", "--json", "--dns", "--"]


def option(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.builds(lambda value: [name, value], values) | st.builds(
        lambda value: [f"{name}={value}"], values
    )


CONNECT_OPTIONS = st.one_of(
    st.sampled_from(FLAGS).map(lambda flag: [flag]),
    option("--timeout", SECONDS),
    option("--wait", SECONDS),
    option("--alpn", ODD),
    option("--server-name", ODD),
    *(option(name, FILES) for name in ("--ca", "--cert", "--key")),
    option("--server", st.sampled_from(["", "x", "[::1", "127.0.0.1:x", "::1", "127.0.0.1:0"])),
    ODD.map(lambda text: [text]),
)
RESOLVE_OPTIONS = st.one_of(
    st.sampled_from(["--json", "--"]).map(lambda flag: [flag]),
    option("--port", PORTS),
    option("--interval", SECONDS),
    option("--max-ttl", SECONDS),
    option("--count", st.sampled_from(["0", "1", "-1", "x", "9" * 5000])),
)


def flat(lists: Sequence[Sequence[str]]) -> list[str]:
    return [item for items in lists for item in items]


def safe_to_connect(arguments: Sequence[str]) -> bool:
    """Options that change who is asked are looked at as argparse does."""
    with streams():
        try:
            options = _parser.parse(arguments)
        except SystemExit:
            return True
    hosts = getattr(options, "hosts", None) or [options.host]
    ports = (int(CLOSED[0]), None, 0, 1, 10, 65535)
    return (
        all(map(asks_nobody, hosts))
        and options.port in ports
        and not options.dns
        and options.server is None
    ) or options.server in ("", "x", "[::1", "127.0.0.1:x", "127.0.0.1:0")


@pytest.mark.parametrize("name", corpora.documents("command_lines"))
def test_what_was_kept(name: str) -> None:
    check([item.replace("PORT", CLOSED[0]) for item in corpora.documents("command_lines")[name]])


@seeded
@given(host=HOSTS, port=PORTS, options=st.lists(CONNECT_OPTIONS, max_size=5))
@bounded(60)
def test_connect(host: str, port: str, options: list[list[str]]) -> None:
    arguments = ["connect", *flat(options), host, port]
    if safe_to_connect(arguments):
        check(arguments)


@seeded
@given(hosts=st.lists(HOSTS, max_size=3), options=st.lists(RESOLVE_OPTIONS, max_size=4))
@bounded(60)
def test_resolve(hosts: list[str], options: list[list[str]]) -> None:
    arguments = ["resolve", "--once", *flat(options), *hosts]
    if safe_to_connect(arguments):
        check(arguments)


ENDS_AT_ONCE = st.one_of(
    st.lists(FILES, max_size=3).map(lambda paths: ["top", "--once", *paths]),
    st.lists(st.sampled_from(["bash", "zsh", "fish", "sh", "", "-h", "--"]), max_size=2).map(
        lambda shells: ["completion", *shells]
    ),
    st.builds(lambda size: ["demo", f"--size={size}", "/nowhere"], NUMBERS),
    st.builds(lambda text: ["bench", "--nonsense", text], ODD),
    st.builds(lambda port: ["echo", "--host", "192.0.2.1", "--port", port], NUMBERS),
    st.builds(lambda host, n: ["echo", "--host", host, "--loops", n], FILES, st.just("0")),
    st.builds(lambda file: ["echo", "--host", "192.0.2.1", "--cert", file], FILES),
    st.builds(lambda alpn: ["echo", "--host", "192.0.2.1", "--tls", "--alpn", alpn], ODD),
)


@seeded
@given(arguments=ENDS_AT_ONCE)
@example(["top", "--once", "\udcff"])
@bounded(60)
def test_others(arguments: list[str]) -> None:
    if arguments[:3] == ["echo", "--host", ""]:
        return  # that is all addresses
    check(arguments)


WORDS = [
    *("connect", "resolve", "echo", "demo", "top", "completion", "--version", "--help", "-h", "--"),
    *("--tls", "--port", "--json", "--once", "--count", "--timeout", "-4", "-6", "--dns"),
]


@seeded
@given(arguments=st.lists(st.sampled_from(WORDS) | ODD | NUMBERS, max_size=6))
@bounded(200)
def test_any_words_are_parsed(arguments: list[str]) -> None:
    """Not run: some might go on for ever."""

    def parse() -> int:
        _parser.parse(arguments)
        return 0

    with streams() as (out, err):
        status = status_of(parse)
        assert status in (ExitCode.OK, ExitCode.USAGE)
        assert status == ExitCode.OK or "usage: " in text_of(err)
        assert status != ExitCode.USAGE or not text_of(out)
    ODD_ARGUMENTS.seen(f"status {status}")


def test_nothing_is_kept(tmp_path: Path) -> None:
    def one_round() -> None:
        for arguments in corpora.documents("command_lines").values():
            run([item.replace("PORT", CLOSED[0]) for item in arguments])

    assert corpora.growth(one_round, rounds=2) < 10 * corpora.MOST
