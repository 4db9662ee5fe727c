"""Session folders and finished shanks for the tests of the LFP pipeline."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.parameters import SpectrogramParams
from src.preprocess.lfp.spectrogram_step import run
from src.signals import SourceOptions

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
    wanted: dict = {"sampling_rate": 500.0, "channel_ids": np.arange(samples.shape[1])} | fields
    np.savez(path, traces=samples, **{name: value for name, value in wanted.items() if value is not None})
    return path


def transform(preset: str = "scipy_compat", *, label: str = "a_sh0", fs_hz: float | None = None, **given: Any) -> dict:
    """Parameters of a shank's step."""
    params = SpectrogramParams(preset=preset, **{"bands": BANDS} | given)
    return params.transform() | {"label": label, "source": asdict(SourceOptions(fs_hz=fs_hz))}


def compute(folder: Path, traces: Path, preset: str = "scipy_compat", threads=2, memory_mb=256.0, **given: Any) -> dict:
    """A shank's files in a folder; its facts."""
    folder.mkdir(parents=True, exist_ok=True)
    return run({"traces": traces}, transform(preset, **given), folder, None, threads=threads, memory_mb=memory_mb)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
