import json

import numpy as np
import pytest

from src.models.spikes.scores import detection
from src.predict.spike_discovery import discover_groups, discover_units, sort_recording
from src.preprocess.spikes.discover import DiscoverParams
from src.recordings.extracellular.spike_trains import read_sorting
from src.signals import BadInput, SourceOptions
from tests.tables import read_csv

FS_HZ = 25_000.0
SHAPE = -np.exp(-0.5 * ((np.arange(40) - 12) / 3.0) ** 2)


@pytest.fixture(scope="module")
def tetrodes():
    """Traces ``(time, channel)`` of two pairs of channels, and the peaks of one unit in each."""
    rng = np.random.default_rng(1)
    traces, truth = rng.standard_normal((75_000, 4)).astype(np.float32), {}
    for unit, gains in enumerate(([14, 5, 0, 0], [0, 0, 12, 9])):
        onsets = np.sort(rng.choice(np.arange(100, 74_000, 200), 120, replace=False)) + 90 * unit
        for at in onsets:
            traces[at : at + 40] += SHAPE[:, None] * np.array(gains)
        truth[unit] = onsets + 12
    return traces, truth


def test_the_units_of_two_groups_are_found_and_exported(tetrodes, tmp_path):
    traces, truth = tetrodes
    np.savez(tmp_path / "wires.npz", traces=traces, fs=FS_HZ, shanks=np.array([0, 0, 1, 1]))
    summary = discover_units(tmp_path / "wires.npz", tmp_path / "out", exports=["spikeinterface", "phy", "nwb"])
    assert summary.exit_code == 0, summary.failures
    rows = read_csv(tmp_path / "out" / "wires_spikes.csv")
    for unit, peaks in truth.items():
        own = np.array([int(row["sample"]) for row in rows if row["group"] == str(unit)])
        assert detection(peaks, own, 10).f1 > 0.97
    record = json.loads((tmp_path / "out" / "wires.json").read_text())
    assert [row["label"] for row in record["units"]] == ["good", "good"]
    assert (tmp_path / "out" / "wires.nwb").is_file()
    page = (tmp_path / "out" / "wires_units.html").read_text()
    assert "data:image/png;base64," in page
    assert "isi_violations" in page
    for written in ("wires_sorting.npz", "wires_phy"):
        train, (said,) = read_sorting(tmp_path / "out" / written, FS_HZ)
        assert [int(np.sum(train.unit == u)) for u in (1, 2)] == [row["spikes"] for row in record["units"]]
        assert said.startswith("neuron 1 is unit 1, 2 is unit 2 of wires_")


def test_a_recording_of_spikeinterface_goes_in_and_a_sorting_comes_out(tetrodes):
    core = pytest.importorskip("spikeinterface.core")
    traces, truth = tetrodes
    recording = core.NumpyRecording([traces], FS_HZ)
    recording.set_property("group", np.array([0, 0, 7, 7]))
    sorting = sort_recording(recording, DiscoverParams(block=30_000))
    assert sorting.get_property("group").tolist() == [0, 1]
    for unit, peaks in zip(sorting.unit_ids, truth.values(), strict=True):
        assert detection(peaks, sorting.get_unit_spike_train(unit), 10).f1 > 0.97
    with pytest.raises(BadInput, match="has 2 segments"):
        sort_recording(core.NumpyRecording([traces[:100], traces[:100]], FS_HZ))


def test_channels_keep_their_numbers_beside_one_without_samples_and_rails_are_noted(tetrodes, tmp_path):
    traces, _ = tetrodes
    traces = np.insert(np.maximum(traces[:, :2], -11), 0, np.nan, axis=1)
    np.savez(tmp_path / "wires.npz", traces=traces, fs=FS_HZ, shanks=np.zeros(3, int))
    summary = discover_units(tmp_path / "wires.npz", tmp_path / "out", figures=False, exports=["phy"])
    assert summary.exit_code == 0, summary.failures
    record = json.loads((tmp_path / "out" / "wires.json").read_text())
    assert any("cut off at the largest value" in note for note in record["notes"])
    assert [row["channel"] for row in record["units"]] == [1]
    assert "group 0: channel 0 of the group (counted from 0) has no finite sample and was not used" in record["notes"]


def test_a_short_recording_is_said_to_be_short(tetrodes):
    read = {0: lambda first, last: tetrodes[0][first:last, :2].T}
    assert any("only 0.96 s long" in note for note in discover_groups(read, 24_000, FS_HZ).notes)
    assert not any(" s long" in note for note in discover_groups(read, 75_000, FS_HZ).notes)


def test_a_recording_without_units_is_named(tmp_path):
    noise = np.random.default_rng(0).standard_normal((30_000, 1)).astype(np.float32)
    noise.tofile(tmp_path / "noise.raw")
    (failure,) = discover_units(tmp_path / "noise.raw", tmp_path / "out").failures
    assert "a raw binary file needs source.dtype=int16 source.channels=<number> source.fs_hz=<Hz>" in failure.reason
    raw = SourceOptions(dtype="float32", channels=1, fs_hz=FS_HZ)
    (failure,) = discover_units(tmp_path / "noise.raw", tmp_path / "out", source_options=raw).failures
    assert "no unit was found (group 0:" in failure.reason
    with pytest.raises(BadInput, match="unknown kind 'kilo'"):
        discover_units(tmp_path / "noise.raw", tmp_path / "out", exports=["kilo"])
