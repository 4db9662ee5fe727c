"""What is killed: each verb on something small, and what is promised of its output.

The same command after a kill gives the same results: weights, splits, scores, predictions, files of every step. Logs
are not promised: they may show that there were two attempts. What a user put beside results stays as it is.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from src.models.bundle import build_network, export_bundle, load_bundle
from src.preprocess.sleep.epochs import EpochSettings
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION
from src.preprocess.sleep.prepare import SLEEP_EPOCHS
from src.signals import HUMAN_STAGES, SignalSpec
from src.simulate.sleep import write_night
from src.storage.manifest import MANIFEST, is_ours, listed_files
from src.storage.output import OutputFolder
from src.storage.step import read_artifact
from tests.conftest import REPOSITORY
from tests.models.test_bundle import describe
from tests.preprocess.lfp.lfp_files import random_traces, write_shank
from tests.runs.test_search import SEARCH
from tests.runs.verb import command

CHANNELS = ("EEG Fpz-Cz", "EEG Pz-Oz")
SAVED_AT = 116
"""Bytes of text at the head of a MATLAB file, which state when it was saved."""


@dataclass(frozen=True)
class Scenario:
    """``line(inputs, folder)`` is the command; ``results(folder)`` what has to be there after it, by name."""

    prepare: Callable[[Path], None]
    line: Callable[[Path, Path], list[str]]
    results: Callable[[Path], dict[str, bytes]]


def write_sessions(inputs: Path) -> None:
    for shank in (0, 1):
        write_shank(inputs, "rat1", shank, random_traces(6000, 2, seed=shank), channel_ids=np.arange(2) + 10 * shank)
    write_shank(inputs, "rat2", 0, random_traces(4000, 2, seed=9))


def preprocess_line(inputs: Path, folder: Path) -> list[str]:
    keys = ("preprocess=spectrogram", "preset=sleep", "workers=1", f"input_dir={inputs}", f"output_dir={folder}/out")
    return [str(REPOSITORY / "preprocess.py"), *keys]


def step_results(folder: Path) -> dict[str, bytes]:
    """Every file of every finished step but its manifest, which says when it was made."""
    found = [p.parent for p in folder.glob(f"out/**/{MANIFEST}")]
    assert all(read_artifact(path) is not None for path in found)
    files = [p for path in found for p in path.rglob("*") if p.is_file() and p.name != MANIFEST]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def write_nothing(inputs: Path) -> None:
    """The toy experiment makes its data itself."""


def train_line(inputs: Path, folder: Path) -> list[str]:
    return command(folder, "seed=3", "trainer.max_epochs=6")


def weights(run: Path) -> bytes:
    return b"".join(v.numpy().tobytes() for _, v in sorted(load_file(run / "bundle" / "model.safetensors").items()))


def newest_finished(home: Path, record: str) -> Path:
    """The folder that ``latest`` points to; there are others only where a kill came after the end of everything."""
    for path in (p for p in home.iterdir() if not p.is_symlink()):
        assert json.loads((path / record).read_text())["status"] == "finished"
    return (home / "latest").resolve()


def train_results(folder: Path) -> dict[str, bytes]:
    run = newest_finished(folder / "runs" / "toy", "run.json")
    return {"weights": weights(run)} | {n: (run / n).read_bytes() for n in ("split.json", "results.json")}


def sweep_line(inputs: Path, folder: Path) -> list[str]:
    return command(folder, "-m", "model.lr=0.1,0.3", "seed=1,2")


def sweep_results(folder: Path) -> dict[str, bytes]:
    sweep = newest_finished(folder / "runs" / "sweeps", "sweep.json")
    jobs = sorted(p.parent for p in sweep.glob("*/run.json") if p.parent.name.isdigit())
    tested = [job.name for job in jobs if (job / "results.json").exists()]
    found = {f"{job.name} weights": weights(job) for job in jobs}
    return found | {"sweep.csv": (sweep / "sweep.csv").read_bytes(), "tested": " ".join(tested).encode()}


def search_line(inputs: Path, folder: Path) -> list[str]:
    line = command(folder, "-m", "sweep=toy", "hydra.sweeper.n_trials=4")
    write = folder / "conf" / "sweep" / "toy.yaml"
    write.parent.mkdir(exist_ok=True)
    write.write_text(SEARCH)
    return line


def search_results(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in sweep_results(folder).items() if name == "sweep.csv"}


def write_nights(inputs: Path) -> None:
    for subject in (0, 1):
        write_night(inputs / "nights", subject, 1, seed=1, hours=0.5)
    args = {"n_channels": 2, "n_freqs": 10, "n_frames": 1, "n_classes": 5, "window_epochs": 20, "width": 8, "hidden": 8}
    torch.manual_seed(0)
    settings = EpochSettings.from_params(
        {"channels": list(CHANNELS), "features": {"kind": "bandpower"}, "margin_s": None}
    )
    axes = ("epoch", "channel", "frequency", "time")
    described = describe(
        kind="sleep_sequence",
        network_args=args | {"dropout": 0.1},
        signal=SignalSpec(CHANNELS, 100.0, 30.0, "dB re variance", axes, (20, 2, 10, 1)),
        steps=[
            SLEEP_EPOCHS.describe(settings.to_params("sleep_edf")),
            {"step": NIGHT_VIEW, "version": NIGHT_VIEW_VERSION, "params": {"views": ["absolute", "night"]}},
        ],
        classes=list(HUMAN_STAGES),
    )
    network = build_network("sleep_sequence", described.network_args)
    export_bundle(inputs / "bundle", described, network.state_dict())


def infer_line(inputs: Path, folder: Path) -> list[str]:
    keys = (f"bundle={inputs / 'bundle'}", f"input={inputs / 'nights'}", f"output_dir={folder / 'out'}")
    return [str(REPOSITORY / "infer.py"), *keys]


def infer_again_line(inputs: Path, folder: Path) -> list[str]:
    """Predictions into folders that hold an earlier result and files of a user."""
    output = OutputFolder(folder / "out")
    for name in ("SC4001E0-PSG", "SC4011E0-PSG"):
        with output.folder(name) as part:
            for file in ("hypnogram.csv", "events.tsv", "gone.txt"):
                (part / file).write_text("of the earlier result")
        (folder / "out" / name / "reviewed.csv").write_text("by hand")
    return infer_line(inputs, folder)


def infer_results(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.glob("out/*/*")
        if p.suffix in (".csv", ".edf", ".tsv", ".png", ".txt")
    }


def simulate_line(inputs: Path, folder: Path) -> list[str]:
    keys = ("--subjects", "2", "--hours", "0.2")
    return [str(REPOSITORY / "src" / "simulate" / "sleep.py"), str(folder / "out"), *keys]


def spikes_line(inputs: Path, folder: Path) -> list[str]:
    keys = ("preprocess=spike_lookalikes", "duration_s=2", f"output_dir={folder}/out")
    return [str(REPOSITORY / "preprocess.py"), *keys]


def file_results(folder: Path) -> dict[str, bytes]:
    """Every recording that was written, and that the manifest beside them lists it."""
    files = [p for p in (folder / "out").rglob("*") if p.suffix in (".edf", ".mat")]
    listed = listed_files(folder / "out") or {}
    assert sorted(listed) == sorted(p.relative_to(folder / "out").as_posix() for p in files)
    assert all(is_ours(folder / "out", name, records) for name, records in listed.items())
    return {p.relative_to(folder).as_posix(): p.read_bytes()[SAVED_AT if p.suffix == ".mat" else 0 :] for p in files}


SCENARIOS = {
    "preprocess": Scenario(write_sessions, preprocess_line, step_results),
    "train": Scenario(write_nothing, train_line, train_results),
    "sweep": Scenario(write_nothing, sweep_line, sweep_results),
    "search": Scenario(write_nothing, search_line, search_results),
    "infer": Scenario(write_nights, infer_line, infer_results),
    "infer_again": Scenario(write_nights, infer_again_line, infer_results),
    "simulate": Scenario(write_nothing, simulate_line, file_results),
    "spikes": Scenario(write_nothing, spikes_line, file_results),
}


def assert_whole(folder: Path) -> None:
    """Whatever a killed verb left under a final name is complete."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file() or any(part.startswith(".") for part in path.parts):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".ckpt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".safetensors":
            load_bundle(path.parent)
            load_file(path)
        elif path.suffix == ".png":
            assert path.read_bytes()[-8:-4] == b"IEND"
