"""`python -m aws_io_async run`: unmodified programs get our loop, and notice nothing else.

Each program is run twice, by Python itself and by us, where the two must agree.
"""

import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import aws_io_async
from aws_io_async import __main__ as command_line
from aws_io_async import _program

ROOT = Path(aws_io_async.__file__).parent.parent
RUN = ("-m", "aws_io_async", "run")

NAME_LOOPS = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")  # `get_event_loop` without a loop
def name(loop):
    print(type(loop).__module__.partition(".")[0], type(loop).__name__)
async def main():
    name(asyncio.get_running_loop())
if __name__ == "__main__":
    if sys.version_info < (3, 14):
        loop = asyncio.get_event_loop_policy().get_event_loop()
        name(loop)
        loop.close()
    asyncio.run(main())
    with asyncio.Runner() as runner:
        name(runner.get_loop())
    loop = asyncio.new_event_loop()
    name(loop)
    loop.close()
"""
OURS = "aws_io_async EventLoop\n"


def python(
    *arguments: str | Path, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def write(file: Path, source: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(source))
    return file


def assert_same(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the same program under Python and under our `run`; whatever both say must be equal."""
    plain = python(*arguments, folder=folder)
    ours = python(*RUN, *arguments, folder=folder)
    assert (ours.stdout, ours.returncode) == (plain.stdout, plain.returncode), ours.stderr
    return ours


@pytest.mark.parametrize("how", ["script", "module", "code"])
def test_every_way_to_a_loop_gives_ours(tmp_path: Path, how: str) -> None:
    write(tmp_path / "program.py", NAME_LOOPS)
    program = {"script": ["program.py"], "module": ["-m", "program"], "code": ["-c", NAME_LOOPS]}
    done = python(*RUN, *program[how], folder=tmp_path)
    ways = 4 if sys.version_info < (3, 14) else 3
    assert (done.stdout, done.returncode) == (OURS * ways, 0), done.stderr


def test_python_itself_gives_no_loop_of_ours(tmp_path: Path) -> None:
    write(tmp_path / "program.py", NAME_LOOPS)
    assert "aws_io_async" not in python("program.py", folder=tmp_path).stdout


def test_asyncios_prompt_is_on_ours(tmp_path: Path) -> None:
    """`python -m asyncio`, the one that has `await`."""
    done = subprocess.run(
        [sys.executable, *RUN, "-m", "asyncio"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input="type(await asyncio.sleep(0, asyncio.get_running_loop())).__module__\nexit()\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert "'aws_io_async." in done.stdout, done.stderr


def test_get_event_loop_without_a_running_loop(tmp_path: Path) -> None:
    program = """
        import asyncio, warnings
        warnings.simplefilter("ignore")
        loop = asyncio.get_event_loop()
        print(type(loop).__name__, loop.run_until_complete(asyncio.sleep(0, "slept")))
        loop.close()
    """
    done = python(*RUN, "-c", textwrap.dedent(program), folder=tmp_path)
    expected = "EventLoop slept\n" if sys.version_info < (3, 14) else ""
    assert done.stdout == expected, done.stderr


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_processes_of_the_program_get_ours(tmp_path: Path, method: str) -> None:
    program = """
        import asyncio, multiprocessing, sys
        async def main():
            print(type(asyncio.get_running_loop()).__module__.partition(".")[0], flush=True)
        def child():
            asyncio.run(main())
        if __name__ == "__main__":
            process = multiprocessing.get_context(sys.argv[1]).Process(target=child)
            process.start()
            process.join()
            sys.exit(process.exitcode)
    """
    write(tmp_path / "program.py", program)
    done = python(*RUN, "program.py", method, folder=tmp_path)
    assert (done.stdout, done.returncode) == ("aws_io_async\n", 0), done.stderr


def test_where_policies_are_deprecated_loops_are_ours_without_them(tmp_path: Path) -> None:
    """What newer Pythons need works on this one, too."""
    program = """
        import asyncio
        from aws_io_async import _program
        _program.provide_loops((3, 14))
        async def main():
            print(type(asyncio.get_running_loop()).__name__)
        asyncio.run(main())
        loop = asyncio.new_event_loop()
        print(type(loop).__name__)
        loop.close()
    """
    done = python("-W", "error", "-c", textwrap.dedent(program), folder=tmp_path)
    assert done.stdout == "EventLoop\nEventLoop\n", done.stderr


def test_no_warning_comes_from_us(tmp_path: Path) -> None:
    program = "import asyncio; asyncio.run(asyncio.sleep(0))"
    done = python("-X", "dev", "-W", "error", *RUN, "-c", program, folder=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_loop_factory_of_the_program_is_respected(tmp_path: Path) -> None:
    program = """
        import asyncio
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            print(isinstance(runner.get_loop(), asyncio.SelectorEventLoop))
    """
    done = python(*RUN, "-c", textwrap.dedent(program), folder=tmp_path)
    assert done.stdout == "True\n", done.stderr


SHOW = """
import sys, os
print(__name__, sys.argv, sys.path[:2], __package__, globals().get("__file__"))
print(__spec__ and __spec__.name, type(__loader__).__name__, sys.modules["__main__"] is not None)
print(vars(sys.modules["__main__"]) is globals(), __doc__, __builtins__ is not None)
"""


def test_script_sees_what_python_shows_it(tmp_path: Path) -> None:
    write(tmp_path / "programs" / "program.py", SHOW)
    shown = assert_same("programs/program.py", "-m", "x", "--flag", "a b", folder=tmp_path)
    assert "'--flag', 'a b'" in shown.stdout


def test_script_behind_a_symbolic_link_imports_from_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "programs" / "program.py", SHOW)
    (tmp_path / "link.py").symlink_to("programs/program.py")
    assert_same("link.py", folder=tmp_path)


def test_script_imports_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "programs" / "neighbour.py", "answer = 42")
    write(tmp_path / "programs" / "program.py", "import neighbour; print(neighbour.answer)")
    assert assert_same("programs/program.py", folder=tmp_path).stdout == "42\n"


def test_module_sees_what_python_shows_it(tmp_path: Path) -> None:
    write(tmp_path / "program.py", SHOW)
    assert_same("-m", "program", "-c", "--flag", folder=tmp_path)


def test_package_and_its_relative_imports(tmp_path: Path) -> None:
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "package" / "names.py", "name = 'inside'")
    write(tmp_path / "package" / "__main__.py", f"from .names import name\nprint(name)\n{SHOW}")
    assert "inside" in assert_same("-m", "package", "x", folder=tmp_path).stdout
    assert_same("-m", "package.names", folder=tmp_path)


