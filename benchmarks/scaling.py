"""What each step and model costs per hour of recording, and from it what a large study needs.

    python -m benchmarks.scaling [--only sleep] [--json costs.json]

Every row runs in a process of its own on one thread, on recordings made here. CPU seconds, not wall time: a busy
machine gives the same. Imports are not counted: they are paid once per process. docs/scaling.md has the sums.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src import schema

CONF = Path(__file__).resolve().parents[1] / "conf"


@dataclass
class Cost:
    """``cpu_s`` per ``unit`` of work, bytes on disk per unit, and the peak memory of the process."""

    row: str
    unit: str
    cpu_s: float
    disk_mb: float
    peak_gb: float


def settings(primary: str, *overrides: str) -> Any:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(primary, list(overrides))


def preprocess(folder: Path, *overrides: str) -> tuple[float, float]:
    """CPU seconds of a step, and the megabytes it leaves in ``folder/out``."""
    params: Any = OmegaConf.to_object(settings("preprocess", *overrides, f"output_dir={folder / 'out'}", "workers=1"))
    started = time.process_time()
    summary = params.run()
    spent = time.process_time() - started
    assert summary.exit_code == 0, summary.failures
    return spent, megabytes(folder / "out")


def megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def sleep_epochs(folder: Path) -> tuple[str, float, float]:
    """A night of two channels at 100 Hz to the epoch spectrograms that the networks read."""
    from src.preprocess.sleep.epochs import EpochSettings
    from src.preprocess.sleep.prepare import prepare_nights
    from src.simulate.sleep import write_night

    hours = 8.0
    write_night(folder / "raw", 0, 1, seed=1, hours=hours)
    wanted: Any = OmegaConf.to_container(settings("train", "experiment=sleep_cnn").datamodule.epochs, resolve=True)
    started = time.process_time()
    source = {"kind": "sleep_edf", "root": str(folder / "raw")}
    _, summary = prepare_nights(source, EpochSettings.from_params(wanted), cache=folder / "out", workers=1)
    assert summary.exit_code == 0
    return "recording-hour", (time.process_time() - started) / hours, megabytes(folder / "out") / hours


def lfp_spectrogram(folder: Path) -> tuple[str, float, float]:
    """LFP at 500 Hz to spectrograms and band powers, preset sleep."""
    hours, channels, fs_hz = 0.5, 8, 500
    samples = np.random.default_rng(0).normal(0, 50, (int(hours * 3600 * fs_hz), channels)).astype(np.float32)
    place = folder / "raw" / "rat1" / "rat1_sh0_lfp_traces.npz"
    place.parent.mkdir(parents=True)
    np.savez(place, traces=samples, sampling_rate=float(fs_hz), channel_ids=np.arange(channels))
    spent, disk = preprocess(folder, "preprocess=spectrogram", "preset=sleep", f"input_dir={folder / 'raw'}")
    return "channel-hour", spent / hours / channels, disk / hours / channels


def calcium(folder: Path, kind: str) -> tuple[str, float, float]:
    """Traces of 10 000 cells at 2 Hz to spikes to grids with the embedded package."""
    from src.simulate.calcium import SimulatedBrain, simulate_subject

    cells, minutes = 10_000, 10
    simulate_subject(folder / "raw" / "subject_1", SimulatedBrain(cells=cells, frames=minutes * 120), seed=1)
    keys = ("cascade_model=embedded", f"input_dir={folder / 'raw'}", f"cache_dir={folder / 'out'}", "num_neurons=0")
    spent, disk = preprocess(folder, f"preprocess={kind}", *keys)
    share = 100_000 / cells * 60 / minutes
    return "fish-hour of 100 000 cells", spent * share, disk * share


def conditioning(folder: Path) -> tuple[str, float, float]:
    """One extracellular channel at 25 kHz through filters and wavelet denoising."""
    from src.recordings.extracellular.spike_trains import write_mat
    from src.simulate.spikes import simulate

    seconds = 120.0
    trace, _ = simulate(int(45 * seconds), 10.0, 0, duration_s=seconds)
    write_mat(folder / "raw" / "D2.mat", None, trace)
    keys = ("figures=false", "conditioning.wavelet=sym4", f"input_dir={folder / 'raw'}")
    spent, disk = preprocess(folder, "preprocess=spike_conditioning", *keys)
    return "channel-hour", spent * 3600 / seconds, disk * 3600 / seconds


def sleep_training(folder: Path, experiment: str, *switches: str) -> tuple[str, float, float]:
    """One pass of training over an hour of two channels, at the experiment's own size, compiled before."""
    from src.runs.assemble import assemble

    cohort = ("source.subjects=5", "source.hours=4.0", "workers=1", f"cache_dir={folder / 'cache'}")
    cfg = settings("train", f"experiment={experiment}", "logger=csv", *cohort, *switches)
    datamodule, model = assemble(cfg)
    if cfg.compile:
        model.network.compile()
        fit(cfg, datamodule, model, folder, max_epochs=1, limit_val_batches=0)
    nights = sum(part == "train" for part in datamodule.split.to_dict()["parts"].values())
    hours = 4.0 * nights * cfg.source.get("nights", 1)
    spent = fit(cfg, datamodule, model, folder, max_epochs=2, limit_val_batches=0)
    return "recording-hour and pass", spent / 2 / hours, 0.0


