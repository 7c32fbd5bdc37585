"""docs/security.md: each promise names a test that exists, and each test here holds a promise."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "security.md"
PROMISE = re.compile(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)")


@cache
def names_in(path: Path) -> frozenset[str]:
    """The test functions of a module, those in classes among them."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.walk(ast.parse(path.read_text()))
    return frozenset(
        node.name for node in tree if isinstance(node, functions) and node.name.startswith("test_")
    )


def test_every_promise_names_a_test() -> None:
    text = PAGE.read_text()
    named = PROMISE.findall(text)
    assert len(named) == len(re.findall(r"`test_\w+`", text)) >= 90
    for name, path in named:
        assert name in names_in(ROOT / path), path


def test_every_test_of_security_holds_a_promise() -> None:
    named = {name for name, path in PROMISE.findall(PAGE.read_text()) if "/security/" in path}
    modules = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    assert {name for path in modules for name in names_in(path)} == named


def test_whoever_reports_is_told_how() -> None:
    policy = (ROOT / "SECURITY.md").read_text()
    for heading in "## Supported versions", "## Reporting a vulnerability", "## What counts":
        assert heading in policy
    assert "docs/security.md" in policy
    assert "SECURITY.md" in PAGE.read_text()
