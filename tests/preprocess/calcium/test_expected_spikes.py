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
from src.preprocess.calcium.expected_spikes import make_expected_spikes, relative_traces
from src.recordings.calcium.recording import open_recording, subject_files
from src.signals import BadInput
from tests.preprocess.calcium.standin import StandInEngine
from tests.recordings.calcium.test_recording import positions, write_fish

pytestmark = pytest.mark.usefixtures("engine")

PARAMS = {
    "subject": "subject_1", "engine": "standin", "model": "standin", "threshold": 1, "align": "upstream", "fs_hz": None,
    "baseline": "auto", "baseline_window_s": 30.0, "baseline_percentile": 8.0, "dff_scale": 1.0,
}  # fmt: skip


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
    dff, stand_in = (traces - base) / base, StandInEngine()
    levels = stand_in.noise_levels(dff)
    with h5py.File(tmp_path / "expected_spikes.h5") as file:
        expected = file["expected_spikes"]
        assert expected.dtype == np.float16
        np.testing.assert_array_equal(expected[()], stand_in.predict(dff, levels).astype(np.float16))
        np.testing.assert_allclose(file["noise_levels"][()], levels, rtol=1e-6)
        np.testing.assert_array_equal(file["cell_ids"][()], recording.cell_ids)
        np.testing.assert_array_equal(file["positions"][()], recording.positions)
        predicted = file["is_predicted"][()]
    assert predicted[32:-32].all()
    assert not predicted[:32].any()
    assert not predicted[-32:].any()
    assert facts["baseline"] == {"mode": "divide", "window_frames": 61}
    assert facts["cells"]["kept"] == recording.cells
    np.testing.assert_array_equal(
        relative_traces(recording, np.array([3, 5]), PARAMS | {"baseline": "divide"}), dff[[3, 5]]
    )


def test_neither_workers_nor_batch_nor_piece_size_shows(tmp_path, monkeypatch):
    folder = fish(tmp_path / "subject_1", noisy(cells=1200, frames=80))
    digests, seen = set(), []
    ways = (
        {},
        {"batch_size": 1},
        {"batch_size": 600},
        {"workers": 2, "batch_size": 512, "report": lambda *a: seen.append(a)},
    )
    for k, resources in enumerate(ways):
        make(folder, tmp_path / str(k), resources)
        digests.add(hashlib.sha256((tmp_path / str(k) / "expected_spikes.h5").read_bytes()).hexdigest())
    assert len(digests) == 1
    assert seen == [(512, 1200), (1024, 1200), (1200, 1200)]


def test_auto_divides_raw_fluorescence_and_subtracts_from_detrended(tmp_path):
    raw = make(fish(tmp_path / "subject_1", noisy()), tmp_path / "a")
    flat = make(fish(tmp_path / "subject_2", noisy(level=0.0)), tmp_path / "b")
    assert raw["baseline"]["mode"] == "divide"
    assert raw["notes"] == []
    assert flat["baseline"]["mode"] == "subtract"
    assert "F0 is zero or negative in 100 %" in flat["notes"][0]


def test_dividing_by_a_baseline_that_touches_zero_is_refused_with_the_cure(tmp_path):
    folder = fish(tmp_path / "subject_1", noisy(level=0.0))
    with pytest.raises(BadInput, match=r"TimeSeries\.h5: F0 is zero or negative in 20 of 20 cells.*baseline=subtract"):
        make(folder, tmp_path / "out", baseline="divide")


def test_a_few_cells_with_a_bad_baseline_are_left_out_and_counted(tmp_path):
    traces = noisy(cells=100)
    traces[7] -= 100
    facts = make(fish(tmp_path / "subject_1", traces), tmp_path / "out", baseline="divide")
    assert facts["cells"]["bad_baseline"] == 1
    assert facts["notes"] == ["1 of 100 cells have F0 ≤ 0 and were left out"]
    with h5py.File(tmp_path / "out" / "expected_spikes.h5") as file:
        assert np.isnan(file["expected_spikes"][7]).all()
        assert file["bad_baseline"][()].nonzero()[0].tolist() == [7]


