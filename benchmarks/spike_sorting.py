"""How well recordings of every noise level are sorted, and in how much time: the bank, networks, and baselines.

    python -m benchmarks.spike_sorting [--seeds 1 2] [--hybrids ../shared/data]
        [--networks runs/spike_detector/latest runs/spike_classifier/latest]

The recordings are made here with seeds that no training has seen: look-alikes of D2-D6, or, with --hybrids, real
waveforms in a real background (seeds 1 and 2 on another electrode than the labelled recording, 3 on the same one as
a training set of seed 0 would have). The linear discriminant is given the true onsets and is trained on a recording
of the same level with another seed. The last table has its names and the bank's on the same spikes.
"""

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
from src.models.spikes.scores import WEIGHTS, final_score, match, score
from src.predict.spike_networks import NetworkSorter
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.sorting import BankSorter
from src.preprocess.spikes.trace import Trace
from src.preprocess.spikes.waveforms import LabelledRecording, cut_windows
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.reports.tables import ResultsTable
from src.simulate.spike_hybrids import hybrid, read_background, read_library
from src.simulate.spikes import FS_HZ, LOOKALIKES, lookalike
from src.storage.progress import show

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
    return LabelledRecording(trace, recorded.truth, flat, CHAIN.bandpassed(trace.centred))


def on_same_spikes(recorded: Recorded, other: Recorded, bank: BankSorter, train: SpikeTrain) -> dict[str, float]:
    """Share of right names: of the discriminant for all spikes, and of all ways for those the bank found within 0.4 ms.

    The discriminant is trained on ``other``. At true onsets nothing is subtracted before the bank's filters name.
    """

    def windows(one: Recorded, onsets: np.ndarray) -> np.ndarray:
        return cut_windows(CHAIN.bandpassed(one.trace().centred), onsets, BEFORE, AFTER)

    def filtered(onsets: np.ndarray) -> np.ndarray:
        bandpassed = CHAIN.bandpassed(recorded.trace().centred)
        filters = bank.bank(bank.measure(bandpassed, np.ones(len(bandpassed), bool)))
        white = np.pad(filters.whitening.apply(bandpassed[None]), ((0, 0), (filters.length, filters.length)))
        evidence = filters.evidence(filters.correlate(filters.windows(white, onsets + filters.length)))
        return np.asarray(evidence[:, 0].argmax(axis=1) + 1)

    model = LinearDiscriminantAnalysis().fit(windows(other, other.truth.index), other.truth.unit)
    truth = recorded.truth
    pairs = match(truth.index, train.index, round(0.4 * FS_HZ / 1000), (truth.unit, train.unit))
    true, found = truth.unit[pairs[:, 0]], train.index[pairs[:, 1]]
    names = {
        "bank": train.unit[pairs[:, 1]],
        "discriminant, true onsets": model.predict(windows(recorded, truth.index[pairs[:, 0]])),
        "discriminant, found onsets": model.predict(windows(recorded, found)),
        "bank's filters, true onsets": filtered(truth.index[pairs[:, 0]]),
    }
    everything = float((model.predict(windows(recorded, truth.index)) == truth.unit).mean())
    shares = {who: float((own == true).mean()) for who, own in names.items()}
    return {"discriminant, all spikes": everything, "found": len(pairs) / len(truth), **shares}


def sort_all(
    recorded: Recorded, bank: BankSorter, networks: NetworkSorter | None
) -> Iterator[tuple[str, SpikeTrain, float]]:
    trace = recorded.trace()
    for name, sorter in (("bank", bank), ("networks", networks)):
        if sorter is not None:
            started = time.process_time()
            train = sorter.sort(trace).train
            yield name, train, time.process_time() - started
    bandpassed = CHAIN.bandpassed(trace.centred)
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
    names: dict[str, list[dict[str, float]]] = {}
    for seed in given.seeds:
        for name in LEVELS:
            recorded = made(name, seed, given.hybrids)
            other = made(name, seed + 50, given.hybrids)
            for method, train, seconds in sort_all(recorded, bank, networks):
                truth = (recorded.truth.index, recorded.truth.unit)
                row = score(truth, (train.index, train.unit), len(recorded.raw), fs_hz=FS_HZ, n_units=5).row()
                results.setdefault((name, method), []).append({**row, "cpu_s": seconds})
                if method == "bank":
                    names.setdefault(name, []).append(on_same_spikes(recorded, other, bank, train))
            print(f"{name} seed {seed} is done", flush=True)
    report(results, Console(), given.seeds)
    columns = {
        level: {column: f"{np.mean([r[column] for r in rows]):.3f}" for column in rows[0]}
        for level, rows in names.items()
    }
    table = [{"level": level, **row} for level, row in columns.items()]
    show(Console(), ResultsTable(table, title="right names on the same spikes"))


def report(results: dict[tuple[str, str], list[dict[str, float]]], console: Console, seeds: list[int]) -> None:
    rows = [
        {"level": level, "method": method}
        | {column: f"{np.mean([r[column] for r in found]):.3f}" for column in (*SHOWN, "cpu_s")}
        for (level, method), found in sorted(results.items(), key=lambda item: item[0][0])
    ]
    show(console, ResultsTable(rows, title=f"means over seeds {', '.join(map(str, seeds))}"))
    for method in dict.fromkeys(m for _, m in results):
        scores = [
            final_score({level: results[level, method][k]["weighted"] for level in WEIGHTS}) for k in range(len(seeds))
        ]
        print(f"final score {' '.join(f'{s:.3f}' for s in scores)}  {method}")


if __name__ == "__main__":
    main()
