"""How well recordings of every noise level are sorted, and in how much time: the bank, networks, and baselines.

    python -m benchmarks.spike_sorting [--seeds 1 2] [--hybrids ../shared/data]
        [--networks runs/spike_detector/latest runs/spike_classifier/latest]

The recordings are made here with seeds that no training has seen: look-alikes of D2-D6, or, with --hybrids, real
waveforms in a real background (seeds 1 and 2 on another electrode than the labelled recording, 3 on the same one as
a training set of seed 0 would have). The linear discriminant is given the true onsets and is trained on a recording
of the same level with another seed; its accuracy is over all spikes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.spike_baselines import AFTER, BEFORE, baselines
from src.models.bundle import load_bundle
from src.models.spike_scoring import WEIGHTS, final_score, score
from src.predict.sorter import NetworkSorter
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.sorting import BankSorter
from src.preprocess.spikes.trace import Trace
from src.preprocess.spikes.waveforms import LabelledRecording, cut
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.reports.tables import ResultsTable
from src.simulate.spike_hybrids import hybrid, read_background, read_library
from src.simulate.spikes import FS_HZ, LOOKALIKES, lookalike

LEVELS = ("D2", "D3", "D4", "D5", "D6")
SHOWN = ("precision", "recall", "f1_loose", "f1_strict", "class_accuracy", "class_f1", "recall_close", "weighted")
CHAIN = Conditioning()
SAMPLES = round(57.6 * FS_HZ)


class Recorded(NamedTuple):
    """A recording made with a known truth."""

    name: str
    raw: np.ndarray
    truth: SpikeTrain

    def trace(self) -> Trace:
        centred = (self.raw - np.median(self.raw)).astype(np.float32)
        return Trace(self.name, centred, np.ones(len(centred), bool), FS_HZ, self.name)


def made(name: str, seed: int, shared: Path | None) -> Recorded:
    """A look-alike, or a hybrid of the shared recordings."""
    if shared is None:
        return Recorded(name, *lookalike(name, seed))
    level, number, first = LOOKALIKES[name], list(LOOKALIKES).index(name), name == "D1"
    background = read_background(shared, 0 if first else 1 + (number + seed) % 3, SAMPLES)
    shifted = background if first else np.roll(background, 250_000 * seed)
    library = read_library(shared).half(second=not first)
    return Recorded(name, *hybrid(library, shifted, level.n_spikes, level.ratio, 1000 + seed * 100 + number))


def labelled(shared: Path | None) -> LabelledRecording:
    """D1 of seed 0."""
    recorded = made("D1", 0, shared)
    trace = recorded.trace()
    flat = trace.centred - slow_baseline(trace.centred)
    return LabelledRecording(trace, recorded.truth, flat, CHAIN.linear(trace.centred))


def discriminant(recorded: Recorded, other: Recorded) -> float:
    """Accuracy over all spikes, given their true onsets."""

    def windows(one: Recorded) -> np.ndarray:
        return cut(CHAIN.linear(one.trace().centred), one.truth.index - BEFORE, BEFORE + AFTER)

    model = LinearDiscriminantAnalysis().fit(windows(other), other.truth.unit)
    return float(model.score(windows(recorded), recorded.truth.unit))


def sort_all(
    recorded: Recorded, bank: BankSorter, networks: NetworkSorter | None
) -> Iterator[tuple[str, SpikeTrain, float]]:
    trace = recorded.trace()
    for name, sorter in (("bank", bank), ("networks", networks)):
        if sorter is not None:
            started = time.process_time()
            train = sorter.sort(trace).train
            yield name, train, time.process_time() - started
    bandpassed = CHAIN.linear(trace.centred)
    for name, train in baselines(bank.waveforms, bandpassed, recorded.truth, FS_HZ).items():
        yield name, train, float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs=2, metavar=("DETECTOR", "CLASSIFIER"), help="bundles of both")
    parser.add_argument("--hybrids", type=Path, help="folder of the shared recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    networks = NetworkSorter.from_bundles(*map(load_bundle, given.networks)) if given.networks else None
    started = time.process_time()
    bank = BankSorter.from_labelled(labelled(given.hybrids), CHAIN)
    print(f"waveforms fitted in {time.process_time() - started:.2f} CPU-s")
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in given.seeds:
        for name in LEVELS:
            recorded = made(name, seed, given.hybrids)
            linear = discriminant(recorded, made(name, seed + 50, given.hybrids))
            print(f"{name} seed {seed}: linear discriminant at true onsets {linear:.3f}", flush=True)
            for method, train, seconds in sort_all(recorded, bank, networks):
                truth = (recorded.truth.index, recorded.truth.unit)
                row = score(truth, (train.index, train.unit), len(recorded.raw), fs_hz=FS_HZ, n_units=5).row()
                results.setdefault((name, method), []).append({**row, "cpu_s": seconds})
    report(results, Console(width=150), given.seeds)


def report(results: dict[tuple[str, str], list[dict[str, float]]], console: Console, seeds: list[int]) -> None:
    rows = [
        {"level": level, "method": method}
        | {column: f"{np.mean([r[column] for r in found]):.3f}" for column in (*SHOWN, "cpu_s")}
        for (level, method), found in sorted(results.items(), key=lambda item: item[0][0])
    ]
    console.print(ResultsTable(rows, title=f"means over seeds {seeds}"))
    for method in dict.fromkeys(m for _, m in results):
        scores = [
            final_score({level: results[level, method][k]["weighted"] for level in WEIGHTS}) for k in range(len(seeds))
        ]
        print(f"final score {' '.join(f'{s:.3f}' for s in scores)}  {method}")


if __name__ == "__main__":
    main()
