"""Tables on the console: what goes into a training, what comes out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_LONGEST_WORD = 20
"""Characters that are never broken over two lines."""


def summary_table(summary: Mapping[str, Mapping[str, Any]]) -> "ResultsTable":
    """One row per part of the data (train, val, test), one column per count."""
    return ResultsTable([{"part": part, **counts} for part, counts in summary.items()], title="data")


@dataclass(frozen=True)
class ResultsTable:
    """Rows of plain values; the keys of the first row are the columns, but for those that hold lists.

    The title stands above, a line per note below. On a narrow screen texts wrap, and nothing is cut.
    """

    rows: Sequence[Mapping[str, Any]]
    title: str
    notes: Sequence[str] = ()

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="italic")
        table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
        names = _columns(self.rows)
        texts = {name: [_text(row[name]) for row in self.rows] for name in names}
        for name, width in _widths(self.rows, texts, options.max_width - 2 * len(names)).items():
            if isinstance(self.rows[0][name], str):
                table.add_column(Text(name), width=width, overflow="fold")
            else:  # words of the heading stand below one another
                table.add_column(Text(name.replace(" ", "\n")), width=width, justify="right")
        for row in zip(*texts.values(), strict=True):
            table.add_row(*map(Text, row))  # brackets in names are no markup
        yield table
        yield from map(Text, self.notes)


def _widths(rows: Sequence[Mapping[str, Any]], texts: Mapping[str, Sequence[str]], room: int) -> dict[str, int]:
    """Width of every column: as its longest text, or less where they would not fit, but no word is broken."""
    widths, least = {}, {}
    for name, column in texts.items():
        words = [cell_len(word) for text in (name, *column) for word in text.split(" ")]
        is_text = isinstance(rows[0][name], str)
        widths[name] = max(cell_len(name), *map(cell_len, column)) if is_text else max(words)
        least[name] = min(max(words), _LONGEST_WORD) if is_text else max(words)
    while sum(widths.values()) > room and (wide := [name for name in widths if widths[name] > least[name]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same rows as Markdown."""
    columns = _columns(rows)
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_text(row[name]) for name in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name, value in rows[0].items() if not isinstance(value, list)] if rows else []


def _text(value: Any) -> str:
    if value is None or value != value:  # nan: a score of something that did not occur
        return "–"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)
