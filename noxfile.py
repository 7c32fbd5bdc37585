"""The project's checks: `nox --list` shows them, `nox -s NAME` runs one.

Sessions without a version run on the Python that runs nox.
"""

import os
import random
import re
import shutil
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]

nox.needs_version = ">=2024.3.2"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely mistakes."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types: the package, strictly, then the tests and the examples."""
    session.install("-e", ".[test]", "mypy", "nox", "types-jsonschema")
    session.run("mypy")
    session.run("mypy", "--explicit-package-bases", "tests", "examples", "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """The library's own tests; arguments after `--` go to pytest."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS)
def tests_all(session: nox.Session) -> None:
    """The same on every supported Python that is installed; with CI set, all must be."""
    tests(session)


@nox.session
@nox.parametrize("pytest_asyncio", ["0.23.8", "0.26.0", "1.3.0", "1.4.0"])
def pytest_plugin(session: nox.Session, pytest_asyncio: str) -> None:
    """The pytest plugin with other versions of pytest-asyncio than the newest."""
    session.install("-e", ".", f"pytest-asyncio=={pytest_asyncio}")
    alone = ("--noconftest", "-c", "/dev/null", "--rootdir", ".", "-p", "no:cacheprovider")
    session.run("python", "-m", "pytest", *alone, "tests/integrations/test_pytest.py")


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines and branches the tests reach on our loop; fails below what pyproject.toml says.

    Not reached, or not seen to be: servers of the benchmark, which end by `os._exit`; what only
    macOS does; what answers to a kernel or an OpenSSL that lacks something.
    """
    session.install("-e", ".[test]", "coverage>=7.10")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "--loops=aws_io_async", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=PYTHONS)
def conformance(session: nox.Session) -> None:
    """CPython's own asyncio tests on our loop; arguments after `--` go to the runner."""
    session.install("-e", ".")
    session.run("python", "-m", "tests.conformance.run", *session.posargs)


@nox.session
def load(session: nox.Session) -> None:
    """The tests under load in full: 10,000 connections, 1,000 ends at once; takes minutes."""
    session.install("-e", ".[test]")
    options = ("--loops", "aws_io_async", "--timeout", "300")
    rounds = {"AWS_IO_FAULTS_ROUNDS": "20"}
    session.run("python", "-m", "pytest", *options, "tests/load", *session.posargs, env=rounds)


@nox.session
def soak(session: nox.Session) -> None:
    """Everything at once for minutes, 3 unless an argument says otherwise; `--json FILE`."""
    session.install("-e", ".[test]")
    session.run("python", "-W", "error", "-m", "tests.soak", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """The fault rig, for some minutes; `--page docs/reliability.md` writes its tables."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Model checks and fuzzing, for ten minutes or so, each time from another seed, which is told.

    AWS_IO_FAULTS_SEED and AWS_IO_FAULTS_ROUNDS in the environment are heeded; arguments after `--`
    go to pytest.
    """
    session.install("-e", ".[test]")
    seed = os.environ.get("AWS_IO_FAULTS_SEED") or f"{random.randrange(1 << 32)}"
    rounds = os.environ.get("AWS_IO_FAULTS_ROUNDS") or "30"
    session.log(f"again with AWS_IO_FAULTS_SEED={seed} AWS_IO_FAULTS_ROUNDS={rounds}")
    options = ("--loops=aws_io_async", "--timeout=1200", "tests/models", "tests/fuzz")
    environment = {"AWS_IO_FAULTS_SEED": seed, "AWS_IO_FAULTS_ROUNDS": rounds}
    session.run("python", "-m", "pytest", *options, *session.posargs, env=environment)


@nox.session
def bench(session: nox.Session) -> None:
    """Our loop, asyncio's, uvloop and others, side by side. Needs a quiet machine."""
    session.install("-e", ".[bench]")
    session.install("--only-binary", ":all:", "rloop", success_codes=[0, 1])  # where there is one
    session.run("python", "-m", "aws_io_async", "bench", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, without a warning; arguments after `--` go to MkDocs.

    It is in .nox/docs/tmp/site, and needs no network to be read.
    """
    session.install("-e", ".[docs]")
    site = Path(session.create_tmp()).absolute() / "site"
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # of the theme, about the plans of others
    session.run("mkdocs", "build", "--strict", "-d", f"{site}", *session.posargs, env=quiet)
    for page in site.rglob("*.html"):
        loaded = re.findall(r'''(?:src|rel="stylesheet" href)="(https?:[^"]*)"''', page.read_text())
        if loaded:
            session.error(f"{page} needs the network: {loaded[0]}")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, install it in a fresh environment, and run the demo with it."""
    session.install("build")
    temporary = Path(session.create_tmp()).absolute()
    shutil.rmtree(temporary)
    session.run("python", "-m", "build", "--outdir", f"{temporary}")
    (wheel,) = temporary.glob("*.whl")
    session.run("python", "-m", "venv", f"{temporary / 'venv'}")
    python = f"{temporary / 'venv' / 'bin' / 'python'}"
    session.run(python, "-m", "pip", "install", "-q", f"{wheel}[cli]", external=True)
    with session.chdir(temporary):  # away from the checkout: the wheel's code, not this one's
        installed = "import aws_io_async as a; assert 'site-packages' in a.__file__, a.__file__"
        session.run(python, "-c", installed, external=True)
        session.run(python, "-m", "aws_io_async", "demo", external=True, env={"PYTHONPATH": ""})
