"""Whatever a library raises over a file that is absent, protected or damaged, as an error that a user can act on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from src.signals import BadInput


def absent(path: str | Path) -> BadInput:
    """What to say of a path that does not exist: the name beside it that is most like it, or which part is there."""
    path = Path(path).absolute()
    there = next(place for place in path.parents if place.exists())
    wanted = path.relative_to(there).parts[0]
    near = get_close_matches(wanted, sorted(os.listdir(there)), 1) if there.is_dir() else []
    if near:
        hint = f"did you mean {there / near[0]}?"
    else:
        hint = "check the path" if there == path.parent else f"check the path: {there} has no {wanted}"
    return BadInput(path, "does not exist", hint)


@contextmanager
def explained(
    source: str | Path, problem: str = "cannot be read", hint: str = "copy or download it again"
) -> Iterator[None]:
    """Errors of the block become :class:`BadInput`: ``problem``, in brackets what the library said, and ``hint``."""
    try:
        yield
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise BadInput(source, "does not exist", "check the path") from error
    except IsADirectoryError as error:
        raise BadInput(source, "is a folder", "give a file") from error
    except PermissionError as error:
        raise BadInput(source, "cannot be read (permission denied)", "ask for read access") from error
    except ImportError as error:
        raise BadInput(source, f"a package is missing ({error})", f"pip install {error.name or 'it'}") from error
    except Exception as error:  # readers fail on damaged files in a dozen ways
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadInput(source, f"{problem} ({said})", hint) from error
