"""What networks have to beat: OASIS and a threshold, with their parameters fitted on training neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from src.preprocess.cascade.ground_truth import Example, smooth_counts
from src.preprocess.cascade.oasis import OasisEngine
from src.preprocess.cascade.package import PackageConfig

Baseline = Callable[[np.ndarray], np.ndarray]
"""``(time,)`` ΔF/F to ``(time,)`` expected spikes per frame, smoothed as the truth is."""

TAUS_S = (0.25, 0.5, 0.8, 1.25, 2.0, 3.0)
LAGS = (-1, 0, 1)
CUTS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def fit_oasis(training: Sequence[tuple[Example, np.ndarray]], config: PackageConfig) -> Baseline:
    """OASIS with the decay time, lag and ΔF/F per spike that fit the training neurons best (least squares)."""
    rate = config.sampling_rate_hz

    def candidate(tau_s: float, lag: int) -> Baseline:
        engine = OasisEngine(f"tau{tau_s:g}s_amplitude1", fs_hz=rate)

        def infer(dff: np.ndarray) -> np.ndarray:
            from_baseline = dff - np.percentile(dff, 8)
            return smooth_counts(np.roll(engine.predict(from_baseline[None])[0], lag), config)

        return infer

    return _best((candidate(tau_s, lag) for tau_s in TAUS_S for lag in LAGS), training)


def fit_threshold(training: Sequence[tuple[Example, np.ndarray]], config: PackageConfig) -> Baseline:
    """A spike where ΔF/F rises by more than so many times the noise; cut, lag and size as fit best."""

    def candidate(cut: float, lag: int) -> Baseline:
        def infer(dff: np.ndarray) -> np.ndarray:
            rise = np.diff(dff, prepend=dff[:1])
            noise = np.median(np.abs(rise)) / 0.6745
            return smooth_counts(np.roll((rise > cut * noise).astype(float), lag), config)

        return infer

    return _best((candidate(cut, lag) for cut in CUTS for lag in LAGS), training)


def _best(candidates: Iterable[Baseline], training: Sequence[tuple[Example, np.ndarray]]) -> Baseline:
    best: tuple[float, float, Baseline] | None = None
    truth = np.concatenate([example.target for example, _ in training]).astype(float)
    for infer in candidates:
        value = np.concatenate([infer(dff) for _, dff in training])
        power = float(value @ value)
        scale = float(value @ truth) / power if power else 0.0
        loss = float(np.square(scale * value - truth).sum())
        if best is None or loss < best[0]:
            best = (loss, scale, infer)
    if best is None:
        raise ValueError("no candidate to choose from")
    _, scale, infer = best

    def scaled(dff: np.ndarray) -> np.ndarray:
        return scale * infer(dff)

    return scaled
