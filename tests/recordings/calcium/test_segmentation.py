"""NWB, CaImAn and EXTRACT: the same traces as their files hold, the accepted cells only."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from src.recordings.calcium.sources import find_subjects, open_recording, subject_files
from src.signals import BadInput


def write_caiman(path: Path, dff: bool = True) -> np.ndarray:
    """Four components of 30 frames at 10 Hz on 5 × 6 pixels; components 0, 1 and 3 are accepted."""
    traces = np.random.default_rng(0).random((4, 30))
    with h5py.File(path, "w") as file:
        estimates = file.create_group("estimates")
        estimates["C"] = traces
        estimates["YrA"] = np.zeros((4, 30))
        estimates["F_dff"] = traces / 2 if dff else b"NoneType"
        estimates["S"], estimates["f"], estimates["b"] = traces, np.ones((1, 30)), np.ones((30, 1))
        estimates["idx_components"] = np.array([0, 1, 3])
        estimates["idx_components_bad"] = np.array([2])
        footprints = estimates.create_group("A")
        footprints["data"], footprints["indices"] = np.ones(4), np.array([0, 6, 12, 29])
        footprints["indptr"], footprints["shape"] = np.arange(5), np.array([30, 4])
        for name in ("SNR_comp", "r_values", "cnn_preds"):
            estimates[name] = np.ones(4)
        for name in ("Cn", "b0"):
            estimates[name] = b"NoneType"
        file["params/data/fr"], file["params/data/dims"] = 10.0, np.array([5, 6])
        file["dims"] = np.array([5, 6])
    return traces / 2


def test_caiman_gives_its_dff(tmp_path):
    dff = write_caiman(tmp_path / "session.hdf5")
    (found,) = find_subjects(tmp_path)
    recording = open_recording(subject_files(found), "session")
    assert (recording.signal, recording.fs_hz, recording.frames) == ("dff", 10.0, 30)
    assert recording.cell_ids.tolist() == [1, 2, 4]
    assert recording.positions[:, :2].tolist() == [[0, 0], [1, 1], [4, 5]]
    np.testing.assert_allclose(recording.traces(np.array([2, 0])), dff[[3, 0]], rtol=1e-6)


def test_caiman_without_dff_says_what_to_call(tmp_path):
    write_caiman(tmp_path / "session.hdf5", dff=False)
    with pytest.raises(BadInput, match="detrend_df_f"):
        open_recording(subject_files(tmp_path / "session.hdf5"), "session")


def test_extract_needs_the_rate(tmp_path):
    traces = np.random.default_rng(0).random((3, 20)).astype(np.float32)
    with h5py.File(tmp_path / "extract.mat", "w") as file:
        file["output/temporal_weights"] = traces
        file["output/spatial_weights"] = np.ones((3, 4, 5))
        file["output/config/preprocess"] = np.array([[1.0]])
        file["output/config/trace_output_option"] = np.array([[110]])
        file["output/config/cellfind_filter_type"] = np.array([[110]])
        file["output/info/version"] = np.array([[49, 46, 49]], np.uint16)
    files = subject_files(tmp_path / "extract.mat")
    with pytest.raises(BadInput, match="give fs_hz="):
        open_recording(files, "extract")
    recording = open_recording(files, "extract", 20.0)
    assert (recording.signal, recording.fs_hz, recording.cells) == ("dff", 20.0, 3)
    np.testing.assert_array_equal(recording.traces(np.arange(3)), traces)


def test_a_file_that_is_none_of_these_is_named(tmp_path):
    (tmp_path / "broken.nwb").write_bytes(b"no HDF5")
    with pytest.raises(BadInput, match=r"broken\.nwb: cannot be read"):
        open_recording(subject_files(tmp_path / "broken.nwb"), "broken")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(BadInput, match="is no NWB, CaImAn"):
        subject_files(tmp_path / "other.h5")


def test_a_plane_is_the_same_from_suite2p_and_from_nwb(shared_data):
    formats = shared_data / "field_formats"
    ours = open_recording(subject_files(formats / "suite2p_plane"), "plane")
    nwb = open_recording(subject_files(formats / "nwb" / "suite2p_plane.nwb"), "plane")
    assert (nwb.cells, nwb.frames, nwb.fs_hz) == (ours.cells, ours.frames, ours.fs_hz) == (20, 2000, 10.0)
    np.testing.assert_array_equal(nwb.cell_ids, ours.cell_ids)
    np.testing.assert_array_equal(nwb.traces(np.arange(20)), ours.traces(np.arange(20)))
    assert np.abs(nwb.positions - ours.positions).max() < 8  # suite2p gives a pixel of the ROI, NWB its pixels
