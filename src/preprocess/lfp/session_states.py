"""States of a session from those of its shanks: an animal is in one state at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.signals import STAGE_SETS
from src.storage.step import CachedStep

HEADER = "onset,duration,stage,confidence"


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write ``hypnogram.csv``: in every epoch the state with most confidence over the shanks."""
    names = STAGE_SETS["rodent"]
    tables = [(folder / "hypnogram.csv").read_text().splitlines()[1:] for folder in inputs.values()]
    count = min(map(len, tables))
    votes = np.zeros((count, len(names)))
    times = list[str]()
    for table in tables:
        cells = [row.split(",") for row in table[:count]]
        times = [f"{onset},{duration}" for onset, duration, _, _ in cells]
        votes[np.arange(count), [names.index(row[2]) for row in cells]] += [float(row[3]) for row in cells]
    stages, confidence = votes.argmax(axis=1), votes.max(axis=1) / len(tables)
    rows = zip(times, stages, confidence, strict=True)
    lines = [HEADER, *(f"{when},{names[stage]},{sure:.3f}" for when, stage, sure in rows)]
    (out_dir / "hypnogram.csv").write_text("\n".join(lines) + "\n")
    agreed = float((np.count_nonzero(votes, axis=1) == 1).mean())
    warnings = [] if agreed > 0.9 else [f"the shanks agree in {agreed:.0%} of the epochs: look at their figures"]
    return {
        "shanks": list(inputs),
        "epochs": count,
        "epoch_s": params["epoch_s"],
        "stage_names": list(names),
        "share": {name: round(float((stages == k).mean()), 4) for k, name in enumerate(names)},
        "confidence": round(float(confidence.mean()), 4),
        "shanks_agree": round(agreed, 4),
        "signal": {},
        "scored_by": f"the vote of {len(tables)} shanks",
        "warnings": warnings,
    }


SESSION_STATES = CachedStep("lfp_session_states", 1, _run)
"""Inputs: the folders of the scored shanks by their labels; parameter ``epoch_s``."""
