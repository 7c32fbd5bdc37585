"""The examples run as their first lines say."""

import ast
import re
import signal
from pathlib import Path

from tests.examples import EXAMPLES, finish, run, start


def test_echo_server_and_client() -> None:
    server = start("echo_server.py", "0")
    assert server.stdout
    listening = re.fullmatch(r"Listening on 127\.0\.0\.1 port (\d+)\n", server.stdout.readline())
    assert listening
    client = run("echo_client.py", listening[1], "one", "two words", "")
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
    short = ("--rounds", "1", "--seconds", "0.05", "aws_io_async")
    benchmark = start("bench/echo.py", *short, "--only", "^echo: protocol")
    out, errors = benchmark.communicate(timeout=50)
    assert benchmark.returncode == 0, errors  # which also say how far it has got
    rates = re.findall(r"^  protocol, .* connections? +([\d,]+)$", out, re.MULTILINE)
    assert len(rates) == 4
    assert all(int(rate.replace(",", "")) > 0 for rate in rates)


def test_benchmark_of_the_resolver() -> None:
    lines = run("bench/resolve.py", "1").splitlines()
    costs = [re.search(r" (\d+) ns, (\d+\.\d+) times a coroutine", line) for line in lines]
    assert len(costs) == 3
    assert all(cost is not None and float(cost[2]) > 0 for cost in costs)


def test_every_example_is_tested() -> None:
    tested = {
        Path(node.value).name
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {file.name for file in EXAMPLES.rglob("*.py")} <= tested
