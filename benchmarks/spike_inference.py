"""Sorting a recording in one pass against stride-1 windows and against SpikeInterface's peak detection.

    python benchmarks/spike_inference.py [--bundle runs/spike_detector/latest --classifier runs/spike_classifier/latest]

The recording is the embedded look-alike of D2, 57.6 s; a sorting of D6 is timed too. Without bundles the networks are
those of the experiments with fresh weights, which cost the same per sample; then whole sortings are not timed, because
what is found decides their cost. Windows of 120 samples at stride 1 are run on a stretch and extrapolated.
SpikeInterface runs where it is installed (`pip install spikeinterface`); it only finds peaks, so the line beside it is
our detection alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from src.models.bundle import build_network, load_bundle  # noqa: E402
from src.models.spikes.inference import onset_probability  # noqa: E402
from src.predict.sorter import Sorter  # noqa: E402
from src.preprocess.spikes.conditioning import Conditioning  # noqa: E402
from src.preprocess.spikes.prepare import Trace  # noqa: E402
from src.simulate.spikes import FS_HZ, lookalike  # noqa: E402

WINDOW = 120
GOALS = (
    "goals: windows / one pass >= 300 x CPU at a difference <= 1e-5; a whole sorting <= 1.5 s on 2 cores; flat memory"
)


def cost(work: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
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
def by_windows(network: Any, trace: np.ndarray, batch: int = 1024) -> np.ndarray:
    """Probability at the middle of every stride-1 window ``(curve, window)``."""
    windows = np.lib.stride_tricks.sliding_window_view(trace, WINDOW)
    rows = [
        torch.sigmoid(network(torch.from_numpy(windows[i : i + batch].copy())[:, None], 0))[..., WINDOW // 2]
        for i in range(0, len(windows), batch)
    ]
    return torch.cat(rows).numpy().T


def compare_with_windows(network: Any, trace: np.ndarray, stretch: int, repeats: int) -> None:
    cpu, wall, fast = cost(lambda: onset_probability(network, trace, 0), repeats)
    piece = trace[: stretch + WINDOW]
    window_cpu, window_wall, slow = cost(lambda: by_windows(network, piece), 1)
    factor = len(trace) / slow.shape[1]
    read_at = np.arange(slow.shape[1]) + WINDOW // 2 - network.label_offset
    difference = np.abs(fast[:, read_at] - slow).max()
    show(f"one pass over {len(trace):,} samples", cpu, wall)
    ratios = f"{window_cpu * factor / cpu:.0f} x CPU, {window_wall * factor / wall:.0f} x wall"
    show(
        f"windows, extrapolated from {slow.shape[1]:,}",
        window_cpu * factor,
        window_wall * factor,
        f"{ratios}; largest difference {difference:.1e}",
    )
    explain_the_ratio(network, (len(trace), cpu), (slow.shape[1] * WINDOW, window_cpu))


def explain_the_ratio(network: Any, one_pass: tuple[int, float], windows: tuple[int, float]) -> None:
    """What both reach of the processor's arithmetic; windows of 120 samples compute each sample 120 times."""
    trunk = network.trunks[0] if hasattr(network, "trunks") else network.network
    per_sample = sum(p.numel() for p in trunk.parameters() if p.ndim > 1)
    square = torch.randn(2048, 2048)
    product, _, _ = cost(lambda: square @ square, 5)
    rates = [2e-9 * per_sample * samples / cpu for samples, cpu in (one_pass, windows)]
    most = 2e-9 * 2048**3 / product
    print(
        f"{per_sample:,} multiply-adds per sample: one pass {rates[0]:.0f} GFLOP/s, windows {rates[1]:.0f}, "
        f"a large matrix product {most:.0f}; 300 x would take {300 / WINDOW * rates[1]:.0f}"
    )


