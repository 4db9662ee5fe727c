"""LFP spectrograms against the original's recipe: CPU seconds, wall time, memory, and whether the numbers are the same.

    python benchmarks/lfp_spectrogram.py --minutes 30                  both in turn, medians of three
    python benchmarks/lfp_spectrogram.py --minutes 30 --dtype int16    traces as the amplifier gives them
    python benchmarks/lfp_spectrogram.py --minutes 180 --memory        ours alone at a quarter, a half and all of it

The recipe: ``np.load``, ``scipy.signal.spectrogram`` for one channel after the other in its default precision, a list,
``np.stack``, ``np.savez_compressed``. Ours is what ``preprocess=spectrogram`` runs: reading, computing, writing,
checksums of input and output, flush to the disk, manifest. Every measurement is a process of its own; its clock
starts after the imports. CPU time is user and system time of all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import scipy.signal
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from src.preprocess.lfp.parameters import plan, resolve
from src.preprocess.lfp.spectrograms import spectrograms
from src.recordings.extracellular.npy_stream import open_npz_member
from src.simulate.lfp import simulate_session

RECIPE = {"nperseg": 1024, "noverlap": 768, "nfft": 2048}
SESSION, SHANK = "bench", "bench_sh0"
BANDS = {"delta": [0.5, 4], "theta": [5, 10], "sigma": [10, 16], "beta": [16, 30], "gamma": [40, 100]}


def run_recipe(traces: Path, out_dir: Path) -> None:
    """The original's recipe."""
    arrays = np.load(traces)
    samples, fs = arrays["traces"], int(arrays["sampling_rate"])
    powers = []
    for channel in range(samples.shape[1]):
        freqs, times, power = scipy.signal.spectrogram(
            samples[:, channel], fs=fs, **RECIPE, scaling="density", mode="psd"
        )
        powers.append(power.astype(np.float32))
    np.savez_compressed(out_dir / "recipe.npz", spectrograms=np.stack(powers), freqs=freqs, times=times)


def run_ours(traces: Path, out_dir: Path, preset: str) -> None:
    """``python preprocess.py preprocess=spectrogram preset=…`` without the command line."""
    summary = spectrograms(input_dir=str(traces), output_dir=str(out_dir), preset=preset, bands=BANDS)
    if summary.exit_code:
        sys.exit(summary.failures[0].reason)


def measured(what: str, traces: Path, out_dir: Path) -> None:
    """Run one contestant in this process and print what it took, as JSON."""
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run_recipe(traces, out_dir) if what == "recipe" else run_ours(traces, out_dir, what)
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(file.stat().st_size for file in out_dir.rglob("*") if file.suffix in (".npz", ".h5"))
    print(json.dumps({"cpu": cpu, "wall": wall, "peak_mb": after.ru_maxrss / 1024, "file_mb": size / 1e6}))


