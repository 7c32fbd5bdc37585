"""docs/parity.md: its tables are what the files say, and what they name exists."""

import ast
import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "parity"
if not FOLDER.is_dir():
    pytest.skip("the documentation is not here", allow_module_level=True)


def load_render() -> Any:
    spec = importlib.util.spec_from_file_location("parity_render", FOLDER / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = load_render()
FUNCTIONS: list[dict[str, str]] = render.rows("functions.csv")
TESTS: list[dict[str, str]] = render.rows("tests.csv")


def exists(dotted: str) -> bool:
    """Whether a module, or an attribute of one or of a class in one, has this path."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return all(has(value := part(value, name)) for name in parts[count:])
    return False


def part(value: Any, name: str) -> Any:
    if name in getattr(value, "__dataclass_fields__", {}):
        return value.__dataclass_fields__[name]
    return getattr(value, name, None)


def has(value: object) -> bool:
    return value is not None


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file, by what follows its name in their ids, parameters left out."""
    found: set[str] = set()

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                look(node.body, f"{prefix}{node.name}::")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + node.name)

    look(ast.parse((ROOT / path).read_text()).body, "")
    return frozenset(found)


def test_the_page_is_what_the_tables_say() -> None:
    expected = render.render()
    assert render.PAGE.read_text() == expected, "run: python docs/parity/render.py"


@pytest.mark.parametrize(
    ("table", "key", "count"), [(FUNCTIONS, "function", 272), (TESTS, "test", 257)]
)
def test_each_of_aws_c_io_s_has_a_row(table: list[dict[str, str]], key: str, count: int) -> None:
    assert len({row[key] for row in table}) == len(table) == count


def test_every_function_exists() -> None:
    missing = [
        row for row in FUNCTIONS if row["python"] != render.NONE and not exists(row["python"])
    ]
    assert missing == []


def test_every_function_is_public() -> None:
    """By a path that users may take: no name in it begins with an underscore, but for `__str__`."""
    private = [
        row["python"]
        for row in FUNCTIONS
        if any(name.startswith("_") and name != "__str__" for name in row["python"].split("."))
    ]
    assert private == []


def test_every_test_exists() -> None:
    missing = []
    for row in TESTS:
        if row["pytest"] == render.NONE:
            continue
        path, _, name = row["pytest"].partition("::")
        if not (ROOT / path).is_file() or name.partition("[")[0] not in names_in(path):
            missing.append(row)
    assert missing == []


@pytest.mark.parametrize("table", [FUNCTIONS, TESTS], ids=["functions", "tests"])
def test_what_has_no_place_here_says_why(table: list[dict[str, str]]) -> None:
    reasons = ("Windows", "Apple", "allocator", "memory", "reference count", "BYO crypto")
    target = "python" if table is FUNCTIONS else "pytest"
    unexplained = [
        row for row in table if row[target] == render.NONE and not row["note"].startswith(reasons)
    ]
    assert unexplained == []


@pytest.mark.parametrize(
    "dotted",
    [
        "aws_io_async.nothing",
        "aws_io_async.pem.parse.nothing",
        "aws_io_async_not",
        "aws_io_async.io.x",
    ],
)
def test_what_does_not_exist_is_noticed(dotted: str) -> None:
    assert not exists(dotted)
