"""The pytest plugin, in runs of pytest of their own, with the pytest-asyncio that is installed.

`nox -s pytest_plugin` has this file run with older ones, and without the rest of the suite.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio

import aws_io_async

VERSION = tuple(map(int, pytest_asyncio.__version__.split(".")[:2]))
ROOT = Path(aws_io_async.__file__).parent.parent
LOOP = """
import asyncio
import pytest
import pytest_asyncio

def loop():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]
"""


def run(folder: Path, *arguments: str, warnings: str = "error", module: str = "pytest") -> str:
    """Run pytest; returns what it printed and how it ended."""
    done = subprocess.run(
        [sys.executable, *("-m", *module.split()), "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": warnings},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return f"{done.stdout}{done.stderr}exit {done.returncode}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with strict settings, and nothing about loops."""
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\n"
        "addopts = --strict-markers --strict-config\n"
        "filterwarnings = error\n"
        + ("asyncio_default_fixture_loop_scope = function\n" if VERSION >= (0, 24) else "")
    )
    return tmp_path


def write(project: Path, tests: str, name: str = "test_it.py") -> None:
    (project / name).write_text(LOOP + tests)


def test_it_is_installed_and_does_nothing(project: Path) -> None:
    write(
        project,
        """
@pytest.mark.asyncio
async def test_asynchronous():
    assert loop() == "asyncio"

def test_nothing_is_imported():
    import sys
    mine = {name for name in sys.modules if name.startswith("aws_io_async")}
    assert mine == {"aws_io_async", "aws_io_async.integrations", "aws_io_async.integrations.pytest"}
""",
    )
    assert "2 passed" in run(project)
    assert "test_it.py::test_asynchronous\n" in run(project, "--collect-only")
    assert "--aws-io-async" in run(project, "--help")
    assert "@pytest.mark.aws_io_async" in run(project, "--markers")


ALL = """
@pytest_asyncio.fixture
async def of_fixture():
    yield loop()

@pytest.mark.asyncio
async def test_function(of_fixture):
    assert of_fixture == loop() == "aws_io_async"

@pytest.mark.asyncio
@pytest.mark.parametrize("number", [1, 2])
async def test_parameters(number):
    assert loop() == "aws_io_async"

class TestClass:
    @pytest.mark.asyncio
    async def test_method(self, of_fixture):
        assert of_fixture == loop() == "aws_io_async"

def test_synchronous():
    pass
"""


def test_all_by_the_option(project: Path) -> None:
    write(project, ALL)
    assert "5 passed" in run(project, "--aws-io-async")


def test_all_by_the_configuration(project: Path) -> None:
    write(project, ALL)
    assert "5 passed" in run(project, "-o", "aws_io_async=true")
    with (project / "pytest.ini").open("a") as file:
        file.write("aws_io_async = true\nasyncio_mode = auto\n")
    assert "5 passed" in run(project)


def test_some_by_the_marker(project: Path) -> None:
    write(
        project,
        """
@pytest_asyncio.fixture
async def of_fixture():
    yield loop()

@pytest.mark.asyncio
async def test_before(of_fixture):
    assert of_fixture == loop() == "asyncio"

@pytest.mark.aws_io_async
@pytest.mark.asyncio
async def test_function(of_fixture):
    assert of_fixture == loop() == "aws_io_async"

@pytest.mark.asyncio
async def test_after(of_fixture):
    assert of_fixture == loop() == "asyncio"

@pytest.mark.aws_io_async
class TestClass:
    @pytest.mark.asyncio
    async def test_method(self, of_fixture):
        assert of_fixture == loop() == "aws_io_async"

    def test_synchronous(self):
        pass
""",
    )
    write(
        project,
        """
pytestmark = pytest.mark.aws_io_async

@pytest.mark.asyncio
async def test_of_a_module():
    assert loop() == "aws_io_async"
""",
        "test_module.py",
    )
    assert "6 passed" in run(project)


@pytest.mark.skipif(VERSION < (0, 24), reason="needs loop_scope")
@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_loops_that_tests_share(project: Path, scope: str) -> None:
    write(
        project,
        f"""
pytestmark = pytest.mark.asyncio(loop_scope="{scope}")

@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def shared():
    yield asyncio.get_running_loop()

class TestOne:
    async def test_one(self, shared):
        assert shared is asyncio.get_running_loop()
        assert loop() == "aws_io_async"

    async def test_other(self, shared):
        assert shared is asyncio.get_running_loop()
""",
    )
    assert "2 passed" in run(project, "--aws-io-async")


@pytest.mark.skipif(VERSION < (1, 4), reason="needs the hook for loops")
def test_who_asks_has_it_also_where_a_conftest_has_other_loops(project: Path) -> None:
    (project / "conftest.py").write_text(
        "import asyncio\n"
        "def pytest_asyncio_loop_factories(config, item):\n"
        "    return {'one': asyncio.new_event_loop, 'two': asyncio.new_event_loop}\n"
    )
    write(
        project,
        """
@pytest.mark.asyncio
async def test_others():
    assert loop() == "asyncio"

@pytest.mark.aws_io_async
@pytest.mark.asyncio
async def test_ours():
    assert loop() == "aws_io_async"
""",
    )
    assert "3 passed" in run(project)
    assert "1 failed, 1 passed" in run(project, "--aws-io-async")


def test_without_pytest_asyncio(project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (project / "test_it.py").write_text(
        "import pytest\n@pytest.mark.aws_io_async\ndef test_synchronous():\n    pass\n"
    )
    assert "1 passed" in run(project, "-p", "no:asyncio", "--aws-io-async")
    missing = "aws_io_async: it is for the tests of pytest-asyncio, which is not there"
    assert missing in run(project, "-v", "-p", "no:asyncio", "--aws-io-async")
    assert missing not in run(project, "-v", "-p", "no:asyncio")
    assert missing not in run(project, "-v", "--aws-io-async")


def test_pytest_by_the_command_that_runs_programs(project: Path) -> None:
    write(
        project,
        """
@pytest.mark.asyncio
async def test_it():
    assert loop() == "aws_io_async"
""",
    )
    assert "1 passed" in run(project, module="aws_io_async run -m pytest")
