"""Repeating a run: the recipe it leaves behind, and what differs between its code and today's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.storage.atomic import atomic_file
from src.storage.manifest import provenance

RECIPE = "run.yaml"
_HEAD = """\
# Repeats this run: python train.py --config-dir <this folder> --config-name run
defaults:
  - train_schema
  - frame
  - _self_

"""


def write_recipe(path: Path, config: dict[str, Any]) -> None:
    """Write the resolved configuration as a primary configuration for ``train.py``."""
    with atomic_file(path) as part:
        part.write_text(_HEAD + OmegaConf.to_yaml(OmegaConf.create(config)))


@cache
def source_digests() -> dict[str, str]:
    """The first 12 digits of SHA-256 of every Python file that a run may use, by relative path."""
    root = Path(__file__).resolve().parents[2]
    files = [*root.glob("*.py"), *root.glob("src/**/*.py")]
    return {f.relative_to(root).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()[:12] for f in sorted(files)}


def present_code() -> dict[str, Any]:
    """Commit, Python, packages and ``source`` (digests by file) of this process, as ``run.json`` records them."""
    return {**provenance(), "source": source_digests()}


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What can make the numbers of a repeated run differ, a line each; both are as :func:`present_code` gives them."""
    old, new = recorded.get("source") or {}, present.get("source") or {}
    files = {
        "changed": [f for f in old if f in new and old[f] != new[f]],
        "removed": [f for f in old if f not in new],
        "added": [f for f in new if f not in old],
    }
    lines = [f"{verdict} since: {', '.join(names)}" for verdict, names in files.items() if names]
    old, new = ({"python": r.get("python"), **(r.get("packages") or {})} for r in (recorded, present))
    changed = [name for name in old | new if old.get(name) != new.get(name)]
    return lines + [f"{name} {old.get(name)} then, {new.get(name)} now" for name in changed]
