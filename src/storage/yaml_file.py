"""Small YAML files of strangers, read within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from src.signals import BadInput

MAX_BYTES = 1 << 20


class _NoAliases(yaml.SafeLoader):
    """Plain values only. An alias repeats what its anchor holds, so that a file of 1 kB can stand for 1 GB."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, of plain values.

    Raises
    ------
    BadInput
        If the file is missing, larger than 1 MB, not YAML, not a mapping, or holds aliases or Python objects.
    """
    hint = "get the file anew from where it came from"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput(path, f"is larger than {MAX_BYTES} bytes", hint)
        found = yaml.load(path.read_bytes(), _NoAliases)  # a safe loader
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, BadInput):
            raise
        reason = " ".join(str(error).split())[:120]
        raise BadInput(path, f"cannot be read as YAML ({reason})", hint) from error
    if not isinstance(found, dict):
        raise BadInput(path, "holds no mapping of keys to values", hint)
    return found
