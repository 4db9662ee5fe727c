"""Sorters that need no labels on the same recordings: ours, SpikeInterface's own, MountainSort5.

    python -m benchmarks.spike_discovery [--sorters neurolit simple lupin] [--files tetrode] [--seeds 1 2 3]
        [--shared ../shared/data] [--seconds 30]

SpikeInterface's tridesclous2 and spykingcircus2 take `pip install hdbscan`, MountainSort5 `pip install mountainsort5
isosplit6`; what is not installed is left out and said. Every sorter has its defaults, one thread, and 120 CPU seconds;
what it compiles is compiled before, on a recording of 10 s.

Accuracy of a true unit is hits / (hits + misses + false spikes) of the found unit it is paired with, within 0.4 ms
after the lag between the two (an onset is no peak) is taken off. A found unit without a partner of accuracy 0.5 is
false, where the truth knows every unit.
"""

import argparse
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
import scipy.signal
from rich.console import Console
from scipy.optimize import linear_sum_assignment

from src.models.spikes.scores import count_pairs
from src.reports.tables import ResultsTable
from src.storage.progress import show

SORTERS = ("neurolit", "simple", "lupin", "tridesclous2", "spykingcircus2", "mountainsort5")
WITHIN_MS, LARGEST_LAG_MS = 0.4, 1.5
FALSE_BELOW = 0.5
MOST_CPU_S = 120


class Known(NamedTuple):
    """A recording ``(channel, time)`` whose units are known; ``complete`` if all of them are.

    ``others`` are peaks of a background that has neurons of its own: a unit that stands on them is not false.
    """

    name: str
    traces: np.ndarray
    fs_hz: float
    truth: list[np.ndarray]
    complete: bool = True
    others: np.ndarray = np.zeros(0, np.int64)


def generated(name: str, channels: int, units: int, seed: int, seconds: float = 60.0) -> Known:
    """A recording of SpikeInterface's generator."""
    import spikeinterface.full as si

    probe = {"num_columns": 2 if channels > 1 else 1, "xpitch": 25, "ypitch": 25}
    circle = {"contact_shapes": "circle", "contact_shape_params": {"radius": 6}}
    recording, sorting = si.generate_ground_truth_recording(
        durations=[seconds],
        sampling_frequency=30_000.0,
        num_channels=channels,
        num_units=units,
        generate_probe_kwargs=probe | circle,
        generate_unit_locations_kwargs={"margin_um": 5.0, "minimum_z": 5.0, "maximum_z": 45.0},
        seed=seed,
    )
    traces = recording.get_traces().T.astype(np.float32)
    return Known(name, traces, 30_000.0, [sorting.get_unit_spike_train(u) for u in sorting.unit_ids])


def recordings(shared: Path, seeds: list[int], seconds: float) -> Iterator[tuple[str, Callable[[], Known]]]:
    """Names, and what makes each recording."""
    from benchmarks.spike_sorting import made
    from src.simulate.spike_hybrids import read_background
    from src.simulate.spikes import LOOKALIKES

    def bench(name: str, level: str, seed: int, library: Path | None) -> Known:
        recorded = made(level, seed, library)
        n_samples = round(seconds * 25_000)
        train = recorded.truth.between(0, n_samples)
        truth = [train.index[train.unit == u] for u in range(1, 6)]
        others = np.zeros(0, np.int64)
        if library is not None:  # as in `made`
            background = read_background(library, 1 + (list(LOOKALIKES).index(level) + seed) % 3, len(recorded.raw))
            others = peaks(np.roll(background, 250_000 * seed)[:n_samples], 25_000.0, 5)
        return Known(name, recorded.raw[None, :n_samples], 25_000.0, truth, others=others)

    for seed in seeds:
        for name, channels, units in ((f"tetrode {seed}", 4, 6), (f"wire {seed}", 1, 3)):
            yield name, partial(generated, name, channels, units, seed, seconds)
    for kind, library in (("look-alike", None), ("hybrid", shared)):
        for level, seed in product(("D2", "D3", "D4"), seeds if library is None or shared.is_dir() else ()):
            name = f"{kind} {level} {seed}"
            yield name, partial(bench, name, level, seed, library)
    if not shared.is_dir():
        return
    yield "Quiroga Easy1", lambda: quiroga(shared)
    for number, line in ((1, 4), (2, 5), (3, 3)):
        yield f"starling {number}", partial(starling, shared, number, line)
    for seed in seeds:
        yield f"hybrid tetrode {seed}", partial(hybrid_tetrode, shared, seed)
    yield "hc-1 tetrode", lambda: hc1(shared)
    yield "Purkinje cell", lambda: purkinje(shared)


