"""The pages about channels and testing: programs print what they say, and tables are true."""

import re
from pathlib import Path

import pytest

from aws_io_async.channel import ChannelHandler
from aws_io_async.testing import Rule
from tests.test_readme import python

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.is_dir():
    pytest.skip("the documentation is not here", allow_module_level=True)
PAGES = "channels", "testing"

PROGRAM = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


PROGRAMS = [
    pytest.param(program, printed, id=f"{page} {number}")
    for page in PAGES
    for number, (program, printed) in enumerate(PROGRAM.findall(text_of(page)))
]


def test_every_program_is_known() -> None:
    assert len(PROGRAMS) == sum(text_of(page).count("```python") for page in PAGES) > 0


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_programs(tmp_path: Path, program: str, printed: str) -> None:
    if program.startswith("# test_"):
        (tmp_path / "test_it.py").write_text(program)
        output = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")
        assert "1 passed" in output
        return
    (tmp_path / "program.py").write_text(program)
    assert printed
    assert python(tmp_path, "-W", "error", "program.py") == printed


def test_the_rules_are_those_of_the_check() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", text_of("testing"), re.MULTILINE)
    assert dict(rows) == {rule.name: rule.value for rule in Rule}


def test_what_a_handler_may_have_is_what_the_class_has() -> None:
    _, _, rest = text_of("channels").partition("| A handler may have |")
    table, _, _ = rest.partition("\n\n")
    cells = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
    told = {name for cell in cells for name in re.findall(r"`(\w+)[`(]", cell)}
    public = {name for name in vars(ChannelHandler) if not name.startswith("_")}
    assert told == public - {"slot", "trigger_read"}  # the leftmost handler's
