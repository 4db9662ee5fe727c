"""Every reader of foreign files with a small file that it accepts, for the tests that spoil such files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edfio
import h5py
import numpy as np
import scipy.io
import torch

from src.models.bundle import load_bundle
from src.preprocess.calcium.grid_store import open_grids
from src.preprocess.cascade.keras_file import read_network
from src.preprocess.cascade.package import CONFIG_FILE, read_config
from src.preprocess.sleep.bandpower_files import read_bandpower_night
from src.preprocess.sleep.epochs import EpochSettings
from src.preprocess.sleep.features import FeatureSettings
from src.preprocess.sleep.label_folders import SLEEP_LABEL_FOLDERS, find_label_folders
from src.preprocess.spikes.trace import load_trace
from src.recordings.calcium.ground_truth import read_neuron
from src.recordings.calcium.sources import open_recording, subject_files
from src.recordings.calcium.suite2p import load_objects, open_suite2p, suite2p_files
from src.recordings.extracellular import reader as extracellular
from src.recordings.extracellular.spike_trains import read_spikes
from src.recordings.matlab import read_fields
from src.recordings.sleep.edf import read_annotations, read_header
from src.recordings.sleep.scoring_files import read_hypnogram
from src.recordings.sleep.stage_names import ScoringOptions
from src.runs.callbacks import read_checkpoint
from src.signals import SourceOptions
from src.simulate.calcium import SimulatedBrain, simulate_subject
from src.storage.manifest import MANIFEST
from src.storage.step import CachedStep, ensure, read_artifact
from tests.faults import more_files as more
from tests.models.test_bundle import ARGS, describe
from tests.nights import read_recording
from tests.preprocess.cascade.cascade_packages import write_package


@dataclass(frozen=True)
class Reader:
    """``make(folder)`` writes a file that is accepted and returns it; ``read(path)`` reads all of it.

    ``head`` is how many of its first bytes hold structure rather than samples.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    head: int = 4096


def make_edf(folder: Path) -> Path:
    samples = np.random.default_rng(0).normal(0, 50, 300)
    signals = [edfio.EdfSignal(samples, 100, label=name, physical_range=(-500, 500)) for name in ("EEG Fpz", "EEG Cz")]
    note = edfio.EdfAnnotation(0.0, 3.0, "Sleep stage W")
    edfio.Edf(signals, data_record_duration=1, annotations=[note]).write(folder / "night.edf")
    return folder / "night.edf"


def read_edf(path: Path) -> None:
    read_header(path)
    read_annotations(path)
    recording = read_recording(path)
    assert recording.samples.shape[0] == len(recording.channels)


def make_scoring(folder: Path) -> Path:
    rows = [f"{30 * i},30,{stage}" for i, stage in enumerate(["W", "N1", "N2", "N3", "REM", "?"] * 4)]
    (folder / "scoring.csv").write_text("onset_s,duration_s,stage\n" + "\n".join(rows) + "\n")
    return folder / "scoring.csv"


def read_text_scoring(path: Path) -> None:
    read_hypnogram(path, ScoringOptions(coding="aasm"))


def traces() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 20, (400, 2)).astype(np.float32)


def make_traces_npz(folder: Path) -> Path:
    np.savez(folder / "s_sh1_lfp_traces.npz", traces=traces(), sampling_rate=500.0, channel_ids=np.arange(2))
    return folder / "s_sh1_lfp_traces.npz"


def make_traces_npy(folder: Path) -> Path:
    np.save(folder / "traces.npy", traces())
    return folder / "traces.npy"


def make_traces_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "traces.h5", "w") as file:
        file["traces"], file["sampling_rate"], file["channel_ids"] = traces(), 500.0, np.arange(2)
    return folder / "traces.h5"


def read_traces(path: Path) -> None:
    opened = extracellular.open_recording(path, SourceOptions(fs_hz=500.0 if path.suffix == ".npy" else None))
    for _ in opened.blocks():
        pass


