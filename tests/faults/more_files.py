"""Readers of the sleep databases, of CASCADE's ground truth and of our own records, each with a file it accepts."""

import json
from pathlib import Path

import numpy as np
import scipy.io
import torch

from src.datamodules.splits import make_split
from src.preprocess.lfp.parameters import SpectrogramParams
from src.preprocess.lfp.spectrogram_file import open_spectrograms
from src.preprocess.sleep.bandpower_files import read_bandpower_mouse
from src.recordings.sleep.databases import ucddb_signal
from src.runs.folder import open_run, read_record, run_key, write_record
from tests.preprocess.cascade.cascade_packages import recorded_trial, write_neuron
from tests.preprocess.lfp.lfp_files import BANDS, random_traces, write_shank

RUN = {"name": "x", "seed": 1}


def make_text_scoring(folder: Path) -> Path:
    (folder / "scoring.txt").write_text("\n".join(["0", "1", "2", "3", "4", "0"]) + "\n")
    return folder / "scoring.txt"


def make_mouse(folder: Path) -> Path:
    rng, epochs = np.random.default_rng(0), np.arange(6)
    linked = np.column_stack([epochs, 10 + epochs, epochs % 3 + 1])
    time = np.column_stack([epochs, np.ones(6)])
    np.savez(folder / "sampleData.npz", bandsD=rng.random((6, 6)), epochsLinked=linked, epochTime=time)
    return folder / "sampleData.npz"


def read_mouse(path: Path) -> None:
    read_bandpower_mouse(path, 1)


def make_ucddb(folder: Path) -> Path:
    (folder / "ucddb042_stage.txt").write_text("0\n2\n0\n")
    scipy.io.savemat(folder / "ucd042_stagewake.mat", {"ucd042_stagewake": np.ones((2, 3840))})
    return folder / "ucd042_stagewake.mat"


def make_ucddb_stages(folder: Path) -> Path:
    return make_ucddb(folder).with_name("ucddb042_stage.txt")


def read_ucddb(path: Path) -> None:
    ucddb_signal([path.with_name("ucd042_stagewake.mat")], path.with_name("ucddb042_stage.txt"))


def make_spectrogram(folder: Path, preset: str) -> Path:
    write_shank(folder / "in", "rat1", 0, random_traces(3000, 1), channel_ids=np.arange(1))
    SpectrogramParams(str(folder / "in"), str(folder / "out"), bands=BANDS, workers=1, preset=preset).run()
    return next((folder / "out").rglob("rat1_sh0_spectrograms.*"))


def make_spectrogram_npz(folder: Path) -> Path:
    return make_spectrogram(folder, "scipy_compat")


def make_spectrogram_hdf5(folder: Path) -> Path:
    return make_spectrogram(folder, "sleep")


def read_spectrogram(path: Path) -> None:
    found = open_spectrograms(path)
    for _ in found.channels(found.places(None)):
        pass


def make_ground_truth(folder: Path) -> Path:
    return write_neuron(folder / "DS01-x-m-V1" / "cell_mini.mat", [recorded_trial(seconds=5, seed=1)])


def make_folds(folder: Path) -> Path:
    (folder / "folds.json").write_text(json.dumps({"folds": [["a", "b"], ["c", "d"], ["e", "f"]]}))
    return folder / "folds.json"


def read_folds(path: Path) -> None:
    make_split(list("abcdef"), method="file", path=str(path), fold=1, val=1, seed=3)


def make_run_record(folder: Path) -> Path:
    run = folder / "x" / "0"
    run.mkdir(parents=True, exist_ok=True)
    record = {"key": run_key(RUN), "status": "failed", "attempts": 1, "config": RUN, "overrides": []}
    return write_record(run / "run.json", record)


def read_run_record(path: Path) -> None:
    before = set(path.parents[1].iterdir())
    read_record(path)
    with open_run(RUN, runs_dir=path.parents[2], name="x") as run:
        assert run.attempt in (0, 1) or run.path == path.parent
    for folder in set(path.parents[1].iterdir()) - before:
        (folder / "run.json").unlink(missing_ok=True)


def make_checkpoint(folder: Path) -> Path:
    torch.save({"state_dict": {"w": torch.ones(4)}, "epoch": 1, "hyper_parameters": {"lr": 0.1}}, folder / "last.ckpt")
    return folder / "last.ckpt"
