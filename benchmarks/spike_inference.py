"""The coursework's detector in one pass against stride-1 windows, and the memory that sorting takes.

    python -m benchmarks.spike_inference [--stretch 20000]

Windows of 120 samples at stride 1 are run on a stretch of the look-alike of D2 and extrapolated to 57.6 s.
"""

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.spike_sorting import CHAIN, labelled, made
from src.models.spikes.networks import SpikeDetector
from src.preprocess.spikes.sorting import BankSorter

WINDOW = 120


def cost(work: Callable[[], Any], repeats: int = 3) -> tuple[float, float, Any]:
    """Least CPU and wall seconds of some runs after one that does not count, and the result."""
    result, rows = work(), []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        rows.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(r[0] for r in rows), min(r[1] for r in rows), result


def show(what: str, cpu: float, wall: float, note: str = "") -> None:
    print(f"{what:40s} {cpu:9.3f} CPU-s {wall:9.3f} s wall   {note}".rstrip(), flush=True)


@torch.no_grad()
def by_windows(network: SpikeDetector, trace: np.ndarray, batch: int = 1024) -> np.ndarray:
    """Probability at the middle of every stride-1 window."""
    windows = np.lib.stride_tricks.sliding_window_view(trace, WINDOW)
    rows = [
        torch.sigmoid(network(torch.from_numpy(windows[i : i + batch].copy())[:, None]))[:, WINDOW // 2]
        for i in range(0, len(windows), batch)
    ]
    return torch.cat(rows).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stretch", type=int, default=20_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    trace = made("D2", 1, None).trace()
    bandpassed, network = CHAIN.bandpassed(trace.centred), SpikeDetector().eval()
    cpu, wall, fast = cost(lambda: network.onset_probability(bandpassed))
    show(f"detector, one pass over {len(bandpassed):,} samples", cpu, wall)
    window_cpu, window_wall, slow = cost(lambda: by_windows(network, bandpassed[: given.stretch + WINDOW]), 1)
    factor = len(bandpassed) / len(slow)
    largest = np.abs(fast[WINDOW // 2 : WINDOW // 2 + len(slow)] - slow).max()
    note = f"{window_cpu * factor / cpu:.0f} x CPU; largest difference {largest:.1e}"
    show(f"windows, extrapolated from {len(slow):,}", window_cpu * factor, window_wall * factor, note)
    sorter = BankSorter.from_labelled(labelled(None), CHAIN)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("D2", "D6"):
        recorded = made(name, 1, None).trace()
        cpu, wall, found = cost(partial(sorter.sort, recorded))
        show(f"bank, {name}", cpu, wall, f"{len(found.train):,} spikes")
    print(
        f"peak memory beyond that before: {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