def spike_training(folder: Path) -> tuple[str, float, float]:
    """1000 steps of the spike detector on synthetic traces."""
    from src.runs.assemble import assemble

    steps = 40
    cfg = settings(
        "train",
        "experiment=spike_detector",
        "logger=csv",
        f"cache_dir={folder / 'cache'}",
        f"datamodule.examples.batches={steps}",
    )
    datamodule, model = assemble(cfg)
    return "1000 steps", fit(cfg, datamodule, model, folder, max_epochs=1, limit_val_batches=0) * 1000 / steps, 0.0


def fit(cfg: Any, datamodule: Any, model: Any, folder: Path, **limits: Any) -> float:
    import torch

    torch.set_num_threads(1)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = instantiate(cfg.trainer, _partial_=True)(**quiet | limits, default_root_dir=str(folder))
    started = time.process_time()
    trainer.fit(model, datamodule)
    return time.process_time() - started


def sleep_inference(folder: Path, experiment: str) -> tuple[str, float, float]:
    """A night's epochs through the network: what infer.py does after it has read the recording."""
    import torch

    from src.runs.assemble import assemble

    cohort = ("source.subjects=5", "source.hours=4.0", "workers=1", f"cache_dir={folder / 'cache'}")
    cfg = settings("train", f"experiment={experiment}", "logger=csv", *cohort)
    datamodule, model = assemble(cfg)
    torch.set_num_threads(1)
    network = model.network.eval()
    batches = [batch[0] for batch in datamodule.val_dataloader()]
    nights = sum(part == "val" for part in datamodule.split.to_dict()["parts"].values())
    with torch.inference_mode():
        started = time.process_time()
        for batch in batches:
            network(batch.float())
    return "recording-hour", (time.process_time() - started) / (4.0 * nights * cfg.source.get("nights", 1)), 0.0


ROWS: dict[str, Callable[[Path], tuple[str, float, float]]] = {
    "sleep: EDF to epoch spectrograms": sleep_epochs,
    "sleep: LFP spectrogram": lfp_spectrogram,
    "sleep: train sleep_cnn": lambda folder: sleep_training(folder, "sleep_cnn"),
    "sleep: train sleep_cnn, bf16": lambda folder: sleep_training(folder, "sleep_cnn", "+trainer.precision=bf16-mixed"),
    "sleep: train sleep_cnn, compiled": lambda folder: sleep_training(folder, "sleep_cnn", "compile=true"),
    "sleep: train sleep_context": lambda folder: sleep_training(folder, "sleep_context"),
    "sleep: infer sleep_cnn": lambda folder: sleep_inference(folder, "sleep_cnn"),
    "calcium: traces to sparse grids": lambda folder: calcium(folder, "cascade_coo"),
    "calcium: traces to dense grids": lambda folder: calcium(folder, "cascade_grid"),
    "spikes: conditioning": conditioning,
    "spikes: train spike_detector": spike_training,
}


def measure(row: str) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        unit, cpu_s, disk_mb = ROWS[row](Path(folder))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return Cost(row, unit, round(cpu_s, 3), round(disk_mb, 2), round(peak_gb, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(json.dumps(asdict(measure(given.row))))
        return
    costs = []
    print("| step or model | per | CPU s | MB on disk | peak GB |\n|---|---|--:|--:|--:|", flush=True)
    for row in (name for name in ROWS if given.only in name):
        line = [sys.executable, "-m", "benchmarks.scaling", "--row", row]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            print(f"| {row} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
            continue
        costs.append(cost := json.loads(done.stdout.splitlines()[-1]))
        print("| {row} | {unit} | {cpu_s:.3g} | {disk_mb:.3g} | {peak_gb:.2g} |".format(**cost), flush=True)
    if given.json:
        given.json.write_text(json.dumps(costs, indent=2) + "\n")


if __name__ == "__main__":
    main()
