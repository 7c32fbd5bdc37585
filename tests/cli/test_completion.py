"""Completion, by the shells themselves."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Terminal, environment, run, terminal

SHELLS = ["bash", "zsh", "fish"]


def program(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell}")
    return found


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    """A shell at a terminal that has its script, in a folder with two files."""
    name: str = request.param
    script = tmp_path / "script"
    script.write_text(run("completion", name).stdout)
    folder = tmp_path / "folder"
    folder.mkdir()
    for file in ("certificate one.pem", "unlike.txt"):
        (folder / file).touch()
    load = f"cd {folder}; PS1='READY> '; source {script}; echo LOADED"
    command = [program(name), *{"bash": ["--norc"], "zsh": ["-f"], "fish": ["-N"]}[name], "-i"]
    if name == "zsh":
        load = f"autoload -U compinit; compinit -u -d {tmp_path}/dump; setopt no_beep; {load}"
    if name == "fish":
        load = (
            f"cd {folder}; source {script}; function fish_prompt; echo 'READY> '; end; echo LOADED"
        )
    env = environment(HOME=f"{tmp_path}", PATH="/usr/bin:/bin")
    with terminal(program=command, env=env) as started:
        started.type(load + "\n")
        started.wait_for(r"LOADED *\n[^$]*READY> ")
        yield started


def test_a_command_is_completed(shell: Terminal) -> None:
    shell.type("aws-io-async conn\t")
    shell.wait_for("aws-io-async connect ")


def test_an_option_is_completed(shell: Terminal) -> None:
    shell.type("aws-io-async connect --insec\t")
    shell.wait_for("--insecure")


def test_a_file_is_completed(shell: Terminal) -> None:
    shell.type("aws-io-async connect host 443 --cert certi\t")
    shell.wait_for(r"certificate\\? one\.pem|'certificate one\.pem'")


def test_a_choice_is_completed(shell: Terminal) -> None:
    shell.type("aws-io-async completion fi\t")
    shell.wait_for("completion fish")


def bash_completions(script: str, *words: str) -> set[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _aws_io_async; "
    done = subprocess.run(
        [program("bash"), "--norc", "-c", f'{script}\n{ask} printf "%s\\n" "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    return {*done.stdout.split()}


def test_bash_in_detail() -> None:
    script = run("completion", "bash").stdout
    everything = bash_completions(script, "aws-io-async", "")
    assert {"demo", "connect", "bench", "--version"} <= everything
    assert bash_completions(script, "aws-io-async", "re") == {"resolve"}
    assert bash_completions(script, "aws-io-async", "top", "--i") == {"--interval"}
    options = bash_completions(script, "aws-io-async", "echo", "--")
    assert {"--tls", "--client-ca", "--json"} <= options
    assert "--max-ttl" not in options
    assert bash_completions(script, "aws-io-async", "completion", "") == {*SHELLS}
    assert bash_completions(script, "aws-io-async", "connect", "--timeout", "") == set()


def test_fish_in_detail() -> None:
    fish = program("fish")
    script = run("completion", "fish").stdout

    def completions(line: str) -> set[str]:
        done = subprocess.run(
            [fish, "-N", "-c", f"{script}\ncomplete -C '{line}'"],
            capture_output=True,
            text=True,
            check=True,
            env=environment(HOME="/nonexistent"),
        )
        return {each.partition("\t")[0] for each in done.stdout.splitlines()}

    assert {"demo", "connect", "bench"} <= completions("aws-io-async ")
    assert completions("aws-io-async re") == {"resolve"}
    assert completions("aws-io-async top --i") == {"--interval"}
    assert completions("aws-io-async completion z") == {"zsh"}
    assert completions("aws-io-async connect --timeout ") == set()


@pytest.mark.parametrize("name", SHELLS)
def test_every_option_of_every_command_is_there(name: str) -> None:
    script = run("completion", name).stdout
    for command in ("demo", "connect", "resolve", "echo", "top"):
        usage = run(command, "--help").stdout
        for option in re.findall(r"^  (?:-\w, )?--([\w-]+)", usage, re.MULTILINE):
            expected = f"-l {option}" if name == "fish" else f"--{option}"
            assert expected in script


def test_misuse() -> None:
    done = run("completion", "tcsh")
    assert done.returncode == 2
    assert "invalid choice: 'tcsh'" in done.stderr
