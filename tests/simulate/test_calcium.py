"""Simulated subjects have the recordings' layout, and truth and traces that belong together."""

import h5py
import numpy as np

from src.recordings.calcium.sources import find_subjects, open_recording, subject_files
from src.simulate.calcium import SimulatedBrain, brain_cells, main, simulate_subject

BRAIN = SimulatedBrain(cells=400, frames=300, planes=5)


def test_a_subject_reads_like_a_recording_and_its_truth_belongs_to_it(tmp_path):
    folder = simulate_subject(tmp_path / "subject_1", BRAIN, seed=3)
    recording = open_recording(subject_files(folder), "subject_1")
    assert recording.fs_hz == BRAIN.fs_hz
    assert recording.frames == BRAIN.frames
    assert recording.counts["listed"] == 400
    assert recording.counts["with_traces"] == 396
    with h5py.File(folder / "true_spikes.h5") as file:
        counts, ids = file["spike_counts"][()], file["cell_ids"][()]
    rows = np.searchsorted(ids, recording.cell_ids)
    traces = recording.traces(np.arange(recording.cells))
    relative = traces / np.median(traces, axis=1, keepdims=True)
    smeared = np.apply_along_axis(lambda c: np.convolve(c, np.exp(-np.arange(12) / 4))[: len(c)], 1, counts[rows])
    active = counts[rows].sum(axis=1) > 20
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(relative[active], smeared[active], strict=True)]
    assert active.sum() > 50
    assert np.median(correlation) > 0.6
    assert (traces > 0).mean() > 0.999


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate_subject(tmp_path / name, BRAIN, seed=seed)
    for file in ("TimeSeries.h5", "data_full.mat", "true_spikes.h5"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()


def test_cells_fill_a_brain_with_two_sides_and_whole_slices():
    xyz = brain_cells(5000, 8, np.random.default_rng(0))
    assert set(np.unique(xyz[:, 2])) <= set(range(1, 9))
    left = (xyz[:, 1] < 510).mean()
    assert 0.45 < left < 0.55
    assert (np.abs(xyz[:, 1] - 510) < 3).mean() < 0.01
    assert len(np.unique(xyz, axis=0)) > 4900


def test_given_positions_are_used(tmp_path):
    xyz = np.column_stack([np.arange(50.0), np.arange(50.0) % 7, np.arange(50.0) % 3])
    folder = simulate_subject(tmp_path / "s", SimulatedBrain(frames=80, unplaced_share=0.0), 0, positions=xyz)
    recording = open_recording(subject_files(folder), "s")
    np.testing.assert_array_equal(recording.positions, xyz[recording.cell_ids - 1])


def test_the_command_writes_subjects_that_are_found(tmp_path, capsys):
    main(["--output_dir", str(tmp_path), "--cells", "60", "--frames", "90"])
    assert [p.name for p in find_subjects(tmp_path)] == ["subject_1", "subject_2"]
    assert capsys.readouterr().out.count("60 cells, 90 frames at 2 Hz") == 2
