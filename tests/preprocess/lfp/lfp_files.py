"""Session folders for the tests of the LFP pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BANDS = {"delta": [0.5, 4.0], "theta": [5.0, 10.0]}


def random_traces(n_samples: int, n_channels: int, *, seed: int = 0, dtype: str = "f4") -> NDArray:
    """``(sample, channel)`` random walks with a pull to zero, some tens of units strong."""
    steps = np.random.default_rng(seed).standard_normal((n_samples, n_channels)) * 20
    steps[1:] += 0.8 * steps[:-1]
    return steps.astype(dtype)


def write_shank(parent: Path, session: str, shank: int, samples: NDArray, **fields) -> Path:
    """``<parent>/<session>.rec/low_freq/<session>_sh<k>_lfp_traces.npz``."""
    folder = parent / f"{session}.rec" / "low_freq"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{session}_sh{shank}_lfp_traces.npz"
    fields = {"sampling_rate": 500.0, "channel_ids": np.arange(samples.shape[1])} | fields
    np.savez(path, traces=samples, **{name: value for name, value in fields.items() if value is not None})
    return path
