"""What all pictures and pages share: a figure becomes a file, a template becomes a page.

Figures are made without pyplot: it is slow to import, and a window or a backend is not needed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.storage.atomic import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
BLUE, RED = "#2171b5", "#c0392b"
"""Of a line, and of what stands out against it."""
CHARACTERS = 9
"""Of a title, per inch."""


def titled(figure: Figure, title: str) -> None:
    """Write the title of a figure at its top left; the middle of one that is too long is left out."""
    most = round(CHARACTERS * figure.get_figwidth())
    if len(title) > most:
        title = f"{title[: most // 2]}…{title[-(most - most // 2 - 1) :]}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")


def saved(figure: Figure, path: Path, dpi: int = 130) -> Path:
    """Write a figure; the same one makes the same file."""
    with atomic_file(Path(path)) as part:
        if path.suffix == ".png":  # half the time of the usual compression, files that are a tenth larger
            figure.savefig(part, dpi=dpi, pil_kwargs={"compress_level": 3})
        else:
            figure.savefig(part, dpi=dpi, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    return Path(path)


def write_page(path: Path, values: Mapping[str, Any], filters: Mapping[str, Callable[..., str]] | None = None) -> Path:
    """Write ``templates/<name>.html`` of ``values["template"]``, one file that needs nothing beside it.

    A value that the template asks for and that is missing is an error. The filter ``png`` puts a picture into the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters["png"] = lambda picture: f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    environment.filters |= filters or {}
    text = environment.get_template(f"{values['template']}.html").render(values)
    path.write_text(text + "\n", encoding="utf-8")
    return path
