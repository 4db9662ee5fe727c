"""Ground truth for spike inference: calcium traces with the spikes that were recorded at the same time.

Reads the ``.mat`` files of CASCADE's ground truth: one neuron per file, folders ``DSxx-indicator-…``
(Rupprecht et al. 2021, Nature Neuroscience 24:1324-1337).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.recordings.matlab import load_mat
from src.signals import BadInput
from src.storage.foreign_files import explained

EPHYS_HZ = 1e4
"""Clock of ``events_AP``."""

_DATASET = re.compile(r"^DS(\d+)-")


@dataclass(frozen=True)
class Trial:
    """One uninterrupted recording of one neuron."""

    dataset: str  # name of the folder
    neuron: str  # name of the file without its suffix
    number: int  # position in the file
    dff: np.ndarray  # (time,) float64, as a fraction
    time_s: np.ndarray  # (time,) s, the middle of every frame
    spikes_s: np.ndarray  # (spike,) s, on the same clock

    @property
    def fs_hz(self) -> float:
        return float(1 / np.mean(np.diff(self.time_s)))


def read_ground_truth(folder: Path, datasets: Sequence[str]) -> list[Trial]:
    """All trials of the named datasets, in the order of names and files; each has to have a usable one."""
    trials = []
    for name, found in find_datasets(folder, datasets).items():
        if found is None:
            raise BadInput(Path(folder) / name, "does not exist", "fetch this dataset, or leave it out")
        of_dataset = [trial for path in sorted(found.glob("*_mini.mat")) for trial in read_neuron(path)]
        if not of_dataset:
            raise BadInput(found, "holds no *_mini.mat with a usable trial", "fetch the dataset again")
        trials += of_dataset
    return trials


def find_datasets(folder: Path, datasets: Sequence[str]) -> dict[str, Path | None]:
    """Folder of every named dataset, ``None`` where there is none.

    CASCADE raised the numbers of its datasets by one in 2021, and configurations from before carry the
    old ones. If a dataset is only there under the next number, all numbers are taken for old.
    """

    def there(name: str) -> Path | None:
        return path if (path := Path(folder) / name).is_dir() else None

    exact = {name: there(name) for name in datasets}
    raised = {name: there(_DATASET.sub(lambda match: f"DS{int(match[1]) + 1:02d}-", name)) for name in datasets}
    old = any(exact[name] is None and raised[name] is not None for name in datasets)
    return raised if old else exact


def read_neuron(path: Path) -> list[Trial]:
    """The usable trials of one ground truth file.

    Trials without fluorescence are left out, and so are frames without a time.
    """
    with explained(path, "is no ground truth file with CAttached", "fetch it again"):
        cells = load_mat(path, ["CAttached"])["CAttached"]
        structs = [cell[0, 0] for cell in cells[0]]  # where there is a second row, it repeats the recordings
    trials = []
    for number, struct in enumerate(structs):
        names = struct.dtype.names or ()
        if not {"fluo_time", "fluo_mean", "events_AP"} <= set(names):
            continue
        fields = (struct[name] for name in ("fluo_time", "fluo_mean", "events_AP"))
        time, dff, events = (np.asarray(field, dtype=np.float64).reshape(-1) for field in fields)
        frames = min(len(time), len(dff))
        kept = np.isfinite(time[:frames]) & np.isfinite(dff[:frames])
        time, dff = time[:frames][kept], dff[:frames][kept]
        if len(time) < 2 or np.ptp(dff) == 0 or not (np.diff(time) > 0).all():
            continue
        spikes = np.sort(events[np.isfinite(events)]) / EPHYS_HZ
        trials.append(Trial(path.parent.name, path.stem, number, dff, time, spikes))
    return trials
