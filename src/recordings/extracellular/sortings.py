"""Spikes that another program has sorted: a Phy folder, or a file or folder of SpikeInterface."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

HINT = "give a Phy folder (with params.py), <name>_sorting.npz, or a folder that SpikeInterface saved"


def read_sorting(path: Path, fs_hz: float) -> tuple[SpikeTrain, tuple[str, ...]]:
    """The spikes of a sorting, and which unit of it each neuron is.

    Of a Phy folder with units that somebody called good, these alone are taken; noise never is.

    Raises
    ------
    BadInput
        If it is no sorting, has another rate or several segments, or no unit.
    """
    from spikeinterface.core import load, read_npz_sorting
    from spikeinterface.extractors import read_phy

    path = Path(path)
    if not path.exists():
        raise BadInput(path, "does not exist", HINT)
    try:
        if (path / "params.py").is_file():
            sorting = read_phy(path, exclude_cluster_groups=["noise"])
        else:
            sorting = read_npz_sorting(path) if path.suffix == ".npz" else load(path)
        units, rate, segments = list(sorting.unit_ids), sorting.get_sampling_frequency(), sorting.get_num_segments()
    except Exception as error:  # its readers fail on foreign files in a dozen ways
        raise BadInput(path, f"is no sorting ({error})", HINT) from error
    if not np.isclose(rate, fs_hz, rtol=1e-3):
        raise BadInput(path, f"was sorted at {rate:g} Hz, the recording has {fs_hz:g} Hz", "give its own recording")
    if segments != 1:
        raise BadInput(path, f"has {segments} segments", "give a sorting of one segment")
    quality = sorting.get_property("quality")
    good = [u for u, q in zip(units, quality, strict=True) if q == "good"] if quality is not None else []
    chosen = good or units
    trains = [np.asarray(sorting.get_unit_spike_train(unit), np.int64) for unit in chosen]
    trains, chosen = [t for t in trains if len(t)], [u for t, u in zip(trains, chosen, strict=True) if len(t)]
    if not trains:
        raise BadInput(path, "has no unit with a spike", HINT)
    names = np.concatenate([np.full(len(t), number) for number, t in enumerate(trains, start=1)])
    said = ", ".join(f"{number} is unit {unit}" for number, unit in enumerate(chosen, start=1))
    return SpikeTrain.sorted(np.concatenate(trains), names), (f"neuron {said} of {path.name}",)
