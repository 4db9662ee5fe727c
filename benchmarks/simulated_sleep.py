"""Simulated nights held against Sleep-EDF's: the same features, the same statistics, the same classifiers.

    python -m benchmarks.simulated_sleep <folder with sleep_edfx_bandpower and sleep_edfx_hypnograms> [subjects]

The features of the simulated nights are made as those of ``sleep_edfx_bandpower`` were (its README says how, up to the
ICA): band-pass, sleep +/- 30 min, z-score per recording and channel, Welch of 4-s segments, median.
"""

import sys
import time
from pathlib import Path

import numpy as np
import scipy.signal

from benchmarks.sleep_statistics import (
    Powers,
    PowerStatistics,
    power_statistics,
    read_powers,
    sleep_period,
    transitions,
)
from src.recordings.sleep.hypnogram import trim_wake
from src.recordings.sleep.scoring_files import read_hypnogram
from src.signals import HUMAN_STAGES
from src.simulate.sleep import EPOCH_S, simulate_hypnogram
from src.simulate.sleep_eeg import FS_HZ, Sleeper, simulate_eeg
from src.simulate.sleep_statistics import BANDS_HZ, CHANNELS

_LOW_PASS_HZ = (30.0, 30.0, 15.0)
_FOLDS = 6


def band_powers(samples: np.ndarray, kept: slice) -> np.ndarray:
    """``(epoch, channel, band)`` log power, the recording's variance being one."""
    step = int(EPOCH_S * FS_HZ)
    out = []
    for row, high_hz in zip(samples, _LOW_PASS_HZ, strict=True):
        # The transition bands of MNE's default filters.
        taps = scipy.signal.firwin(661, [0.25, high_hz + high_hz / 8], pass_zero=False, fs=FS_HZ, window="hamming")
        row = scipy.signal.oaconvolve(row, taps, mode="same")[kept.start * step : kept.stop * step]
        epochs = ((row - row.mean()) / row.std()).reshape(-1, step)
        freqs, power = scipy.signal.welch(epochs, FS_HZ, "hamming", 400, 200, average="median")
        bands = [power[:, (freqs >= low) & (freqs < high)].sum(axis=1) * freqs[1] for low, high in BANDS_HZ]
        out.append(np.log(np.stack(bands, axis=1) + 1e-10))
    return np.stack(out, axis=1)


def simulated(n_subjects: int, seed: int = 7) -> tuple[Powers, list[np.ndarray]]:
    """Band powers and hypnograms of two nights of each of so many subjects."""
    values, labels, nights = [], [], []
    for subject in range(n_subjects):
        sleeper = Sleeper.draw(np.random.default_rng([seed, subject]))
        for night in (1, 2):
            rng = np.random.default_rng([seed, subject, night])
            stages = simulate_hypnogram(rng, 9.0, sleeper.lengthening)
            kept = trim_wake(stages)
            values.append(band_powers(simulate_eeg(rng, stages, sleeper), kept))
            labels.append(stages[kept])
            nights.append(sleep_period(stages))
    lengths = [len(part) for part in labels]
    recording = np.repeat(np.arange(2 * n_subjects), lengths)
    return Powers(np.concatenate(values), np.concatenate(labels), recording, recording // 2), nights


def separability(powers: Powers, columns: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[float, float, np.ndarray]:
    """Kappa, macro-F1 and F1 per stage of a logistic regression on unseen subjects."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import cohen_kappa_score, f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scored = powers.labels >= 0
    channels, bands = columns
    x = powers.values[scored][:, channels][:, :, bands].reshape(scored.sum(), -1)
    relative = x.reshape(len(x), len(channels), -1)
    if len(bands) > 1:
        share = np.exp(relative) / np.exp(relative).sum(axis=2, keepdims=True)
        x = np.concatenate([x, share.reshape(len(x), -1)], axis=1)
    y, group = powers.labels[scored], powers.subject[scored]
    fold = {subject: index % _FOLDS for index, subject in enumerate(np.unique(group))}
    folds = np.array([fold[subject] for subject in group])
    guess = np.empty_like(y)
    for index in range(_FOLDS):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        guess[folds == index] = model.fit(x[folds != index], y[folds != index]).predict(x[folds == index])
    per_stage = f1_score(y, guess, average=None)
    return float(cohen_kappa_score(y, guess)), float(per_stage.mean()), per_stage


def main() -> None:
    """Print both sides of every comparison."""
    folder, n_subjects = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 42
    np.set_printoptions(precision=2, suppress=True, linewidth=120)
    clock = time.process_time()
    ours, our_nights = simulated(n_subjects)
    print(f"{2 * n_subjects} nights simulated and analysed in {time.process_time() - clock:.0f} CPU-s\n")
    theirs = read_powers(folder / "sleep_edfx_bandpower")
    paths = sorted((folder / "sleep_edfx_hypnograms").glob("*-Hypnogram.edf"))
    their_nights = [sleep_period(read_hypnogram(path).stages) for path in paths]
    both = {"real": power_statistics(theirs), "simulated": power_statistics(ours)}
    print("transitions per epoch, real | simulated")
    for name, *rows in zip(HUMAN_STAGES, transitions(their_nights), transitions(our_nights), strict=True):
        print(f"  {name:4}", *rows)
    print_powers(both)
    print("\nlogistic regression, unseen subjects: kappa, macro-F1, F1 per stage")
    every = tuple(range(len(BANDS_HZ)))
    cases = {"three channels": ((0, 1, 2), every), "Fpz-Cz": ((0,), every)}
    cases |= {f"Fpz-Cz {low:g}-{high:g} Hz": ((0,), (band,)) for band, (low, high) in enumerate(BANDS_HZ)}
    for name, columns in cases.items():
        for side, powers in (("real", theirs), ("simulated", ours)):
            kappa, macro, per_stage = separability(powers, columns)
            print(f"  {name:20} {side:10} {kappa:.2f} {macro:.2f}", per_stage)


def print_powers(both: dict[str, PowerStatistics]) -> None:
    """Means and spreads side by side."""
    for table in ("mean", "epoch_sd", "memory"):
        print(f"\n{table} of log band power, real | simulated; bands {BANDS_HZ}")
        for stage, name in enumerate(HUMAN_STAGES):
            for row, channel in enumerate(CHANNELS):
                print(f"  {name:4} {channel:15}", *(getattr(side, table)[stage, row] for side in both.values()))
    for table in ("subject_sd", "night_sd", "stage_sd", "epoch_channels", "epoch_bands"):
        print(f"\n{table}, real | simulated")
        for rows in zip(*(getattr(side, table) for side in both.values()), strict=True):
            print("  ", *rows)


if __name__ == "__main__":
    main()
