"""What a table or a message looks like in a terminal."""

import io
from typing import Any

from rich.console import Console


def printed(content: Any, width: int = 100) -> str:
    """What :mod:`rich` prints of ``content`` in a terminal of ``width`` columns."""
    file = io.StringIO()
    Console(file=file, width=width).print(content)
    return file.getvalue()
