"""Whatever a library raises over a file that is absent, protected or damaged, as an error that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.signals import BadInput


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