def test_code_sees_what_python_shows_it(tmp_path: Path) -> None:
    program = "import sys\nprint(__name__, sys.argv, sys.path[0], __spec__)"
    assert_same("-c", program, "-c", "--flag", folder=tmp_path)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_and_zip_files(tmp_path: Path, kind: str) -> None:
    main = write(tmp_path / "app" / "__main__.py", SHOW)
    program = "app"
    if kind == "zip":
        program = "app.zip"
        with zipfile.ZipFile(tmp_path / program, "w") as archive:
            archive.write(main, "__main__.py")
    assert_same(program, "x", folder=tmp_path)


def test_the_safe_path_option_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "program.py", "import sys; print(sys.path)")
    plain = python("-P", "program.py", folder=tmp_path)
    assert python("-P", *RUN, "program.py", folder=tmp_path).stdout == plain.stdout


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('why')", 1),
        ("raise SystemExit", 0),
        ("1 / 0", 1),
        ("import asyncio\nasync def main(): raise SystemExit(3)\nasyncio.run(main())", 3),
        ("not Python", 1),
    ],
)
@pytest.mark.parametrize("how", ["script", "module", "code"])
def test_exit_status(tmp_path: Path, how: str, program: str, status: int) -> None:
    write(tmp_path / "program.py", program)
    arguments = {"script": ["program.py"], "module": ["-m", "program"], "code": ["-c", program]}
    assert assert_same(*arguments[how], folder=tmp_path).returncode == status


def test_traceback_shows_the_programs_lines(tmp_path: Path) -> None:
    program = """
        import asyncio
        async def fail():
            raise ValueError("of the program")
        asyncio.run(fail())
    """
    file = write(tmp_path / "program.py", program)
    done = python(*RUN, "program.py", folder=tmp_path)
    assert f'File "{file}", line 4, in fail\n    raise ValueError' in done.stderr
    assert done.stderr.endswith("ValueError: of the program\n")


def test_interrupt_ends_the_program_by_signal(tmp_path: Path) -> None:
    program = """
        import asyncio, os, signal
        async def main():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
            finally:
                print("cleaned up", flush=True)
        asyncio.run(main())
    """
    write(tmp_path / "program.py", program)
    done = assert_same("program.py", folder=tmp_path)
    assert (done.stdout, done.returncode) == ("cleaned up\n", -signal.SIGINT)


def test_threads_and_exit_handlers_find_main_in_place(tmp_path: Path) -> None:
    program = """
        import atexit, sys, threading
        value = "here"
        atexit.register(lambda: print(sys.modules["__main__"].value))
        threading.Thread(target=lambda: print(value)).start()
    """
    write(tmp_path / "program.py", program)
    assert assert_same("program.py", folder=tmp_path).stdout == "here\nhere\n"


def test_no_main_module(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "package" / "__init__.py", "")
    for program in (["empty"], ["-m", "package"]):
        done = assert_same(*program, folder=tmp_path)
        assert done.returncode == 1
        assert "__main__" in done.stderr


def test_missing_programs(tmp_path: Path) -> None:
    missing = assert_same("missing.py", folder=tmp_path)
    assert missing.returncode == 2
    assert "can't open file" in missing.stderr
    assert "No such file or directory" in missing.stderr
    for name in ("missing", "missing.module", "email.missing"):
        done = assert_same("-m", name, folder=tmp_path)
        assert done.returncode == 1
        assert f"No module named {name}" in done.stderr
        assert "Traceback" not in done.stderr


def test_missing_import_of_the_package_itself_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "package" / "__init__.py", "import not_installed")
    write(tmp_path / "package" / "program.py", "")
    done = assert_same("-m", "package.program", folder=tmp_path)
    assert "No module named 'not_installed'" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["-m"], ["-c"], ["-x", "program.py"]])
def test_misuse_shows_the_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        _program.run(arguments)
    assert exit_.value.code == 2
    assert "usage: python -m aws_io_async run" in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["run", "--help"]) == 0
    assert "usage: python -m aws_io_async run" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        command_line.main(["--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "run" in out
    assert "demo" in out
    with pytest.raises(SystemExit) as exit_:
        command_line.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"aws-io-async {aws_io_async.__version__}\n"