def make_bandpower(folder: Path) -> Path:
    features = np.random.default_rng(0).normal(size=(4, 3, 10)).astype(np.float32)
    np.savez(folder / "07__1.npz", features=features, labels=np.array([0, 2, 1, 3]), onsets_sec=np.arange(4) * 30.0)
    return folder / "07__1.npz"


def make_trace_mat(folder: Path) -> Path:
    scipy.io.savemat(folder / "D1.mat", {"d": np.sin(np.arange(300.0))[None]})
    return folder / "D1.mat"


def make_spikes_mat(folder: Path) -> Path:
    scipy.io.savemat(folder / "D1.mat", {"Index": np.array([[5, 90, 200]]), "Class": np.array([[1, 2, 1]])})
    return folder / "D1.mat"


def make_struct_mat(folder: Path) -> Path:
    scipy.io.savemat(folder / "cells.mat", {"data": {"xyz": np.ones((5, 3)), "fpsec": 2.0}})
    return folder / "cells.mat"


def make_fish(folder: Path) -> Path:
    simulate_subject(folder / "subject_1", SimulatedBrain(cells=20, frames=60, planes=2), seed=1)
    return folder / "subject_1" / "TimeSeries.h5"


def read_fish(path: Path) -> None:
    recording = open_recording(subject_files(path.parent), "subject_1")
    recording.traces(np.arange(recording.cells))


def make_objects(folder: Path) -> Path:
    stat = np.array([{"med": [10, 2 * k], "npix": k} for k in range(3)], object)
    np.save(folder / "stat.npy", stat, allow_pickle=True)
    return folder / "stat.npy"


def make_suite2p(folder: Path) -> Path:
    np.save(folder / "F.npy", np.random.default_rng(2).normal(size=(4, 30)).astype(np.float32))
    np.save(folder / "iscell.npy", np.ones((4, 2)))
    np.save(folder / "stat.npy", np.array([{"med": [k, 2 * k]} for k in range(4)], object), allow_pickle=True)
    return folder / "F.npy"


def make_iscell(folder: Path) -> Path:
    return make_suite2p(folder).with_name("iscell.npy")


def read_suite2p(path: Path) -> None:
    recording = open_suite2p(suite2p_files([path.parent]), "subject", 2.0, 0.7, need_positions=True)
    recording.traces(np.arange(recording.cells))


def make_trace_npy(folder: Path) -> Path:
    np.save(folder / "trace.npy", np.sin(np.arange(300.0)))
    return folder / "trace.npy"


def make_trace_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "trace.h5", "w") as file:
        file["d"] = np.sin(np.arange(300.0))
    return folder / "trace.h5"


LABEL_SETTINGS = EpochSettings(features=FeatureSettings(window_s=1.0, hop_s=0.5, min_hz=0.0, max_hz=50.0))


def make_label_folder(folder: Path) -> Path:
    (folder / "W").mkdir(exist_ok=True)
    np.save(folder / "W" / "s01_0.npy", np.ones((51, 59, 1), np.float32))
    return folder / "W" / "s01_0.npy"


def read_label_folder(path: Path) -> None:
    files = find_label_folders(path.parents[1], r"s(\d+)")["01"]
    out_dir = path.parents[1] / "out"
    out_dir.mkdir(exist_ok=True)
    SLEEP_LABEL_FOLDERS.run(files, LABEL_SETTINGS.to_params("label_folders"), out_dir, None)


def make_grids(folder: Path) -> Path:
    coords = np.array([[0, 0, 3, 4], [1, 1, 200, 100], [4, 0, 9, 9]], np.int32)
    with h5py.File(folder / "grids.h5", "w") as file:
        file["spike_coords"], file["spike_values"] = coords, np.ones(3, np.uint8)
        file["grid_shape"] = np.array([5, 2, 256, 128])
    return folder / "grids.h5"


def read_grids(path: Path) -> None:
    grids = open_grids(path)
    for _ in grids.batches():
        pass


