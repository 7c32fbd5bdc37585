"""Makes docs/parity.md of the two tables beside this file: `python docs/parity/render.py`.

functions.csv: what each function of aws-c-io is here; tests.csv: where the same is tested. Either
is a path that can be imported or run, or "n/a" with the reason in the note.
"""

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "parity.md"
NONE = "n/a"

HEAD = """\
# Parity with aws-c-io

What each of aws-c-io's public functions is in this library, and which of our tests asserts what
each of its tests does. The tables are made by `docs/parity/render.py` of the files beside it, and
`tests/test_parity.py` checks that everything they name exists. Here, functions are without the
`aws_io_async.` of their names, and tests without the `tests/`.

Nothing stands for what belongs to another platform (Windows, Apple's frameworks), for allocators
and reference counts, which Python does without, and for TLS libraries brought along in C.
"""


def rows(name: str) -> list[dict[str, str]]:
    """The rows of one of the tables."""
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def counts(table: list[dict[str, str]], target: str) -> str:
    """How many rows there are, and how many of them have something here."""
    mapped = sum(row[target] != NONE for row in table)
    return f"{len(table)}: {mapped} are here, {len(table) - mapped} have no place here."


def lines(table: list[dict[str, str]], key: str, target: str, group: str) -> Iterator[str]:
    """A table of Markdown for each group."""
    for heading, members in groupby(table, lambda row: row[group]):
        yield f"\n### {heading}\n"
        yield "| aws-c-io | here | |"
        yield "|---|---|---|"
        for row in members:
            name = row[target].removeprefix("aws_io_async.").removeprefix("tests/")
            here = "—" if name == NONE else f"`{name}`"
            yield f"| `{row[key]}` | {here} | {row['note']} |"


def render() -> str:
    """The page."""
    functions, tests = rows("functions.csv"), rows("tests.csv")
    return "\n".join(
        (
            HEAD,
            "## Functions\n",
            counts(functions, "python"),
            *lines(functions, "function", "python", "header"),
            "\n## Tests\n",
            counts(tests, "pytest"),
            *lines(tests, "test", "pytest", "file"),
            "",
        )
    )


if __name__ == "__main__":
    PAGE.write_text(render())