def test_neurons_without_a_single_sample_stay_silent_and_are_counted(tmp_path):
    traces = noisy()
    traces[3] = np.nan
    facts = make(fish(tmp_path / "subject_1", traces), tmp_path / "out")
    assert facts["cells"]["without_prediction"] == 1
    assert "1 of 20 cells have gaps in every window" in facts["notes"][0]


def test_a_subject_of_nan_is_refused(tmp_path):
    folder = fish(tmp_path / "subject_1", np.full((5, 100), np.nan))
    with pytest.raises(BadInput, match="no cell has a single frame"):
        make(folder, tmp_path / "out", baseline="subtract")


def test_a_recording_shorter_than_the_baselines_window_is_refused(tmp_path):
    folder = fish(tmp_path / "subject_1", noisy(frames=50))
    with pytest.raises(BadInput, match="50 frames are fewer than the baseline's window of 61; give a smaller"):
        make(folder, tmp_path / "out")


def test_modes_and_scale_reach_the_engine(tmp_path):
    folder = fish(tmp_path / "subject_1", noisy(level=0.0))
    recording = open_recording(subject_files(folder), "subject_1")
    rows = np.arange(3)
    plain = relative_traces(recording, rows, PARAMS | {"baseline": "none"})
    np.testing.assert_array_equal(plain, recording.traces(rows))
    subtracted = relative_traces(recording, rows, PARAMS | {"baseline": "subtract", "dff_scale": 0.01})
    base = sliding_percentile(recording.traces(rows), 61, 8)
    np.testing.assert_allclose(subtracted, (recording.traces(rows) - base) * np.float32(0.01), rtol=1e-6)


def test_what_the_engine_refuses_names_the_file(tmp_path, monkeypatch):
    def refuse(self: StandInEngine, levels: np.ndarray) -> list[str]:
        raise BadInput("dF/F", "has a median noise level of 300", "divide by F0")

    monkeypatch.setattr(StandInEngine, "check", refuse)
    with pytest.raises(BadInput, match=r"TimeSeries\.h5: dF/F has a median noise level of 300; divide by F0"):
        make(fish(tmp_path / "subject_1", noisy()), tmp_path / "out")


def killed(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_killed_inside_a_subject_is_said_so(tmp_path, monkeypatch):
    folder = fish(tmp_path / "subject_1", noisy(cells=600, frames=80))
    monkeypatch.setattr(module, "_predict", killed)
    with pytest.raises(BadInput, match=r"TimeSeries\.h5: a worker process was killed \(out of memory\?\); give fewer"):
        make(folder, tmp_path / "out", {"workers": 2, "batch_size": 512})


def test_golden_digest_moves_the_version(tmp_path):
    # Whole numbers, so that no machine's exp or log enters: every step below is exact or one rounding.
    traces = np.random.default_rng(0).integers(200, 300, (30, 200)).astype(np.float32)
    make(fish(tmp_path / "subject_1", traces), tmp_path / "out")
    with h5py.File(tmp_path / "out" / "expected_spikes.h5") as file:
        digest = hashlib.sha256(np.nan_to_num(file["expected_spikes"][()]).tobytes()).hexdigest()
    assert (module.EXPECTED_SPIKES.version, digest[:16]) == (1, "54f666ee0fbd7917")


def test_errors_name_the_file_that_is_wrong(tmp_path):
    traces, member = tmp_path / "subject_1" / "TimeSeries.h5", tmp_path / "models" / "Model_NoiseLevel_2_Ensemble_0.h5"
    member.parent.mkdir()
    member.touch()
    with pytest.raises(BadInput) as caught, module._naming(traces):
        raise BadInput(member, "is not whole", "fetch it again")
    assert str(caught.value).startswith(f"{member}: is not whole")
    with pytest.raises(BadInput) as caught, module._naming(traces):
        raise BadInput("dF/F", "has 40 frames", "leave this recording out")
    assert str(caught.value).startswith(f"{traces}: dF/F has 40 frames")