def make_bundle(folder: Path) -> Path:
    from src.models.bundle import build_network, export_bundle

    torch.manual_seed(0)
    export_bundle(folder / "bundle", describe(), build_network("sleep_epoch_cnn", ARGS).state_dict())
    return folder / "bundle" / "bundle.json"


def read_bundle(path: Path) -> None:
    load_bundle(path.parent).network()


def make_weights(folder: Path) -> Path:
    make_bundle(folder)
    return folder / "bundle" / "model.safetensors"


def _write(inputs: Any, params: Any, out_dir: Path, seed: Any) -> None:
    (out_dir / "a.txt").write_text("a")


def make_manifest(folder: Path) -> Path:
    (folder / "in.txt").write_text("in")
    ensure(CachedStep("write", 1, _write), {"in": folder / "in.txt"}, {}, label="x", target=folder / "out")
    return folder / "out" / MANIFEST


def read_manifest(path: Path) -> None:
    found = read_artifact(path.parent)
    assert found is None or isinstance(found.manifest["outputs"], dict)


def make_config(folder: Path) -> Path:
    return write_package(folder) / CONFIG_FILE


def make_network(folder: Path) -> Path:
    return next(write_package(folder).glob("*.h5"))


def read_package(path: Path) -> None:
    config = read_config(path.parent / CONFIG_FILE)
    read_network(path, config)


READERS = {
    "edf": Reader(make_edf, read_edf, 1024),
    "scoring": Reader(make_scoring, read_hypnogram),
    "traces_npz": Reader(make_traces_npz, read_traces),
    "traces_npy": Reader(make_traces_npy, read_traces, 128),
    "traces_hdf5": Reader(make_traces_hdf5, read_traces),
    "bandpower": Reader(make_bandpower, read_bandpower_night),
    "trace_mat": Reader(make_trace_mat, lambda path: load_trace(path, fs_hz=24_000), 256),
    "trace_npy": Reader(make_trace_npy, lambda path: load_trace(path, fs_hz=24_000), 160),
    "trace_hdf5": Reader(make_trace_hdf5, lambda path: load_trace(path, fs_hz=24_000)),
    "label_folder": Reader(make_label_folder, read_label_folder, 128),
    "spikes_mat": Reader(make_spikes_mat, read_spikes, 512),
    "struct_mat": Reader(make_struct_mat, lambda path: read_fields(path, ("xyz", "fpsec"), "data")),
    "fish": Reader(make_fish, read_fish),
    "objects": Reader(make_objects, load_objects),
    "suite2p_traces": Reader(make_suite2p, read_suite2p, 160),
    "suite2p_cells": Reader(make_iscell, read_suite2p),
    "grids": Reader(make_grids, read_grids),
    "bundle": Reader(make_bundle, read_bundle),
    "weights": Reader(make_weights, read_bundle, 2048),
    "manifest": Reader(make_manifest, read_manifest),
    "text_scoring": Reader(more.make_text_scoring, read_text_scoring),
    "scored_edf": Reader(make_edf, read_hypnogram, 1024),
    "mouse": Reader(more.make_mouse, more.read_mouse),
    "ucddb": Reader(more.make_ucddb, more.read_ucddb, 256),
    "ucddb_stages": Reader(more.make_ucddb_stages, more.read_ucddb),
    "spectrogram_npz": Reader(more.make_spectrogram_npz, more.read_spectrogram),
    "spectrogram_hdf5": Reader(more.make_spectrogram_hdf5, more.read_spectrogram),
    "ground_truth": Reader(more.make_ground_truth, read_neuron, 1024),
    "folds": Reader(more.make_folds, more.read_folds),
    "run_record": Reader(more.make_run_record, more.read_run_record),
    "checkpoint": Reader(more.make_checkpoint, read_checkpoint, 2048),
    "cascade_config": Reader(make_config, read_config),
    "cascade_network": Reader(make_network, read_package),
}
