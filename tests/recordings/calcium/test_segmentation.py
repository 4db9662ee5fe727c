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


def write_nwb(
    path: Path, planes: dict[str, np.ndarray], neuropil: dict[str, np.ndarray], holder: str = "Fluorescence", **stated
) -> None:
    """Series ``(time, ROI)`` by name in ``holder`` and ``Neuropil``; the last ROI of each is not accepted.

    ``stated`` is what the series say of themselves, beside or instead of 5 Hz and lumens.
    """
    from datetime import UTC, datetime

    import pynwb
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

    file = pynwb.NWBFile(session_description="d", identifier="id", session_start_time=datetime(2020, 1, 1, tzinfo=UTC))
    channel = OpticalChannel(name="o", description="o", emission_lambda=500.0)
    plane = file.create_imaging_plane(
        name="plane", optical_channel=channel, description="d", device=file.create_device(name="d"),
        excitation_lambda=500.0, imaging_rate=5.0, indicator="i", location="l",
    )  # fmt: skip
    module, segmentation = file.create_processing_module(name="ophys", description="d"), ImageSegmentation()
    module.add(segmentation)
    regions = {}
    for name, traces in planes.items():
        table = segmentation.create_plane_segmentation(description="d", imaging_plane=plane, name=f"rois {name}")
        table.add_column(name="iscell", description="accepted, probability")
        for k in range(traces.shape[1]):
            table.add_roi(pixel_mask=[(k, 2 * k, 1.0)], iscell=[float(k < traces.shape[1] - 1), 0.5])
        regions[name] = table.create_roi_table_region(description="d", region=list(range(traces.shape[1])))
    stated = {"unit": "lumens"} | ({} if "timestamps" in stated else {"rate": 5.0}) | stated
    for name, arrays in ((holder, planes), ("Neuropil", neuropil)):
        box = Fluorescence(name=name)
        if arrays:
            module.add(box)
        for plane_name, traces in arrays.items():
            box.add_roi_response_series(
                RoiResponseSeries(name=plane_name, data=traces, rois=regions[plane_name], **stated)
            )
    with pynwb.NWBHDF5IO(str(path), "w") as handle:
        handle.write(file)


@pytest.mark.filterwarnings("ignore:The linked table")
def test_planes_of_an_nwb_file_are_one_recording_and_other_series_are_not(tmp_path):
    rng = np.random.default_rng(0)
    planes = {name: rng.random((9 + k, 3 + k)).astype(np.float32) for k, name in enumerate(("plane0", "plane1"))}
    neuropil = {name: rng.random(traces.shape).astype(np.float32) for name, traces in planes.items()}
    write_nwb(tmp_path / "two.nwb", planes, neuropil)
    recording = open_recording(subject_files(tmp_path / "two.nwb"), "two")
    assert (recording.cells, recording.frames, recording.fs_hz) == (5, 9, 5.0)
    assert recording.cell_ids.tolist() == [1, 2, 4, 5, 6]
    assert recording.positions.tolist() == [[0, 0, 0], [1, 2, 0], [0, 0, 1], [1, 2, 1], [2, 4, 1]]
    expected = [(planes[n] - np.float32(0.7) * neuropil[n])[:9, :-1].T for n in planes]
    np.testing.assert_allclose(recording.traces(np.arange(5)), np.concatenate(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(recording.traces(np.array([4, 0])), recording.traces(np.arange(5))[[4, 0]])
    assert "0.7 of the neuropil" in recording.notes[0]
    write_nwb(tmp_path / "other.nwb", {"red": planes["plane0"], "green": planes["plane0"]}, {})
    with pytest.raises(BadInput, match=r"several series of traces \(.*green.*\)"):
        open_recording(subject_files(tmp_path / "other.nwb"), "other")


def test_an_nwb_series_is_read_in_the_unit_that_it_states(tmp_path):
    traces, neuropil = np.arange(30.0).reshape(10, 3), np.ones((10, 3))
    write_nwb(tmp_path / "percent.nwb", {"a": 100 * traces}, {}, "DfOverF", unit="percent")
    found = open_recording(subject_files(tmp_path / "percent.nwb"), "percent")
    np.testing.assert_allclose(found.traces(np.arange(2)), traces.T[:2], rtol=1e-6)
    assert (found.signal, found.notes) == ("dff", ("a: its unit is percent, so it was divided by 100",))
    write_nwb(tmp_path / "scaled.nwb", {"a": traces}, {"a": neuropil}, conversion=2.0, offset=5.0)
    scaled = open_recording(subject_files(tmp_path / "scaled.nwb"), "scaled", neuropil=0.5)
    np.testing.assert_allclose(scaled.traces(np.arange(2)), (2 * traces.T + 5 - 0.5 * (2 + 5))[:2], rtol=1e-6)


def test_gaps_in_the_timestamps_of_an_nwb_series_are_named(tmp_path):
    times = np.arange(30) / 5.0
    times[20:] += 60.0
    write_nwb(tmp_path / "gap.nwb", {"a": np.ones((30, 3))}, {}, timestamps=times)
    found = open_recording(subject_files(tmp_path / "gap.nwb"), "gap")
    assert found.fs_hz == pytest.approx(5.0)
    assert "1 gap in its timestamps, the longest 60.2 s after frame 20" in found.notes[0]