def quiroga(shared: Path) -> Known:
    content = scipy.io.loadmat(shared / "spikes_raw_short" / "C_Easy1_noise015_5sec.mat", squeeze_me=True)
    times, names = content["true_spike_times"].astype(np.int64), content["true_spike_class"]
    traces = content["data"][None].astype(np.float32)
    return Known("Quiroga Easy1", traces, 24_000.0, [times[names == u] for u in np.unique(names)])


def starling(shared: Path, number: int, line: int) -> Known:
    folder = shared / "field_formats" / "starling_wav"
    rate, samples = scipy.io.wavfile.read(folder / f"st11_1_2_A8_{number}.wav")
    times = (folder / "st11_1_2_1_A8_spikes.txt").read_text().strip().split("\n")[line - 1].split()
    truth = np.round((np.array(times, float) + 2000) / 1000 * rate).astype(np.int64)
    return Known(f"starling {number}", samples[None].astype(np.float32), float(rate), [truth], complete=False)


def hc1(shared: Path) -> Known:
    """The windows of a tetrode in CA1 at their times, in noise like theirs; one unit is known from inside the cell."""
    content = scipy.io.loadmat(shared / "spikes_waveforms" / "hc1" / "d533101.mat", squeeze_me=True)
    windows, times = content["ec_spikes"].astype(float), content["ec_st"].astype(np.int64)
    rng = np.random.default_rng(0)
    quiet = windows[:, :8] - np.median(windows[:, :8], axis=(1, 2), keepdims=True)
    spread = 1.4826 * np.median(np.abs(quiet), axis=(1, 2))
    traces = spread[:, None] * rng.standard_normal((4, times.max() + 1_000))
    fade = np.minimum(np.minimum(np.arange(1, 41), np.arange(40, 0, -1)) / 6, 1)
    for spike, at in enumerate(times):
        span = slice(at - 20, at + 20)
        traces[:, span] = traces[:, span] * (1 - fade) + windows[:, :, spike] * fade
    return Known("hc-1 tetrode", traces.astype(np.float32), 10_000.0, [times[content["label"] == 1]], complete=False)


def hybrid_tetrode(shared: Path, seed: int) -> Known:
    """Real waveforms, each with its own size on four channels, in the locust's tetrode; its neurons are not known."""
    from src.simulate.spike_hybrids import BEFORE, read_background, read_library
    from src.simulate.spikes import firing

    n_samples, rng = round(28.7 * 25_000), np.random.default_rng(seed)
    library = read_library(shared)
    noise = np.stack([read_background(shared, channel, n_samples) for channel in range(4)])
    train = firing(1500, n_samples - 500, library.n_units, rng)
    gains = rng.uniform(0.1, 1, (library.n_units, 4))
    gains *= 12 / library.mean_peak() / gains.max(axis=1, keepdims=True)
    for index, unit in zip(train.index.tolist(), train.unit.tolist(), strict=True):
        window = library.windows[rng.choice(np.flatnonzero(library.units == unit))]
        noise[:, max(index - BEFORE, 0) : index - BEFORE + len(window)] += np.outer(gains[unit - 1], window)[
            :, max(BEFORE - index, 0) :
        ]
    truth = [train.index[train.unit == u] for u in range(1, library.n_units + 1)]
    return Known(f"hybrid tetrode {seed}", noise.astype(np.float32), 25_000.0, truth, complete=False)


def purkinje(shared: Path) -> Known:
    """A cell-attached Purkinje cell: its large spikes are those beyond six times the noise."""
    samples = np.fromfile(shared / "spikes_raw_short" / "purkinje_cell_attached.raw", np.float32)
    truth = peaks(samples, 15_000.0, 8)
    return Known("Purkinje cell", samples[None], 15_000.0, [truth], complete=False)


def peaks(samples: np.ndarray, fs_hz: float, sigmas: float) -> np.ndarray:
    """Negative peaks of the band-passed samples beyond so many standard deviations of the noise."""
    sos = scipy.signal.butter(2, (300, 6000), "bandpass", fs=fs_hz, output="sos")
    filtered = scipy.signal.sosfiltfilt(sos, samples)
    height = sigmas * np.median(np.abs(filtered)) / 0.6745
    return scipy.signal.find_peaks(-filtered, height=height, distance=15)[0]


