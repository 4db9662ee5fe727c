"""Sliding-percentile baseline: the original's loop over frames, SciPy's rank filter, and ours.

python -m benchmarks.baseline_percentile [--neurons 2048] [--frames 3000] [--window 61]

Prints CPU nanoseconds per sample, ratios, and the largest difference from ``numpy.percentile`` in ulp.
Target: equal to 1 ulp. What it costs, and why a faster one of 110 lines went, is in docs/decisions.md (2026-11-29).
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.ndimage import percentile_filter

from src.preprocess.calcium.baseline import sliding_percentile

PERCENTILE = 8


def loop_over_frames(traces: np.ndarray, window: int) -> np.ndarray:
    """As the original does it: one call of ``numpy.percentile`` per frame on (window, neurons)."""
    by_time, half = np.ascontiguousarray(traces.T), window // 2
    baseline = np.empty_like(by_time)
    for t in range(len(by_time)):
        baseline[t] = np.percentile(by_time[max(0, t - half) : t + half + 1], PERCENTILE, axis=0)
    return baseline.T


def scipy_rows(traces: np.ndarray, window: int) -> np.ndarray:
    """SciPy's filter row by row: the fastest ready-made one, but ranks only and padded edges."""
    return np.stack([percentile_filter(row, PERCENTILE, size=window) for row in traces])


def cpu_per_sample(work: Callable[[], np.ndarray], samples: int, repeats: int) -> tuple[float, np.ndarray]:
    best, result = np.inf, np.empty(0)
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return 1e9 * best / samples, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=2048)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--window", type=int, default=61)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    drift = 200 + 20 * np.sin(np.arange(given.frames) / 300)
    noise = rng.standard_normal((given.neurons, given.frames), dtype=np.float32)
    traces = (drift + 10 * noise + 50 * (noise > 2)).astype(np.float32)
    sliding_percentile(traces[:32], given.window, PERCENTILE)  # compile

    few = traces[: max(given.neurons // 8, 1)]  # the loop is slow; its cost per sample does not depend on the count
    loop_ns, reference = cpu_per_sample(lambda: loop_over_frames(few, given.window), few.size, 1)
    rows_ns, _ = cpu_per_sample(lambda: scipy_rows(few, given.window), few.size, 2)
    ours_ns, ours = cpu_per_sample(lambda: sliding_percentile(traces, given.window, PERCENTILE), traces.size, 3)
    ulp = np.abs(ours[: len(few)] - reference) / np.spacing(np.abs(reference))
    print(f"{given.neurons} neurons × {given.frames} frames, window {given.window}, {PERCENTILE}th percentile")
    print(f"{'':28}{'CPU ns / sample':>16}{'ratio to ours':>15}")
    for name, value in (
        ("numpy.percentile per frame", loop_ns),
        ("SciPy 1-D rows (ranks)", rows_ns),
        ("ours", ours_ns),
    ):
        print(f"{name:28}{value:16.1f}{value / ours_ns:14.1f}×")
    print(f"largest difference from numpy.percentile: {ulp.max():.0f} ulp; unequal samples: {int((ulp > 0).sum())}")


if __name__ == "__main__":
    main()
