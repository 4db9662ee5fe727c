"""Traces to expected spikes: the chain itself, what is refused, and what must not show in the result."""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from src.preprocess.calcium import expected_spikes as module
from src.preprocess.calcium.baseline import sliding_percentile
from src.preprocess.calcium.expected_spikes import make_expected_spikes
from src.preprocess.calcium.parameters import CalciumParams, InferenceParams
from src.preprocess.cascade.oasis import OasisEngine
from src.recordings.calcium.sources import open_recording, subject_files
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import write_package
from tests.recordings.calcium.test_recording import positions, write_fish

PARAMS = CalciumParams(engine="oasis", cascade_model="tau1.25s").of(InferenceParams) | {
    "subject": "subject_1",
    "need_positions": True,
}


def make(folder: Path, out: Path, resources: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    return make_expected_spikes(subject_files(folder), PARAMS | changes, out, None, **(resources or {}))


def fish(folder: Path, traces: np.ndarray) -> Path:
    cells = len(traces)
    return write_fish(folder, xyz=positions(cells), response=traces.T)


def noisy(cells: int = 20, frames: int = 150, level: float = 100.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return level + rng.standard_normal((cells, frames)).astype(np.float32)


def test_the_file_holds_what_the_engine_says_of_the_traces(raw, tmp_path):
    facts = make(raw / "subject_1", tmp_path)
    recording = open_recording(subject_files(raw / "subject_1"), "subject_1")
    traces = recording.traces(np.arange(recording.cells))
    base = sliding_percentile(traces, 61, 8)
    dff, engine = (traces - base) / base, OasisEngine("tau1.25s", fs_hz=2.0)
    with h5py.File(tmp_path / "expected_spikes.h5") as file:
        assert file["expected_spikes"].dtype == np.float16
        np.testing.assert_array_equal(file["expected_spikes"][()], engine.predict(dff).astype(np.float16))
        np.testing.assert_allclose(file["noise_levels"][()], engine.noise_levels(dff), rtol=1e-6)
        np.testing.assert_array_equal(file["cell_ids"][()], recording.cell_ids)
        np.testing.assert_array_equal(file["positions"][()], recording.positions)
        assert file["is_predicted"][()].all()
        assert not file["cell_state"][()].any()
    assert facts["baseline"] == {"mode": "divide", "window_frames": 61}
    assert facts["cells"]["used"] == facts["cells"]["kept"] == recording.cells
    # OASIS looks five decay times of 2.5 frames to both sides, the baseline 30 frames.
    assert (facts["frames_before"], facts["frames_after"]) == (43, 43)


@pytest.mark.slow
def test_neither_workers_nor_batch_nor_piece_size_shows(tmp_path):
    folder = fish(tmp_path / "subject_1", noisy(cells=1200, frames=80))
    digests = set()
    ways: tuple = ({}, {"batch_size": 1}, {"batch_size": 600}, {"workers": 2, "batch_size": 512})
    for k, resources in enumerate(ways):
        make(folder, tmp_path / str(k), resources)
        digests.add(hashlib.sha256((tmp_path / str(k) / "expected_spikes.h5").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_auto_divides_raw_fluorescence_and_subtracts_from_detrended(tmp_path):
    raw = make(fish(tmp_path / "subject_1", noisy()), tmp_path / "a")
    flat = make(fish(tmp_path / "subject_2", noisy(level=0.0)), tmp_path / "b")
    assert raw["baseline"]["mode"] == "divide"
    assert not any("baseline=auto" in note for note in raw["notes"])
    assert flat["baseline"]["mode"] == "subtract"
    assert "F0 is zero or negative in 100 %" in flat["notes"][0]


def test_dividing_by_a_baseline_that_is_nowhere_positive_is_refused_with_the_hint(tmp_path):
    folder = fish(tmp_path / "subject_1", noisy(level=0.0))
    with pytest.raises(BadInput, match=r"TimeSeries\.h5: no cell can be used: 20 F0 ≤ 0 .*baseline=subtract"):
        make(folder, tmp_path / "out", baseline="divide")


@pytest.mark.parametrize("baseline", ["auto", "divide"])
def test_bad_cells_are_left_out_counted_and_named_and_change_no_other_cell(tmp_path, baseline):
    traces = noisy(cells=20)
    healthy = make(fish(tmp_path / "subject_1", traces), tmp_path / "healthy", baseline=baseline)
    traces[3], traces[7], traces[9], traces[11] = np.nan, 0, traces[9] - 100, 55
    facts = make(fish(tmp_path / "subject_1", traces), tmp_path / "out", baseline=baseline)
    assert healthy["baseline"]["mode"] == facts["baseline"]["mode"] == "divide"
    assert {k: facts["cells"][k] for k in ("used", "no finite frame", "constant", "F0 ≤ 0")} == {
        "used": 16, "no finite frame": 1, "constant": 2, "F0 ≤ 0": 1,
    }  # fmt: skip
    assert facts["notes"][0] == "4 of 20 cells left out: 1 no finite frame (4); 2 constant (8, 12); 1 F0 ≤ 0 (10)"
    with (
        h5py.File(tmp_path / "out" / "expected_spikes.h5") as file,
        h5py.File(tmp_path / "healthy" / "expected_spikes.h5") as before,
    ):
        bad = np.isin(np.arange(20), [3, 7, 9, 11])
        assert np.isnan(file["expected_spikes"][()][bad]).all()
        np.testing.assert_array_equal(file["expected_spikes"][()][~bad], before["expected_spikes"][()][~bad])
        assert file["cell_state"][()].tolist() == [0] * 3 + [1, 0, 0, 0, 2, 0, 3, 0, 2] + [0] * 8


def test_a_recording_that_noise_explains_is_said_to_be_noise(raw, tmp_path):
    silent = make(fish(tmp_path / "subject_1", noisy()), tmp_path / "silent")
    rates = silent["rate_hz"]
    assert rates["cells"] == pytest.approx(rates["white_noise"], rel=0.15)
    assert "most of these spikes may be noise" in silent["notes"][-1]
    active = make(raw / "subject_1", tmp_path / "active")
    assert active["rate_hz"]["cells"] > 0
    assert ("may be noise" in " ".join(active["notes"])) == (
        active["rate_hz"]["cells"] < 2 * active["rate_hz"]["white_noise"]
    )


def test_a_recording_shorter_than_the_baselines_window_is_refused(tmp_path):
    folder = fish(tmp_path / "subject_1", noisy(frames=50))
    with pytest.raises(BadInput, match=r"50 frames of 20 cells are fewer than .* window of 61 \(30 s at"):
        make(folder, tmp_path / "out")


def test_what_the_engine_refuses_names_the_file(tmp_path):
    folder = fish(tmp_path / "subject_1", 1000 * noisy(level=0.0))
    package = write_package(tmp_path / "models")
    inputs = subject_files(folder) | {module.MODEL: package}
    with pytest.raises(BadInput, match=r"TimeSeries\.h5: dF/F has a median noise level of .*dff_scale"):
        make_expected_spikes(inputs, PARAMS | {"engine": "dense", "baseline": "subtract"}, tmp_path, None)


def killed(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_killed_inside_a_subject_is_said_so(tmp_path, monkeypatch):
    folder = fish(tmp_path / "subject_1", noisy(cells=600, frames=80))
    monkeypatch.setattr(module, "predict_piece", killed)
    with pytest.raises(BadInput, match=r"TimeSeries\.h5: a worker process was killed \(out of memory\?\); give fewer"):
        make(folder, tmp_path / "out", {"workers": 2, "batch_size": 512})


def test_golden_digest_moves_the_version(tmp_path):
    # Whole numbers, so that no machine's exp or log enters: every step below is exact or one rounding.
    traces = np.random.default_rng(0).integers(200, 300, (30, 200)).astype(np.float32)
    make(fish(tmp_path / "subject_1", traces), tmp_path / "out")
    with h5py.File(tmp_path / "out" / "expected_spikes.h5") as file:
        digest = hashlib.sha256(np.nan_to_num(file["expected_spikes"][()]).tobytes()).hexdigest()
    assert (module.EXPECTED_SPIKES.version, digest[:16]) == (4, "034169e17c6c5135")
