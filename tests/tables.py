"""Tables as they look in a terminal and as they stand in a CSV file."""

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console


def printed(content: Any, width: int = 100) -> str:
    """What :mod:`rich` prints of ``content`` in a terminal of ``width`` columns."""
    file = io.StringIO()
    Console(file=file, width=width).print(content)
    return file.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by the names of their columns."""
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))
