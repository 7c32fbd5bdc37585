"""docs/design.md: what crosses threads is in its table, with the guard that the source has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "aws_io_async"
PAGE = ROOT / "docs" / "design.md"

PRIMITIVES = {"Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "SimpleQueue"}
PROGRAMS = {"_bench", "_cli", "integrations", "testing"}
"""Not of the library itself: they have no threads beside their own."""


def rows() -> dict[str, str]:
    """The guards that the table tells of, by module."""
    section = PAGE.read_text().partition("## Threads: what guards what")[2].partition("\n## ")[0]
    guards: dict[str, str] = {}
    module = ""
    for cells in re.findall(
        r"^\| (?:`([\w/]+\.py)`|) ?\| (.*?) \| (.*) \|$", section, re.MULTILINE
    ):
        module = cells[0] or module
        guards[module] = guards.get(module, "") + cells[2]
    return guards


def made_in(path: Path) -> Iterator[tuple[str, str]]:
    """The names that a module gives to locks and the like, and what they are."""
    for node in ast.walk(ast.parse(path.read_text())):
        value = getattr(node, "value", None)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(value, ast.Call):
            continue
        function = value.func
        kind = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        of_threads = not (
            isinstance(function, ast.Attribute) and ast.unparse(function.value) == "asyncio"
        )
        if kind in PRIMITIVES and of_threads:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield ast.unparse(target).removeprefix("self."), kind


MODULES = sorted(
    f"{path.relative_to(PACKAGE)}"
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in PROGRAMS and [*made_in(path)]
)


@pytest.mark.parametrize("module", MODULES)
def test_each_lock_is_in_the_table(module: str) -> None:
    guards = rows()
    assert module in guards
    for name, kind in made_in(PACKAGE / module):
        told = kind if kind == "SimpleQueue" else name
        if kind == "Lock" and "tried" in guards[module]:
            continue  # it never keeps anybody waiting
        assert f"`{told}`" in guards[module], f"{name}, a {kind}"
        reentrant = "reentrant" in guards[module]
        assert reentrant == (kind == "RLock") or kind not in ("Lock", "RLock"), name


def test_the_table_has_no_other_modules() -> None:
    assert {*MODULES} <= {*rows()}
    for module in rows():
        assert (PACKAGE / module).exists(), module
