"""What all commands have in common: help, statuses, Ctrl-C, and output that rich draws or not."""

import importlib
import json
import logging
import signal
import socket
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from aws_io_async import __main__, __version__, log
from aws_io_async._cli import _echo, _main, _parser
from tests.cli.commands import PROGRAM, environment, run, running, terminal, without
from tests.cli.servers import serving
from tests.schemas import validate

COMMANDS = ["demo", "run", "connect", "resolve", "echo", "bench", "top", "completion"]


def test_help_names_all_commands() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m aws_io_async [-h] [--version]")
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout
    assert "130 Ctrl-C" in done.stdout


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"bench"}))
def test_help_of_each(command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m aws_io_async {command} ")


def test_a_trace_leaves_the_log_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = logging.getLogger("aws_io_async"), log.logger(log.LogSubject.CHANNEL_BOOTSTRAP)
    levels = [logger.level for logger in loggers]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = str(closed.getsockname()[1])
        assert __main__.main(["connect", "--trace", "127.0.0.1", port]) != 0
    with _echo._reported_failures(_echo.Events(False)):
        pass
    assert "connect" in capsys.readouterr().err
    assert [logger.level for logger in loggers] == levels


def test_version() -> None:
    assert run("--version").stdout == f"aws-io-async {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"]])
def test_misuse(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: " in done.stderr


def test_the_script_is_the_same_program() -> None:
    scripts = entry_points(group="console_scripts", name="aws-io-async")
    if not scripts:
        pytest.skip("this installation has no script")
    (script,) = scripts
    assert script.load() is __main__.main
    done = subprocess.run(
        [Path(sys.executable).with_name("aws-io-async"), "connect", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: aws-io-async connect ")


def test_demo_as_json(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    done = run("demo", tmp_path, "--json", "--connections", "2")
    document = json.loads(done.stdout)
    validate(document, "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert (document["files"], document["bytes"], document["error"]) == (1, 1000, None)


def test_ctrl_c_in_the_demo() -> None:
    with running("demo", "--size", "200") as command:
        command.line_with("%")
        status, _, errors = command.end(signal.SIGINT)
    assert (status, errors) == (130, "")


def test_ctrl_c_at_once() -> None:
    """Whenever it comes, there is no traceback once the program's own code runs."""
    program = """
import signal, sys
from aws_io_async import __main__
from aws_io_async._cli import _parser
def interrupt():
    signal.raise_signal(signal.SIGINT)
_parser.build = interrupt
sys.exit(__main__.main(["completion", "bash"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_output_that_nobody_reads() -> None:
    command = " ".join(PROGRAM)
    script = f"{command} completion bash | true; echo ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, env=environment()
        )
        assert (done.stdout.strip() in ("0", "141"), done.stderr) == (True, "")
    script = f"{command} resolve 127.0.0.1 --interval 0.01 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment())
    assert (done.stdout.splitlines()[-1], done.stderr) == ("141", "")


def test_without_an_output() -> None:
    """It was closed by who began the program: nothing is shown, and nothing else is wrong."""
    for arguments in "resolve 127.0.0.1 --once", "completion bash":
        command = f"{' '.join(PROGRAM)} {arguments} >&-"
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, env=environment()
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "resolve", "127.0.0.1", "--once"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


@pytest.mark.parametrize("why", ["no rich", "a dumb terminal"])
def test_plain_at_a_terminal(tmp_path: Path, why: str) -> None:
    env = without("rich", tmp_path) if why == "no rich" else environment(TERM="dumb")
    with (
        serving() as port,
        terminal("connect", "127.0.0.1", f"{port}", "--check", env=env) as screen,
    ):
        assert screen.wait() == 0
    assert "  127.0.0.1  +0." in screen.text
    assert "\x1b" not in screen.raw


def test_live_without_rich(tmp_path: Path) -> None:
    env = without("rich", tmp_path)
    with terminal("resolve", "127.0.0.1", "--interval", "0.01", env=env) as screen:
        screen.wait_for(r"good")
        screen.wait_for(r"\n\n0 lookups")
        screen.type("\x03")
        assert screen.wait() == 130
    assert "\x1b" not in screen.raw


def test_the_benchmark_gets_its_arguments_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Bench:
        @staticmethod
        def main(arguments: list[str]) -> int:
            sys.stdout.write(f"{arguments}\n")
            return 7

    monkeypatch.setitem(sys.modules, "aws_io_async._bench", Bench)
    assert _main.main(["bench", "--rounds", "3", "--help"]) == 7
    assert capsys.readouterr().out == "['--rounds', '3', '--help']\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aws_io_async._bench", "the benchmark is not installed: there is no aws_io_async._bench"),
        ("uvloop", 'the benchmark needs uvloop: pip install "aws-io-async[cli]", or uvloop'),
    ],
)
def test_a_benchmark_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    def missing(module: str, package: object = None) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert _main.main(["bench"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_modules_of_commands_are_imported_when_they_are_needed() -> None:
    program = """
import sys
from aws_io_async._cli import _main
_main.main(["completion", "bash"])
print(sorted({"asyncio", "anyio", "rich", "trustme", "ssl"} & {*sys.modules}), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    assert done.stderr == "[]\n"


def test_an_unknown_option_is_told_with_the_usage_of_its_command() -> None:
    done = run("echo", "--tsl")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m aws_io_async echo ")
    assert done.stderr.endswith("aws_io_async echo: error: unrecognized arguments: --tsl\n")
    done = run("--tsl", "run", "script.py")
    assert done.returncode == 2
    assert done.stderr.endswith("aws_io_async: error: unrecognized arguments: --tsl\n")


def test_all_commands_are_in_this_test() -> None:
    found = _parser.build().format_help()
    assert "{" + ",".join(COMMANDS) + "}" in found


def test_a_name_that_cannot_be_written_is_told_by_its_bytes() -> None:
    done = run("resolve", "--once", "caf\udce9")
    assert done.returncode == 3
    assert "caf\\udce9" in done.stdout
