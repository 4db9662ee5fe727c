"""Make ``pretrained/cascade/Embedded_2Hz_smoothing500ms``, the CASCADE package that runs on any machine.

    python -m pretrained.make_cascade_embedded [--output_dir artifacts/cascade_models]

Neurons with known spikes are simulated into files of ground truth, and ``preprocess=cascade_train`` trains the networks
on them with the ``config.yaml`` of the package. The same machine gives the same package again.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.io import savemat
from scipy.signal import lfilter

from src.preprocess.cascade.parameters import CascadeTrainParams
from src.recordings.calcium.ground_truth import EPHYS_HZ, Trial

RECIPE = Path(__file__).parent / "cascade" / "Embedded_2Hz_smoothing500ms" / "config.yaml"
NEURONS, SEED, STEPS = 60, 42, 500
_FINE_HZ, _RECORDED_HZ = 100.0, 10.0
"""Rates of the simulated spikes, and of the frames."""


def simulate_ground_truth(neurons: int, seed: int, duration_s: float = 300.0) -> list[Trial]:
    """Neurons with known spikes, almost free of noise.

    Firing is a Poisson process whose rate (0.03 to 3 Hz on average) comes in events of some seconds.
    The indicator rises within 0.05 to 0.4 s and decays within 0.4 to 3 s, saturates, and answers one
    spike with a ΔF/F of 0.05 to 0.5.
    """
    trials = []
    for number in range(neurons):
        draw = np.random.default_rng([seed, number])
        fine = int(duration_s * _FINE_HZ)
        time = np.arange(fine) / _FINE_HZ
        counts = draw.poisson(_firing_rate(fine, draw) / _FINE_HZ)
        dff = _indicator_response(counts, draw)
        step = int(_FINE_HZ / _RECORDED_HZ)
        frames = dff.reshape(-1, step).mean(axis=1)
        frames += 0.003 * np.sqrt(_RECORDED_HZ) * draw.standard_normal(len(frames))
        middle = time.reshape(-1, step).mean(axis=1)
        spikes = np.repeat(time, counts) + draw.uniform(0, 1 / _FINE_HZ, counts.sum())
        trials.append(Trial("simulated", f"neuron_{number:03d}", 0, frames, middle, np.sort(spikes)))
    return trials


def _firing_rate(samples: int, draw: np.random.Generator) -> np.ndarray:
    rate = np.full(samples, np.exp(draw.uniform(np.log(0.01), np.log(0.3))))
    for _ in range(draw.poisson(samples / _FINE_HZ / draw.uniform(15, 60))):
        start, length = int(draw.integers(samples)), int(draw.uniform(0.3, 6) * _FINE_HZ)
        rate[start : start + length] += draw.uniform(0.5, 8)
    return rate


def _indicator_response(counts: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    rise_s, decay_s = draw.uniform(0.05, 0.4), np.exp(draw.uniform(np.log(0.4), np.log(3.0)))
    slow_hz, quick_hz = 1 / decay_s, 1 / decay_s + 1 / rise_s
    slow, quick = (lfilter([1.0], [1.0, -np.exp(-hz / _FINE_HZ)], counts) for hz in (slow_hz, quick_hz))
    time = np.arange(0, 4, 1 / _FINE_HZ)
    peak = (np.exp(-time * slow_hz) - np.exp(-time * quick_hz)).max()
    linear = np.exp(draw.uniform(np.log(0.05), np.log(0.5))) * (slow - quick) / peak
    return linear / (1 + linear / draw.uniform(2, 8))


def write_trials(folder: Path, trials: list[Trial]) -> None:
    """One file of ground truth per trial, in CASCADE's layout."""
    kinds = [(name, object) for name in ("fluo_time", "fluo_mean", "events_AP")]
    for trial in trials:
        cells = np.empty((1, 1), object)
        cells[0, 0] = np.array([[(trial.time_s[None], trial.dff[None], trial.spikes_s[:, None] * EPHYS_HZ)]], kinds)
        (folder / trial.dataset).mkdir(parents=True, exist_ok=True)
        savemat(folder / trial.dataset / f"{trial.neuron}_mini.mat", {"CAttached": cells})


def main(arguments: list[str] | None = None) -> int:
    """Simulate, train, and write the package into ``--output_dir``."""
    parser = argparse.ArgumentParser(prog="python -m pretrained.make_cascade_embedded", description=__doc__)
    parser.add_argument("--output_dir", default="artifacts/cascade_models")
    parser.add_argument("--neurons", type=int, default=NEURONS)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        write_trials(Path(folder), simulate_ground_truth(given.neurons, SEED))
        params = CascadeTrainParams(
            recipe=str(RECIPE), input_dir=folder, output_dir=given.output_dir, seed=SEED, max_steps=given.steps
        )
        return params.run().exit_code


if __name__ == "__main__":
    raise SystemExit(main())
