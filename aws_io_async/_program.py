"""`python -m aws_io_async run`: an unmodified asyncio program, on our loop.

Up to Python 3.13 the program gets its loops from the event loop policy, so ours is set before it
starts. From 3.14 on policies are deprecated, and later gone: there, all that makes a loop without
being told which is `asyncio.new_event_loop`, and it is replaced. A program that names a loop
itself, by a `loop_factory` or a policy of its own, gets the one that it asks for. Processes that
the program forks are provided for, and so are those of multiprocessing's fork server; those that
start afresh (`spawn`, the default on macOS) are on their own.

The program finds `sys.argv`, `sys.path` and `__main__` as if Python had started it directly.
"""

import asyncio
import importlib.util
import io
import os
import sys
import types
import zipfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import NoReturn

from .event_loop import entry

USAGE = """\
usage: python -m aws_io_async run [-m MODULE | -c CODE | SCRIPT] [ARGUMENT ...]

Run an asyncio program on this library's event loop, with the arguments that follow.

  SCRIPT     a file, or a folder or zip file with a __main__.py
  -m MODULE  a module or package, found as `python -m` finds it
  -c CODE    the program itself
"""


def run(arguments: Sequence[str]) -> None:
    """Run the program that `arguments` name, in this process, to its end.

    What the program raises is raised here, SystemExit and KeyboardInterrupt included; a program
    that can't be found raises SystemExit. Changes the process as a start of Python does: call it
    once, from the main thread, with nothing to do afterwards.
    """
    match list(arguments):
        case ["-h" | "--help", *_]:
            sys.stdout.write(USAGE)
        case ["-m", module, *rest]:
            _run_module(module, rest)
        case ["-c", code, *rest]:
            _run_code(code, rest)
        case [script, *rest] if not script.startswith("-"):
            _run_script(script, rest)
        case ["-m" | "-c" as option]:
            _fail(f"{USAGE}\nerror: {option} needs an argument")
        case [option, *_]:
            _fail(f"{USAGE}\nerror: no such option: {option}")
        case _:
            _fail(f"{USAGE}\nerror: which program?")


def provide_loops(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Make asyncio's own ways of getting a loop give loops of this library."""
    if version < (3, 14):
        from .event_loop import policy

        policy.install()
    else:
        for module in (asyncio, asyncio.events):
            vars(module)["new_event_loop"] = entry.new_event_loop


def _provide_loops_to_children() -> None:
    """The same in processes of the program's that come from multiprocessing's fork server."""
    import multiprocessing

    multiprocessing.set_forkserver_preload(["__main__", f"{__package__}._program_children"])


def _run_module(name: str, arguments: list[str]) -> None:
    _set_first_path(os.getcwd())
    sys.argv = ["-m", *arguments]  # as Python has it until the module is found
    spec = _find(name)
    if spec.submodule_search_locations is not None:
        spec = _find(f"{name}.__main__")
    sys.argv[0] = spec.origin or name
    _execute_module(spec)


def _find(name: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that the packages around it import
        spec = None
    if spec is None:
        _fail(f"{sys.executable}: No module named {name}", status=1)
    return spec


def _run_code(code: str, arguments: list[str]) -> None:
    _set_first_path("")
    sys.argv = ["-c", *arguments]
    _execute(compile(code, "<string>", "exec", dont_inherit=True), types.ModuleType("__main__"))


def _run_script(path: str, arguments: list[str]) -> None:
    sys.argv = [path, *arguments]
    file = os.path.abspath(path)
    if os.path.isdir(file) or zipfile.is_zipfile(file):
        _set_first_path()
        sys.path.insert(0, file)
        spec = PathFinder.find_spec("__main__", [file])
        if spec is None:
            _fail(f"{sys.executable}: can't find '__main__' module in {file!r}", status=1)
        _execute_module(spec)
        return
    try:
        with io.open_code(file) as script:
            source = script.read()
    except OSError as error:
        _fail(f"{sys.executable}: can't open file {file!r}: {error.strerror}")
    _set_first_path(os.path.dirname(os.path.realpath(file)))
    main = types.ModuleType("__main__")
    main.__file__ = file
    main.__loader__ = SourceFileLoader("__main__", file)
    _execute(compile(source, file, "exec", dont_inherit=True), main)


def _execute_module(spec: ModuleSpec) -> None:
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code else None
    if code is None:
        _fail(f"{sys.executable}: No code object available for {spec.name}", status=1)
    main = importlib.util.module_from_spec(spec)
    main.__name__ = "__main__"
    _execute(code, main)


def _execute(code: types.CodeType, main: types.ModuleType) -> None:
    """Run code as the program; `main` stays its `__main__`, for threads and exit handlers."""
    sys.modules["__main__"] = main
    provide_loops()
    _provide_loops_to_children()
    exec(code, vars(main))


def _set_first_path(*path: str) -> None:
    """Replace what `python -m aws_io_async` put first on sys.path; nothing is there under `-P`."""
    if not sys.flags.safe_path:
        sys.path[:1] = path


def _fail(message: str, status: int = 2) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise SystemExit(status)
