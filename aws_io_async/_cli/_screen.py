"""Showing facts and tables: by rich on a terminal, in plain lines elsewhere."""

import enum
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text as RichText


class Tone(enum.Enum):
    """What a cell's text means, for who can show colours; the value is rich's style."""

    GOOD = "green"
    BAD = "bold red"
    ODD = "yellow"
    MINOR = "dim"


@dataclass(frozen=True)
class Cell:
    """A text with a tone."""

    text: str
    tone: Tone


Text = str | Cell


@dataclass(frozen=True)
class Facts:
    """Names and values, one a line."""

    title: str
    rows: Mapping[str, Text]


@dataclass(frozen=True)
class Table:
    """Columns with headings. Where there is no room for all, the text of the last one is folded."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    expendable: Sequence[str] = ()
    """Columns to leave out before that, one after the other."""

    def widths(self) -> list[int]:
        """Of the columns."""
        columns = zip(self.columns, *self.rows, strict=True)
        return [max(len(_text(cell)) for cell in column) for column in columns]

    def fitting(self, width: int) -> "Table":
        """The same with no more columns left out than it takes."""
        widths = self.widths()
        widths[-1] = min(widths[-1], FOLDED_WIDTH)
        kept = list(range(len(widths)))
        for name in self.expendable:
            if sum(widths[n] + GAP for n in kept) <= width:
                break
            kept.remove(self.columns.index(name))
        columns = [self.columns[n] for n in kept]
        return Table(self.title, columns, [[row[n] for n in kept] for row in self.rows])


Part = Facts | Table
Update = Callable[[Sequence[Part]], None]

NAME_WIDTH = 16
"""Of the names of facts."""

FOLDED_WIDTH = 24
"""Of the last column of a table, at least, where there is no room for all of it."""

GAP = 2
"""Between columns."""


class Screen:
    """Where parts are shown: a terminal, a pipe, a file."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream: TextIO | None = stream if stream is not None else sys.stdout
        self._console = _console(self._stream)

    def show(self, *parts: Part) -> None:
        """Write parts, an empty line between them."""
        if self._console is None:
            text = "\n".join(_plain(part) for part in parts)
            print(text, file=self._stream, end="", flush=True)
            return
        for number, part in enumerate(parts):
            if number:
                self._console.print()
            shown = _rich(part, self._console.width)
            self._console.print(shown, soft_wrap=isinstance(part, Facts))

    @contextmanager
    def live(self) -> Iterator[Update]:
        """A function that shows parts in the place of those before; one after the other if plain.

        What was shown last stays.
        """
        if self._console is None:
            shown = 0

            def write(parts: Sequence[Part]) -> None:
                nonlocal shown
                if shown:
                    print(file=self._stream)
                shown += 1
                self.show(*parts)

            yield write
            return
        from rich.console import Group
        from rich.live import Live

        console = self._console
        view = Live(
            console=console,
            auto_refresh=False,  # no thread
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with view:
            yield lambda parts: view.update(
                Group(*(_rich(part, console.width) for part in parts)), refresh=True
            )


def _console(stream: TextIO | None) -> "Console | None":
    """rich's console, if `stream` is a terminal that can be drawn on and rich is there.

    It is None if it was closed before the program began (`>&-`).
    """
    if stream is None or not stream.isatty() or os.environ.get("TERM") in (None, "", "dumb"):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False, emoji=False)


def emit(document: Any) -> None:
    """Write a JSON document to stdout, in one line."""
    print(json.dumps(document), flush=True)


# Plain


def _plain(part: Part) -> str:
    lines = [part.title] if part.title else []
    if isinstance(part, Facts):
        lines += [
            f"  {name:{NAME_WIDTH}} {_text(value)}".rstrip() for name, value in part.rows.items()
        ]
    else:
        widths = part.widths()
        for row in part.columns, *part.rows:
            cells = (f"{_text(cell):{width}}" for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {'  '.join(cells)}".rstrip())
    return "".join(f"{line}\n" for line in lines)


def _text(text: Text) -> str:
    return text.text if isinstance(text, Cell) else text


# Rich


def _rich(part: Part, width: int) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text as RichText

    # Not as the table's own title, which would be no wider than the table.
    lines: list[RenderableType] = [RichText(part.title, "bold")] if part.title else []
    if part.rows:
        lines.append(_facts(part) if isinstance(part, Facts) else _table(part.fitting(width)))
    return Group(*lines)


def _facts(facts: Facts) -> "RenderableType":
    from rich.table import Table as RichTable

    table = RichTable(box=None, show_header=False)
    table.add_column(style="cyan", min_width=NAME_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.rows.items():
        table.add_row(name, _styled(value))
    return table


def _table(part: Table) -> "RenderableType":
    from rich.table import Table as RichTable

    table = RichTable(box=None, header_style="cyan")
    *columns, last = part.columns
    for column in columns:
        table.add_column(column, no_wrap=True)
    table.add_column(last, overflow="fold", min_width=min(part.widths()[-1], FOLDED_WIDTH))
    for row in part.rows:
        table.add_row(*map(_styled, row))
    return table


def _styled(text: Text) -> "RichText":
    from rich.text import Text as RichText

    return RichText(_text(text), text.tone.value if isinstance(text, Cell) else "")
