"""docs/bootstraps.md and docs/resolver.md: each program prints what stands below it."""

import re
from pathlib import Path

import pytest

from aws_io_async import errors
from tests.test_readme import python

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["bootstraps", "resolver"]
TEXTS = {page: (DOCS / f"{page}.md").read_text() for page in PAGES}
PROGRAM = re.compile(r"^```python\n(.*?)^```\n\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CASES = [(page, *found) for page, text in TEXTS.items() for found in PROGRAM.findall(text)]


@pytest.mark.parametrize("page", PAGES)
def test_below_every_program_stands_what_it_prints(page: str) -> None:
    assert len(PROGRAM.findall(TEXTS[page])) == TEXTS[page].count("```python") > 3


@pytest.mark.parametrize(("page", "program", "printed"), CASES)
def test_programs(tmp_path: Path, page: str, program: str, printed: str) -> None:
    if "integrations.dns" in program:
        pytest.importorskip("dns")
    (tmp_path / "program.py").write_text(program)
    assert python(tmp_path, "-W", "error", "program.py") == printed


@pytest.mark.parametrize("page", PAGES)
def test_codes_that_are_named_exist(page: str) -> None:
    codes = {*errors.ErrorCode.__members__, *errors.CommonErrorCode.__members__}
    assert set(re.findall(r"\b(?:IO|ERROR)_[A-Z_]+\b", TEXTS[page])) <= codes
