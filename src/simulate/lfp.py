"""A rodent's LFP session with known sleep states, for demonstrations, tests and benchmarks.

Every channel is pink noise, part of it shared by the shank, with slow waves and spindles in NREM sleep and
a theta rhythm in REM sleep and in active waking; quiet waking has some slow waves. From 1250 Hz on, muscle activity
reaches all channels at once. Amplitudes change with depth. Made block by block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from src.recordings.extracellular.arrays import trace_file
from src.signals import RODENT_STAGES, BadInput
from src.storage.atomic import atomic_file
from src.storage.output import OutputFolder

_WAKE, _NREM, _REM = range(3)
_BOUTS_S = {_WAKE: (40.0, 160.0), _NREM: (60.0, 240.0), _REM: (30.0, 100.0)}
_NEXT = {_WAKE: (_NREM,), _NREM: (_REM, _WAKE), _REM: (_WAKE, _NREM)}
_QUIET = 3
_EPOCH_S = 4.0
# Rhythm: band in Hz, and its amplitude in µV in active waking, NREM, REM and quiet waking. Active waking has theta
# nearly as REM sleep has, quiet waking has slow waves: neither amplitude alone tells waking apart.
_RHYTHMS = {
    "delta": ((1.0, 4.0), (25.0, 160.0, 20.0, 65.0)),
    "theta": ((6.0, 9.0), (80.0, 12.0, 110.0, 20.0)),
    "sigma": ((10.0, 15.0), (5.0, 35.0, 8.0, 8.0)),
    "gamma": ((40.0, 90.0), (14.0, 4.0, 10.0, 9.0)),
}
_MUSCLE_HZ, _MUSCLE_UV = (300.0, 600.0), (14.0, 2.0, 1.0, 6.0)
"""What all channels share without delay; seen at 1250 Hz and more."""
_LSB_UV = 0.195
_PINK = ((0.049922035, -0.095993537, 0.050612699, -0.004408786), (1.0, -2.494956002, 2.017265875, -0.522189400))
"""A filter that falls by 3 dB per octave (Smith, Spectral Audio Signal Processing, 2011)."""


@dataclass(frozen=True)
class SimulatedSession:
    """Where a simulated session was written, and what the animal was doing."""

    folder: Path  # the .rec folder
    stages: NDArray[np.int8]  # (epoch,) indices into RODENT_STAGES
    epoch_s: float


def simulate_session(
    parent: Path,
    *,
    name: str = "rat1",
    minutes: float = 30.0,
    shanks: Sequence[int] = (0, 1),
    n_channels: int = 8,
    fs_hz: float = 500.0,
    seed: int = 0,
    dtype: str = "float32",
) -> SimulatedSession:
    """Write ``<parent>/<name>.rec/low_freq/<name>_sh<k>_lfp_traces.npz`` and ``<parent>/<name>_hypnogram.csv``.

    The traces are µV on a 0.195-µV grid as ``float32``, or that grid's steps as ``int16``; all shanks live
    through the same states. Neither a hypnogram nor files that were not simulated are replaced.
    """
    rng, epoch_s = np.random.default_rng(seed), _EPOCH_S
    stages = simulate_states(rng, int(minutes * 60 // epoch_s), epoch_s)
    folder = parent / f"{name}.rec"
    n_samples, counts = int(minutes * 60 * fs_hz), np.dtype(dtype).kind == "i"
    lines = [f"{i * epoch_s:.10g},{epoch_s:g},{RODENT_STAGES[stage]}" for i, stage in enumerate(stages)]
    scoring = parent / f"{name}_hypnogram.csv"
    if scoring.exists():
        raise BadInput(scoring, "is there already", "choose another folder or name")
    with OutputFolder(parent).folder(folder.name) as part:
        (part / "low_freq").mkdir()
        for shank in shanks:
            own = np.random.default_rng((seed, shank))
            blocks = simulate_traces(own, stages, epoch_s, n_samples, n_channels, fs_hz)
            path = part / "low_freq" / f"{name}_sh{shank}_lfp_traces.npz"
            fields = {
                "sampling_rate": fs_hz,
                "channel_ids": np.arange(n_channels) + 1000 * shank,
                "ycoord": np.arange(n_channels) * 20.0,
                "units": f"{_LSB_UV} uV" if counts else "uV",
                "shank": shank,
                "upstream": "simulated",
            }
            with trace_file(path, (n_samples, n_channels), np.dtype(dtype), fields) as write:
                for block in blocks:
                    write(np.clip(np.round(block / _LSB_UV), -32768, 32767) if counts else block)
    with atomic_file(scoring) as part:
        part.write_text("onset,duration,stage\n" + "\n".join(lines) + "\n")
    return SimulatedSession(folder, stages, epoch_s)


def simulate_states(rng: np.random.Generator, n_epochs: int, epoch_s: float) -> NDArray[np.int8]:
    """Bouts of wake, NREM and REM sleep; REM follows NREM only."""
    stages, state = np.empty(0, np.int8), _WAKE
    while len(stages) < n_epochs:
        bout = max(1, round(rng.uniform(*_BOUTS_S[state]) / epoch_s))
        stages = np.concatenate([stages, np.full(bout, state, np.int8)])
        state = int(rng.choice(_NEXT[state]))
    return stages[:n_epochs]


def with_quiet_waking(rng: np.random.Generator, stages: NDArray[np.int8], epoch_s: float) -> NDArray[np.int8]:
    """Stages in which half of waking, some 10 to 60 s at a time, is quiet (3) instead of active (0)."""
    quiet, state = np.zeros(len(stages), bool), False
    first = 0
    while first < len(stages):
        length = max(1, round(rng.uniform(10, 60) / epoch_s))
        quiet[first : first + length] = state
        first, state = first + length, not state
    return np.where((stages == _WAKE) & quiet, _QUIET, stages).astype(np.int8)


def simulate_traces(
    rng: np.random.Generator, stages: NDArray[np.int8], epoch_s: float, n_samples: int, n_channels: int, fs_hz: float
) -> Iterator[NDArray[np.float32]]:
    """``(sample, channel)`` blocks in µV."""
    depth = np.linspace(0, 1, n_channels)
    profile = {
        "delta": 1.2 - 0.6 * depth,
        "theta": 0.4 + 0.9 * np.exp(-(((depth - 0.7) / 0.25) ** 2)),
        "sigma": 1.1 - 0.5 * depth,
        "gamma": 0.6 + 0.5 * depth,
    }
    pink = _Filter(_PINK, n_channels + 1)
    stages = with_quiet_waking(rng, stages, epoch_s)
    rhythms = _RHYTHMS | {"muscle": (_MUSCLE_HZ, _MUSCLE_UV)}
    profile["muscle"] = np.ones(n_channels)
    bands = {
        name: _Filter(scipy.signal.butter(2, np.clip(band, 1e-3, 0.49 * fs_hz), "band", fs=fs_hz), 2)
        for name, (band, _) in rhythms.items()
        if band[1] < 0.49 * fs_hz
    }
    block = max(1, (1 << 21) // n_channels)
    for first in range(0, n_samples, block):
        count = min(block, n_samples - first)
        epoch = np.minimum((np.arange(first, first + count) / fs_hz / epoch_s).astype(int), len(stages) - 1)
        noise = pink(rng.standard_normal((count, n_channels + 1), dtype=np.float32))
        values = (120 / 0.05) * 0.25 * (0.7 * noise[:, :1] + noise[:, 1:])
        for name, filtered in bands.items():
            carrier = filtered(rng.standard_normal((count, 2), dtype=np.float32))
            band, amplitudes = rhythms[name]
            carrier = carrier[:, 0] / np.sqrt(2 * (band[1] - band[0]) / fs_hz)
            values += (np.array(amplitudes)[stages[epoch]] * carrier)[:, None] * profile[name]
        values += rng.standard_normal(values.shape, dtype=np.float32) * 5
        yield (np.round(values / _LSB_UV) * _LSB_UV).astype(np.float32)


class _Filter:
    """A filter that keeps its state from one block to the next."""

    def __init__(self, coefficients: Sequence[Sequence[float]], n_channels: int) -> None:
        self._b, self._a = coefficients
        order = max(len(self._a), len(self._b)) - 1
        self._state = np.zeros((order, n_channels))

    def __call__(self, values: NDArray) -> NDArray:
        filtered, self._state = scipy.signal.lfilter(self._b, self._a, values, axis=0, zi=self._state)
        return filtered
