"""Two databases with file formats of their own: the DREAMS spindle excerpts and the UCDDB epochs."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.recordings.sleep.stage_names import CODINGS
from src.signals import BadInput, Recording
from src.storage.foreign_files import explained

_DREAMS_HZ = {1: 100.0, 3: 50.0}
_DREAMS_USUAL_HZ = 200.0
_DREAMS_S = 1800.0
"""Length and rates of the excerpts as their documentation states them; the files do not."""

_UCDDB_HZ, _UCDDB_EPOCH_S = 128.0, 30.0
_UCDDB_STAGES = {"stagewake": (0,), "stagemix": (1, 2, 3), "stagedeep": (4, 5)}
"""Which integers of the stage file the rows of each ``.mat`` file belong to."""


def dreams_signal(path: Path) -> Recording:
    """One excerpt of the DREAMS spindle database (Devuyst et al. 2011): ASCII, microvolts, one channel.

    The 1800 s that the documentation promises are read; a shorter file is refused, a tail beyond them is left out.
    """
    match = re.fullmatch(r"excerpt(\d+)", path.stem)
    if not match:
        raise BadInput(path, "is not named like a DREAMS excerpt", "expected excerptN.txt")
    rate = _DREAMS_HZ.get(int(match[1]), _DREAMS_USUAL_HZ)
    with explained(path, "is not a column of numbers"), path.open() as handle:
        channel = handle.readline().strip().strip("[]")
        values = np.array(handle.read().split(), dtype=np.float32)
    expected = int(_DREAMS_S * rate)
    if len(values) < expected:
        raise BadInput(path, f"is truncated: {len(values)} of {expected} samples", "copy or download it again")
    return Recording(values[None, :expected], rate, (channel,), ("uV",), path.stem, path.stem, source=str(path))


def ucddb_signal(parts: Sequence[Path], stage_file: Path | None) -> Recording:
    """A night of the UCD sleep apnea database (Heneghan et al.) from its epochs, sorted by stage.

    Row ``i`` of a file goes to the ``i``-th epoch of the night that carries one of the file's
    stages; a file with another number of rows is refused. Epochs that no file holds are NaN. Amplitudes have no
    stated unit.
    """
    from src.recordings.matlab import load_mat  # loads SciPy

    if stage_file is None:
        raise BadInput(parts[0], "has no stage file", "the stage file says where its epochs belong")
    with explained(stage_file, "is not a list of integers"):
        codes = np.array([int(line) for line in stage_file.read_text().split()])
    if unknown := sorted(set(codes.tolist()) - set(CODINGS["ucddb"])):
        raise BadInput(stage_file, f"has unknown stages: {unknown}", "use UCDDB's integers 0-8")
    night = np.full((len(codes), int(_UCDDB_HZ * _UCDDB_EPOCH_S)), np.nan, np.float32)
    for path in parts:
        kind = path.stem.rpartition("_")[2]
        with explained(path, "cannot be read as MATLAB v5"):
            rows = load_mat(path, [path.stem])[path.stem]
        places = np.flatnonzero(np.isin(codes, _UCDDB_STAGES.get(kind, ())))
        if rows.shape != (len(places), night.shape[1]):
            problem = f"has rows {rows.shape}, the stage file calls for {(len(places), night.shape[1])}"
            raise BadInput(path, problem, f"give the files that belong to {stage_file.name}")
        night[places] = rows
    name = parts[0].stem.partition("_")[0]
    return Recording(night.reshape(1, -1), _UCDDB_HZ, ("EEG",), ("a.u.",), name, name, source=str(stage_file))
