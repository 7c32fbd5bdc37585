"""The examples run as their first lines say."""

import ast
import re
import signal
import subprocess
import sys
from pathlib import Path

import aws_io_async

ROOT = Path(aws_io_async.__file__).parent.parent
EXAMPLES = ROOT / "examples"


def start(name: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """What it printed; fails if it printed errors."""
    out, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (0, "")
    return out


def test_echo_server_and_client() -> None:
    server = start("echo_server.py", "0")
    assert server.stdout
    listening = re.fullmatch(r"Listening on 127\.0\.0\.1 port (\d+)\n", server.stdout.readline())
    assert listening
    client = finish(start("echo_client.py", listening[1], "one", "two words", ""))
    server.send_signal(signal.SIGINT)
    assert finish(server) == "Stopped\n"
    assert client.splitlines() == [
        "sent 'one', got back 'one'",
        "sent 'two words', got back 'two words'",
        "sent '', got back ''",
    ]


def test_echo_client_without_a_server() -> None:
    client = start("echo_client.py", "1")
    _, errors = client.communicate(timeout=50)
    assert client.returncode == 1
    assert "ConnectionRefusedError" in errors


def test_benchmark() -> None:
    out = finish(start("bench/echo.py", "--rounds", "1", "--seconds", "0.05", "aws_io_async"))
    rates = re.findall(r"^  aws_io_async +([\d,]+)/s +([\d.]+) µs CPU", out, re.MULTILINE)
    assert len(rates) == 9
    assert all(int(rate.replace(",", "")) > 0 and float(cpu) > 0 for rate, cpu in rates)


def test_every_example_is_tested() -> None:
    tested = {
        node.value
        for node in ast.walk(ast.parse(Path(__file__).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    examples = {str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*.py")}
    assert examples <= tested