def measure(what: str, traces: Path, out_dir: Path) -> dict[str, float]:
    """Run a contestant in a fresh process; the files are in the page cache for both."""
    shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.mkdir(parents=True)
    command = [sys.executable, __file__, "--measure", what, str(traces), str(out_dir)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def build(folder: Path, minutes: float, channels: int, dtype: str) -> Path:
    """One shank of a simulated rat, 500 Hz, uncompressed npz, as the original's extraction writes it (float32)."""
    made = simulate_session(
        folder, name=SESSION, minutes=minutes, shanks=(0,), n_channels=channels, seed=1, dtype=dtype
    )
    return made.folder / "low_freq" / f"{SHANK}_lfp_traces.npz"


def compare(recipe: Path, ours: Path, channels: int) -> tuple[float, float]:
    """Relative difference of all values of some channels at the 99.9th percentile, and the share above 1e-3."""
    streams = [open_npz_member(path, "spectrograms") for path in (recipe, ours)]
    if streams[0].shape != streams[1].shape:
        sys.exit(f"shapes differ: {[stream.shape for stream in streams]}")
    _, rows, times = streams[0].shape
    counts, edges = np.zeros(400, dtype=np.int64), np.concatenate([[0], np.geomspace(1e-12, 1e3, 400)])
    left = channels * rows
    for theirs, mine in zip(*(stream.chunks(rows * times) for stream in streams), strict=True):
        counts += np.histogram(np.abs(mine - theirs) / np.maximum(theirs, 1e-30), edges)[0]
        left -= rows
        if left <= 0:
            break
    reached = np.searchsorted(np.cumsum(counts), 0.999 * counts.sum())
    return float(edges[reached + 1]), float(counts[edges[1:] > 1e-3].sum() / counts.sum())


def against_double(traces: Path, recipe: Path, ours: Path) -> list[float]:
    """99.9th percentile of the relative error of either against double precision, first channel."""
    samples = np.load(traces)["traces"][:, 0].astype(np.float64)
    truth = scipy.signal.spectrogram(samples, 500.0, **RECIPE)[2]
    return [
        _error(next(open_npz_member(p, "spectrograms").chunks(truth.size)).reshape(truth.shape), truth)
        for p in (recipe, ours)
    ]


def sleep_error(traces: Path, ours: Path) -> float:
    """Largest difference in dB of the sleep preset from SciPy in double precision, first channel."""
    p = plan(resolve("sleep", {}, BANDS), 500.0)
    samples = np.load(traces)["traces"][:, 0].astype(np.float64)
    keys = {"window": p.window, "nperseg": p.nperseg, "noverlap": p.noverlap, "nfft": p.nfft}
    with h5py.File(ours) as file:
        mine = file["spectrograms"][0].T.astype(np.float64)
    truth = scipy.signal.spectrogram(samples, 500.0, **keys)[2][: len(mine)]
    return float(np.abs(mine - 10 * np.log10(truth)).max())


def _error(values: NDArray, truth: NDArray) -> float:
    return float(np.quantile(np.abs(values - truth) / np.maximum(truth, 1e-30), 0.999))


def race(folder: Path, minutes: float, channels: int, dtype: str, repeats: int, console: Console) -> bool:
    """Recipe and both presets in turn; returns whether every target is met."""
    traces = build(folder, minutes, channels, dtype)
    rounds: dict[str, list[dict[str, float]]] = {"recipe": [], "scipy_compat": [], "sleep": []}
    for _ in track(range(repeats), description="rounds", console=console):
        for name, results in rounds.items():
            results.append(measure(name, traces, folder / name))
    ours = folder / "scipy_compat" / SESSION / "sh0" / f"{SHANK}_spectrograms.npz"
    difference, above = compare(folder / "recipe/recipe.npz", ours, min(channels, 8))
    theirs_64, ours_64 = against_double(traces, folder / "recipe/recipe.npz", ours)
    decibels = sleep_error(traces, folder / "sleep" / SESSION / "sh0_sleep" / f"{SHANK}_spectrograms.h5")
    table = Table(
        title=f"{channels} channels x 500 Hz x {minutes:g} min, {dtype}, medians of {repeats}", title_justify="left"
    )
    for column in ("", "CPU s", "wall s", "peak MB", "file MB", "CPU ratio", "wall ratio"):
        table.add_column(column, justify="left" if not column else "right")
    median = {
        name: {k: statistics.median(r[k] for r in results) for k in results[0]} for name, results in rounds.items()
    }
    ratios = {}
    for name, row in median.items():
        ratios[name] = [
            statistics.median(theirs[k] / mine[k] for theirs, mine in zip(rounds["recipe"], rounds[name], strict=True))
            for k in ("cpu", "wall")
        ]
        cells = (f"{row['cpu']:.1f}", f"{row['wall']:.1f}", f"{row['peak_mb']:.0f}", f"{row['file_mb']:.0f}")
        table.add_row(name, *cells, *(f"{r:.1f}" for r in ratios[name]))
    console.print(table)
    verdicts = [
        (f"scipy_compat equals the recipe: {difference:.1e} relative at the 99.9th percentile", difference < 1e-3),
        (f"{above:.1e} of its values differ by more than a thousandth", above < 1e-3),
        (f"error against double precision: ours {ours_64:.1e}, recipe {theirs_64:.1e}", ours_64 < 1e-3),
        (f"sleep differs from SciPy by at most {decibels:.3f} dB (half precision)", decibels < 0.1),
        (f"scipy_compat: {ratios['scipy_compat'][0]:.1f} x less CPU (target 8)", ratios["scipy_compat"][0] >= 8),
        (f"scipy_compat: {ratios['scipy_compat'][1]:.1f} x less wall time (target 8)", ratios["scipy_compat"][1] >= 8),
        (f"sleep: {ratios['sleep'][0]:.1f} x less CPU (target 20)", ratios["sleep"][0] >= 20),
        (f"sleep: {ratios['sleep'][1]:.1f} x less wall time (target 20)", ratios["sleep"][1] >= 20),
    ]
    return report(verdicts, console)


def memory(folder: Path, minutes: float, channels: int, dtype: str, console: Console) -> bool:
    """Peak memory of both presets at a quarter, a half and the whole length."""
    console.print(f"ours alone, {channels} channels x 500 Hz, {dtype}\n")
    console.print(f"{'preset':14}{'minutes':>9}{'CPU s':>9}{'wall s':>9}{'peak MB':>9}{'file MB':>9}")
    peaks: dict[str, list[float]] = {"scipy_compat": [], "sleep": []}
    for part in (4, 2, 1):
        traces = build(folder, minutes / part, channels, dtype)
        for preset, seen in peaks.items():
            row = measure(preset, traces, folder / preset)
            seen.append(row["peak_mb"])
            cells = "".join(f"{row[k]:9.1f}" for k in ("cpu", "wall", "peak_mb", "file_mb"))
            console.print(f"{preset:14}{minutes / part:9g}{cells}", highlight=False)
            shutil.rmtree(folder / preset)
    verdicts = [(f"{p}: {max(seen):.0f} MB at most (target 1200)", max(seen) <= 1200) for p, seen in peaks.items()]
    return report(verdicts, console)


def report(verdicts: list[tuple[str, bool]], console: Console) -> bool:
    for text, met in verdicts:
        console.print(f"{'[green]met[/]   ' if met else '[red]missed[/]'} {text}", highlight=False, soft_wrap=True)
    return all(met for _, met in verdicts)


def describe(console: Console) -> None:
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    console.print(
        f"{len(os.sched_getaffinity(0))} cores, load {load}; Python {platform.python_version()}, "
        f"numpy {np.__version__}, scipy {scipy.__version__}",
        highlight=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "int16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="ours alone, at three lengths")
    parser.add_argument("--folder", type=Path, help="where the files are made and removed; the system's temporary one")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    if options.measure:
        what, traces, out_dir = options.measure
        measured(what, Path(traces), Path(out_dir))
        return
    console = Console()
    describe(console)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.memory:
            met = memory(Path(folder), options.minutes, options.channels, options.dtype, console)
        else:
            met = race(Path(folder), options.minutes, options.channels, options.dtype, options.repeats, console)
    describe(console)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