def compare_with_spikeinterface(network: Any, chain: Conditioning, raw: np.ndarray, repeats: int) -> None:
    if importlib.util.find_spec("spikeinterface") is None:
        print("SpikeInterface is not installed: left out")
        return
    import spikeinterface.core as si
    from spikeinterface.sortingcomponents.peak_detection import detect_peaks

    recording = si.NumpyRecording([chain.linear(raw)[:, None]], sampling_frequency=FS_HZ)
    recording.set_dummy_probe_from_locations(np.zeros((1, 2)))
    levels = np.array([np.median(np.abs(chain.linear(raw))) / 0.6745], np.float32)
    keys = {"peak_sign": "pos", "detect_threshold": 5, "noise_levels": levels, "exclude_sweep_ms": 1.0}

    def peaks() -> Any:
        return detect_peaks(
            recording, method="by_channel", method_kwargs=keys, job_kwargs={"n_jobs": 1, "progress_bar": False}
        )

    cpu, wall, found = cost(peaks, repeats)
    show(f"SpikeInterface by_channel, {len(found):,} peaks", cpu, wall, "threshold crossings, no sorting")


def time_sorting(sorter: Sorter, trace: Trace, repeats: int) -> None:
    def sort(block: int = 1 << 18) -> Any:
        return sorter.sort(trace, sorter.choose(trace, None), block=block)

    seconds = len(trace.centred) / FS_HZ
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cpu, wall, found = cost(sort, repeats)
        what = f"whole sorting of {trace.name}, {threads} thread{'s' * (threads > 1)}"
        show(what, cpu, wall, f"{len(found.train):,} spikes in {seconds:.1f} s")
    torch.set_num_threads(1)
    if trace.name != "D2":
        return
    for block in (1 << 16, 100_003):
        other = sort(block)
        same = np.array_equal(other.train.index, found.train.index) and np.array_equal(
            other.train.unit, found.train.unit
        )
        print(f"blocks of {block:,} samples instead of {1 << 18:,}: {'the same spikes' if same else 'OTHER SPIKES'}")


def memory(bundle: str, classifier: str, copies: int) -> None:
    """In a child process: peak memory of a sorting beyond what the trace itself takes."""
    sorter = Sorter.from_bundles(load_bundle(bundle), load_bundle(classifier))
    torch.set_num_threads(1)
    raw = lookalike("D2", 0)[0]
    short = _trace(raw[: 1 << 18])
    sorter.sort(short, sorter.choose(short, 1.0))  # what is allocated once
    trace = _trace(np.tile(raw, copies))
    choice = sorter.choose(short, 1.0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    found = sorter.sort(trace, choice)
    print(f"{len(trace.centred)} {_status('VmHWM') - before} {len(found.train)}")


def _trace(raw: np.ndarray, name: str = "D2") -> Trace:
    centred = (raw - np.median(raw)).astype(np.float32)
    return Trace(name, centred, np.ones(len(raw), bool), FS_HZ, name)


def _status(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle")
    parser.add_argument("--classifier")
    parser.add_argument("--stretch", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        memory(given.bundle, given.classifier, given.child)
        return
    torch.set_num_threads(1)
    raw = lookalike("D2", 0)[0]
    trace = _trace(raw)
    chain = Conditioning(low_hz=20.0)
    if given.bundle:
        bundle = load_bundle(given.bundle)
        network: Any = bundle.network()
        chain = Conditioning.from_dict(bundle.steps[0]["params"])
    else:
        network = build_network("spike_detector", {"experts": 1, "neurons": 5}).eval()
    cpu, wall, linear = cost(lambda: chain.linear(trace.centred), given.repeats)
    show("band-pass", cpu, wall)
    compare_with_windows(network, linear, given.stretch, given.repeats)
    compare_with_spikeinterface(network, chain, trace.centred, given.repeats)
    if given.bundle and given.classifier:
        sorter = Sorter.from_bundles(bundle, load_bundle(given.classifier))
        time_sorting(sorter, trace, given.repeats)
        time_sorting(sorter, _trace(lookalike("D6", 0)[0], "D6"), given.repeats)
        for copies in (1, 5):
            command = [sys.executable, __file__, "--child", str(copies), "--bundle", given.bundle]
            done = subprocess.run(
                [*command, "--classifier", given.classifier], capture_output=True, text=True, check=True
            )
            samples, extra, _ = done.stdout.split()
            print(f"peak memory beyond a trace of {int(samples):,} samples: {float(extra):.0f} MB")
    print(f"\n{GOALS}")


if __name__ == "__main__":
    main()