def sort(sorter: str, known: Known, folder: Path) -> list[np.ndarray]:
    """Spike times of every unit that a sorter finds."""
    import spikeinterface.full as si
    from probeinterface import generate_multi_columns_probe, generate_tetrode

    if sorter == "neurolit":
        from src.predict.spike_discovery import discover_groups

        done = discover_groups({0: lambda a, b: known.traces[:, a:b]}, known.traces.shape[1], known.fs_hz)
        train, _ = done.without_noise()
        return [train.index[train.unit == u] for u in np.unique(train.unit)]
    recording = si.NumpyRecording([np.ascontiguousarray(known.traces.T)], known.fs_hz)
    one = generate_multi_columns_probe(num_columns=1, num_contact_per_column=1)
    probe = generate_tetrode() if len(known.traces) == 4 else one
    probe.set_device_channel_indices(np.arange(len(known.traces)))
    recording.set_probe(probe)
    recording = recording.save(folder=folder.with_name("recording"))  # some sorters want it on disk
    if sorter == "mountainsort5":  # takes what is filtered already
        recording = si.bandpass_filter(recording, 300, min(6000, 0.45 * known.fs_hz), dtype="float32")
    sorting = si.run_sorter(sorter, recording, folder=folder, verbose=False, remove_existing_folder=True)
    return [sorting.get_unit_spike_train(u) for u in sorting.unit_ids]


def agreement(truth: np.ndarray, found: np.ndarray, fs_hz: float) -> tuple[float, int]:
    """Accuracy of a found unit as a true one, and hits, at the commonest lag between them."""
    if len(truth) == 0 or len(found) == 0:
        return 0.0, 0
    reach, within = (round(ms * fs_hz / 1000) for ms in (LARGEST_LAG_MS, WITHIN_MS))
    first, last = np.searchsorted(found, truth - reach), np.searchsorted(found, truth + reach, "right")
    lags = np.concatenate([found[a:b] - t for a, b, t in zip(first, last, truth, strict=True)])
    if len(lags) == 0:
        return 0.0, 0
    counts = np.convolve(np.bincount(lags + reach, minlength=2 * reach + 1), np.ones(2 * (within // 2) + 1), "same")
    hits = count_pairs(truth + int(counts.argmax()) - reach, found, within)
    return hits / (len(truth) + len(found) - hits), hits


def nearby(train: np.ndarray, others: np.ndarray, reach: int) -> float:
    """Share of a train's spikes that have one of ``others`` within ``reach`` samples."""
    return float(np.mean(np.searchsorted(others, train + reach) > np.searchsorted(others, train - reach)))


def judged(known: Known, found: list[np.ndarray]) -> dict[str, str]:
    """A row of the table."""
    table = np.array([[agreement(t, f, known.fs_hz)[0] for f in found] for t in known.truth])
    table = table.reshape(len(known.truth), len(found))
    rows, columns = linear_sum_assignment(-table)
    accuracy = np.zeros(len(known.truth))
    accuracy[rows] = table[rows, columns]
    partner = table[rows, columns] >= FALSE_BELOW
    alone = [train for column, train in enumerate(found) if column not in columns[partner]]
    reach = round(LARGEST_LAG_MS * known.fs_hz / 1000)
    false = sum(nearby(train, known.others, reach) < 0.5 for train in alone) if known.complete else None
    return {
        "mean": f"{accuracy.mean():.3f}",
        "found": f"{int((accuracy >= 0.8).sum())}/{len(accuracy)}",
        "false": "" if false is None else str(false),
        "units": " ".join(f"{a:.2f}" for a in accuracy),
    }


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"more than {MOST_CPU_S} CPU s")


def raced(sorter: str, known: Known) -> dict[str, str]:
    """One cell of the race; whatever a sorter fails with, the race goes on."""
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
    try:
        with tempfile.TemporaryDirectory() as folder:
            row = judged(known, sort(sorter, known, Path(folder) / "sorted"))
    except Exception as error:
        row = {"mean": "-", "found": "-", "false": "", "units": f"{type(error).__name__}: {error}"[:50]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {"recording": known.name, "sorter": sorter, **row, "CPU s": f"{time.process_time() - started:.1f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sorters", nargs="+", default=list(SORTERS))
    parser.add_argument("--files", nargs="+", help="beginnings of the names to sort")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of what is generated, and hybrids")
    parser.add_argument("--seconds", type=float, default=57.6, help="length of what is generated")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    import spikeinterface.full as si

    si.set_global_job_kwargs(n_jobs=1, progress_bar=False)
    installed = {"neurolit", *si.installed_sorters()}
    if missing := [s for s in given.sorters if s not in installed]:
        print(f"not installed: {', '.join(missing)}")
    signal.signal(signal.SIGPROF, _too_slow)
    sorters = [s for s in given.sorters if s in installed]
    for sorter in sorters:
        raced(sorter, generated("warm-up", 1, 3, 0, 10.0))
    rows = []
    for name, make in recordings(given.shared, given.seeds, given.seconds):
        if given.files and not name.startswith(tuple(given.files)):
            continue
        known = make()
        for sorter in sorters:
            row = raced(sorter, known)
            print(*row.values(), flush=True)
            rows.append(row)
    show(Console(), ResultsTable(rows, title="sorters without labels"))


if __name__ == "__main__":
    main()
