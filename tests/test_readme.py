"""What the README shows works: each Python snippet and each command of its section "Use" is run.

A snippet whose first line is a file's name is written there; the others are whole programs.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import aws_io_async

ROOT = Path(aws_io_async.__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAMS = [snippet for snippet in SNIPPETS if not snippet.startswith("# ")]
FILES = {s.partition("\n")[0].removeprefix("# "): s for s in SNIPPETS if s.startswith("# ")}
USE = README[README.index("\n## Use\n") : README.index("\n## Performance\n")]
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```$", USE, re.MULTILINE | re.DOTALL)).splitlines()

LOOP_NAME = "type(asyncio.get_running_loop()).__module__"


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a program; what it prints and what it logs come in one stream, in their order."""
    return subprocess.Popen(
        [sys.executable, "-u", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def python(folder: Path, *arguments: str) -> str:
    """Run it to its end; returns what it printed. Fails if it fails."""
    process = start(folder, *arguments)
    output, _ = process.communicate(timeout=50)
    assert process.returncode == 0, output
    return output


def test_every_snippet_and_command_is_known() -> None:
    assert len(PROGRAMS) == 5
    assert set(FILES) == {"conftest.py"}
    assert len(COMMANDS) == 3
    assert len(SNIPPETS) == README.count("```python")


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs(tmp_path: Path, program: str) -> None:
    (tmp_path / "program.py").write_text(program)
    output = python(tmp_path, "-W", "error", "program.py")
    if "get_running_loop()" in program:
        assert output.startswith("b'hello\\n' <EventLoop running=True")
    elif "statistics()" in program:
        assert output.startswith("LoopStatistics(turns=")
    elif "upper()" in program:
        assert output == "b'HELLO'\n"
    else:
        assert output == ""


def test_run_commands(tmp_path: Path) -> None:
    source = f"""
import asyncio, sys
async def main():
    print(sys.argv[1:], {LOOP_NAME})
asyncio.run(main())
"""
    (tmp_path / "script.py").write_text(source)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(source)
    commands = [command for command in COMMANDS if " run " in command]
    assert len(commands) == 2
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "python"
        output = python(tmp_path, *arguments)
        assert output.startswith("['--option', 'value'] aws_io_async.")


def test_uvicorn_command(tmp_path: Path) -> None:
    import httpx

    application = f"""
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": {LOOP_NAME}.encode()}})
"""
    (tmp_path / "app.py").write_text(application)
    (command,) = [command for command in COMMANDS if command.startswith("uvicorn ")]
    server = start(tmp_path, "-m", *shlex.split(command), "--port", "0", "--lifespan", "off")
    try:
        assert server.stdout
        lines = iter(server.stdout.readline, "")
        address = next(found[0] for line in lines if (found := re.search(r"http://[\d.:]+", line)))
        assert httpx.get(address, trust_env=False).text.startswith("aws_io_async.")
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=50)


def test_conftest(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(FILES["conftest.py"])
    test = f"""
import asyncio
import pytest

@pytest.mark.asyncio
async def test_loop():
    assert {LOOP_NAME}.startswith("aws_io_async.")
"""
    (tmp_path / "test_loop.py").write_text(test)
    output = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "1 passed" in output
