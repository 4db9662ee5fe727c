"""LFP spectrograms against three others: CPU seconds, wall time, memory, and whether the numbers are the same.

    python -m benchmarks.lfp_spectrogram --minutes 30                  all in turn, medians of three
    python -m benchmarks.lfp_spectrogram --minutes 30 --dtype int16    traces as the amplifier gives them
    python -m benchmarks.lfp_spectrogram --minutes 180 --memory        ours alone at a quarter, a half and all of it
    python -m benchmarks.lfp_spectrogram --reading --minutes 10        a SpikeGadgets file against its spectrograms

``recipe`` is what the specification describes: ``np.load``, ``scipy.signal.spectrogram`` for one channel after the
other in its default precision, a list, ``np.stack``, ``np.savez_compressed``. ``original`` is the original as it is,
which writes with ``np.savez``. ``plain`` is what a good programmer writes on one screen: a memory map, ``scipy.fft`` on
all frames of a channel at once, ISA-L in zipfile. Ours is what ``preprocess=spectrogram`` runs: reading, computing,
writing, checksums of input and output, flush to the disk, manifest. Every measurement is a process of its own; its
clock starts after the imports. CPU time is user and system time of all threads.
"""

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
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import scipy.fft
import scipy.signal
from isal import isal_zlib
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from src.preprocess.lfp.parameters import SpectrogramParams, plan
from src.recordings.extracellular.arrays import open_array
from src.simulate.lfp import simulate_session
from src.storage.parallel import available_cores

RECIPE = {"nperseg": 1024, "noverlap": 768, "nfft": 2048}
SESSION, SHANK = "bench", "bench_sh0"


def run_recipe(traces: Path, out_dir: Path, save: Any = np.savez_compressed) -> None:
    """The recipe of the specification; with ``np.savez`` the original as it is."""
    arrays = np.load(traces)
    samples, fs = arrays["traces"], int(arrays["sampling_rate"])
    powers = []
    for channel in range(samples.shape[1]):
        freqs, times, power = scipy.signal.spectrogram(
            samples[:, channel], fs=fs, **RECIPE, scaling="density", mode="psd"
        )
        powers.append(power.astype(np.float32))
    save(out_dir / "recipe.npz", spectrograms=np.stack(powers), freqs=freqs, times=times)


