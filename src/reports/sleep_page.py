"""One night on one page: a self-contained HTML file that a sleep lab can open, print and send."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.reports.sleep import STAGE_COLOURS

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = ("statistics", "review", "agreement", "yasa")
"""Parts of the page that a night may lack."""


def write_page(path: Path, page: Mapping[str, Any], figure: Path) -> Path:
    """Write the page with ``figure`` (a PNG) and everything else inside it.

    Parameters
    ----------
    page
        ``title``, ``subtitle``, ``origin``, ``banner``, ``classes``, ``summary`` (tiles), ``findings``, ``signal``,
        ``notes`` and the :data:`SECTIONS` that there are, as ``templates/sleep.html`` shows them: texts and rows of
        texts, which are escaped here.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    values = {**dict.fromkeys(SECTIONS), **page, "colours": STAGE_COLOURS, "picture": embedded(figure.read_bytes())}
    path.write_text(environment.get_template("sleep.html").render(values) + "\n", encoding="utf-8")
    return path


def embedded(png: bytes) -> str:
    """A picture as the text that an HTML page holds."""
    return base64.b64encode(png).decode()
