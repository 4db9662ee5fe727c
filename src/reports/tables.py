"""Tables on the console: what goes into a training, what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

_LONGEST_WORD = 20
"""Characters that are never broken over two lines."""


def summary_table(summary: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per part of the data (train, val, test), one column per count."""
    return results_table([{"part": part, **counts} for part, counts in summary.items()], title="data")


def results_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """Rows of plain values; the keys of the first row are the columns, but for those that hold lists.

    On a narrow screen texts wrap, and nothing is cut. The table is as wide as its title, so that a path stays whole.
    """
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.min_width = len(title)
    columns = _columns(rows)
    for name in columns:
        text = isinstance(rows[0][name], str)
        if text:
            words = " ".join([name, *(_text(row[name]) for row in rows)]).split(" ")
            whole = min(max(map(len, words)), _LONGEST_WORD)
            table.add_column(Text(name), min_width=whole, overflow="fold")
        else:  # a number stays on one line, and words of its heading stand below one another
            table.add_column(Text(name.replace(" ", "\n")), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_text(row[name])) for name in columns))  # brackets in names are no markup
    return table


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