def run_plain(traces: Path, out_dir: Path) -> None:
    """The same numbers on one screen: memory map, frames as a view, one transform per channel, ISA-L."""
    with zipfile.ZipFile(traces) as archive, archive.open("traces.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        start = archive.getinfo("traces.npy").header_offset + 30 + len("traces.npy") + member.tell()
        with traces.open("rb") as raw:
            raw.seek(archive.getinfo("traces.npy").header_offset + 28)
            start += int.from_bytes(raw.read(2), "little")
    samples = np.memmap(traces, dtype, "r", start, shape)
    fs = float(np.load(traces)["sampling_rate"])
    window = scipy.signal.get_window(("tukey", 0.25), RECIPE["nperseg"]).astype(np.float32)
    window *= np.float32(np.sqrt(2 / (fs * (window.astype(np.float64) ** 2).sum())))
    hop = RECIPE["nperseg"] - RECIPE["noverlap"]
    zipfile._get_compressor = lambda *_: isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)  # type: ignore[attr-defined]
    with (
        zipfile.ZipFile(out_dir / "recipe.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("spectrograms.npy", "w", force_zip64=True) as target,
    ):
        n_times = (shape[0] - RECIPE["noverlap"]) // hop
        header = {"descr": "<f4", "fortran_order": False, "shape": (shape[1], RECIPE["nfft"] // 2 + 1, n_times)}
        np.lib.format.write_array_header_1_0(target, header)
        for channel in range(shape[1]):
            trace = np.ascontiguousarray(samples[:, channel], np.float32)
            frames = sliding_window_view(trace, RECIPE["nperseg"])[::hop]
            spectrum = scipy.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, RECIPE["nfft"], axis=1)
            power = spectrum.real**2 + spectrum.imag**2
            power[:, [0, -1]] /= 2
            target.write(np.ascontiguousarray(power.T).data.cast("B"))


def run_ours(source: Path, out_dir: Path, preset: str) -> None:
    """``python preprocess.py preprocess=spectrogram preset=…`` without the command line."""
    summary = SpectrogramParams(input_dir=str(source), output_dir=str(out_dir), preset=preset).run()
    if summary.exit_code:
        sys.exit(summary.failures[0].reason)


OTHERS = {
    "recipe": run_recipe,
    "original": lambda traces, out_dir: run_recipe(traces, out_dir, np.savez),
    "plain": run_plain,
}


def measured(what: str, traces: Path, out_dir: Path) -> None:
    """Run one contestant in this process and print what it took, as JSON."""
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    OTHERS[what](traces, out_dir) if what in OTHERS else run_ours(traces, out_dir, what)
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(file.stat().st_size for file in out_dir.rglob("*") if file.suffix in (".npz", ".h5"))
    print(json.dumps({"cpu": cpu, "wall": wall, "peak_mb": after.ru_maxrss / 1024, "file_mb": size / 1e6}))


def measure(what: str, traces: Path, out_dir: Path) -> dict[str, float]:
    """Run a contestant in a fresh process; the files are in the page cache for both."""
    shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.lfp_spectrogram", "--measure", what, str(traces), str(out_dir)]
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


def first_channels(path: Path, channels: int) -> NDArray:
    """``(channel, frequency, time)`` of a file's first channels."""
    with open_array(path, "spectrograms", ()).opener(False)() as read:
        return np.concatenate([read(channel, channel + 1) for channel in range(channels)])


def compare(recipe: Path, ours: Path, channels: int) -> tuple[float, float]:
    """Relative difference of all values of some channels at the 99.9th percentile, and the share above 1e-3."""
    theirs, mine = (first_channels(path, channels) for path in (recipe, ours))
    relative = np.abs(mine - theirs) / np.maximum(theirs, 1e-30)
    return float(np.quantile(relative, 0.999)), float((relative > 1e-3).mean())


def against_double(traces: Path, recipe: Path, ours: Path) -> list[float]:
    """99.9th percentile of the relative error of either against double precision, first channel."""
    samples = np.load(traces)["traces"][:, 0].astype(np.float64)
    truth = scipy.signal.spectrogram(samples, 500.0, **RECIPE)[2]
    return [_error(first_channels(path, 1)[0], truth) for path in (recipe, ours)]


def sleep_error(traces: Path, ours: Path) -> float:
    """Largest difference in dB of the sleep preset from SciPy in double precision, first channel."""
    p = plan(SpectrogramParams(preset="sleep").transform(), 500.0)
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
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in (*OTHERS, "scipy_compat", "sleep")}
    for _ in track(range(repeats), description="rounds", console=console):
        for name, results in rounds.items():
            results.append(measure(name, traces, folder / name))
    ours = folder / "scipy_compat" / SESSION / "sh0" / f"{SHANK}_spectrograms.npz"
    difference, above = compare(folder / "recipe/recipe.npz", ours, min(channels, 4))
    plain, _ = compare(folder / "recipe/recipe.npz", folder / "plain/recipe.npz", min(channels, 4))
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
    for name in ("original", "plain"):
        times = [median[name][k] / median["scipy_compat"][k] for k in ("cpu", "wall")]
        console.print(f"scipy_compat takes {times[0]:.1f} x less CPU and {times[1]:.1f} x less wall time than {name}")
    verdicts = [
        (f"plain equals the recipe: {plain:.1e} relative at the 99.9th percentile", plain < 1e-3),
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
        traces = build(folder / f"part{part}", minutes / part, channels, dtype)
        for preset, seen in peaks.items():
            row = measure(preset, traces, folder / preset)
            seen.append(row["peak_mb"])
            cells = "".join(f"{row[k]:9.1f}" for k in ("cpu", "wall", "peak_mb", "file_mb"))
            console.print(f"{preset:14}{minutes / part:9g}{cells}", highlight=False)
            shutil.rmtree(folder / preset)
    verdicts = [(f"{p}: {max(seen):.0f} MB at most (target 1200)", max(seen) <= 1200) for p, seen in peaks.items()]
    return report(verdicts, console)


def reading(folder: Path, minutes: float, channels: int, console: Console) -> bool:
    """A SpikeGadgets file of the amplifier's rate: what reading it down costs beside its spectrograms."""
    path, n_samples = folder / "bench.rec", int(minutes * 60 * 30_000)
    trodes = "".join(
        f'<SpikeNTrode id="{g + 1}" spikeScalingToUv="0.195">'
        + "".join(f'<SpikeChannel hwChan="{4 * g + c}"/>' for c in range(4))
        + "</SpikeNTrode>"
        for g in range(channels // 4)
    )
    header = (
        f'<Configuration><GlobalConfiguration/><HardwareConfiguration samplingRate="30000" numChannels="{channels}"/>'
        f'<SpikeConfiguration chanPerChip="32" device="intan">{trodes}</SpikeConfiguration></Configuration>\n'
    )
    fields = [("sync", "u1"), ("clock", "<u4"), ("data", "<i2", channels)]
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(header.encode())
        for first in range(0, n_samples, 300_000):
            packets = np.zeros(min(300_000, n_samples - first), np.dtype(fields))
            packets["sync"], packets["clock"] = 0x55, np.arange(first, first + len(packets))
            packets["data"] = rng.integers(-500, 500, packets["data"].shape, np.int16)
            file.write(packets.tobytes())
    both = measure("scipy_compat", path, folder / "both")
    shutil.rmtree(folder / "both" / "bench" / "sh0")
    again = measure_again(path, folder / "both")
    read = both["cpu"] - again["cpu"]
    console.print(f"{minutes:g} min of {channels} channels at 30 kHz, {path.stat().st_size / 1e9:.2f} GB")
    console.print(f"reading to 500 Hz {read:.1f} CPU s, spectrograms of scipy_compat {again['cpu']:.1f} CPU s")
    return report(
        [(f"reading takes {read / again['cpu']:.1f} x the spectrograms (target 2)", read <= 2 * again["cpu"])], console
    )


def measure_again(path: Path, out_dir: Path) -> dict[str, float]:
    """The spectrograms of a recording whose traces are there."""
    command = [sys.executable, "-m", "benchmarks.lfp_spectrogram", "--measure", "scipy_compat", str(path), str(out_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(verdicts: list[tuple[str, bool]], console: Console) -> bool:
    for text, met in verdicts:
        console.print(f"{'[green]met[/]   ' if met else '[red]missed[/]'} {text}", highlight=False, soft_wrap=True)
    return all(met for _, met in verdicts)


def describe(console: Console) -> None:
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    console.print(
        f"{available_cores()} cores, load {load}; Python {platform.python_version()}, "
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
    parser.add_argument("--reading", action="store_true", help="a SpikeGadgets file against its spectrograms")
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
        if options.reading:
            met = reading(Path(folder), options.minutes, options.channels, console)
        elif options.memory:
            met = memory(Path(folder), options.minutes, options.channels, options.dtype, console)
        else:
            met = race(Path(folder), options.minutes, options.channels, options.dtype, options.repeats, console)
    describe(console)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
