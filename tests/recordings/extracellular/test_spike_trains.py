import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.spike_trains import (
    SpikeTrain,
    holds_spikes,
    read_sorting,
    read_spikes,
    unusable,
    write_csv,
    write_mat,
)
from src.signals import BadInput, SourceOptions


def save(path, **content):
    scipy.io.savemat(path, content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"d": np.ones(9)}, "no variable 'Index'"),
        ({"Index": [1, 2]}, "no variable 'Class'"),
        ({"Index": [1, 2], "Class": [1]}, "2 entries in Index, 1 in Class"),
        ({"Index": [0, 2], "Class": [1, 1]}, r"1 Index outside 1…9 \(the first is 0\)"),
        ({"Index": [1, 10], "Class": [1, 1]}, r"1 Index outside 1…9 \(the first is 10\)"),
        ({"Index": [1, 2], "Class": [1, 6]}, r"1 Class outside 1…5 \(the first is 6\)"),
        ({"Index": [1, 2.5], "Class": [1, 1]}, "'Index' holds something other than whole numbers"),
        ({"Index": [1, 2], "Class": [1, np.nan]}, "'Class' holds something other than whole numbers"),
        ({"Index": [1, 2], "Class": [0, 1]}, r"1 Class outside 1…5 \(the first is 0\); number the neurons 1, 2, 3"),
        ({"Index": np.ones((2, 2)), "Class": np.ones(4)}, r"'Index' has shape \(2, 2\)"),
    ],
)
def test_labels_that_cannot_be_meant(tmp_path, content, message):
    with pytest.raises(BadInput, match=message):
        read_spikes(save(tmp_path / "x.mat", **content), n_samples=9)


def test_matlab_files_of_every_version_hold_spikes(tmp_path):
    content = {"d": np.arange(6.0), "Index": np.array([2.0, 5.0]), "Class": np.array([1.0, 2.0]), "sr": np.array(24e3)}
    save(tmp_path / "old.mat", **content)
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:  # version 7.3: columns first
        for name, value in content.items():
            file[name] = np.atleast_2d(value).T
    for path in sorted(tmp_path.iterdir()):
        assert holds_spikes(path)
        train = read_spikes(path, n_samples=6)
        assert (train.index.tolist(), train.unit.tolist()) == ([1, 4], [1, 2])
        recording = open_recording(path, SourceOptions(key="d"), purpose="spikes")
        np.testing.assert_array_equal(recording.samples(), [content["d"]])
        assert recording.fs_hz == 24_000
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["x"] = np.ones(3)
    assert not holds_spikes(tmp_path / "other.mat")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 5)), max_size=20))
def test_a_train_survives_the_file_with_its_pairs(tmp_path_factory, spikes):
    path = tmp_path_factory.mktemp("mat") / "D2.mat"
    train = (
        SpikeTrain.sorted(*(np.array(column, np.int64) for column in zip(*spikes, strict=True)))
        if spikes
        else SpikeTrain.empty()
    )
    write_mat(path, train)
    raw = scipy.io.loadmat(path)
    assert raw["Index"].shape == raw["Class"].shape == (1, len(spikes))  # a row, as MATLAB users expect
    np.testing.assert_array_equal(raw["Index"][0], train.index + 1)
    again = read_spikes(path, n_samples=1000)
    np.testing.assert_array_equal(again.index, train.index)
    np.testing.assert_array_equal(again.unit, train.unit)
    assert sorted(spikes) == list(zip(again.index.tolist(), again.unit.tolist(), strict=True))


def test_the_csv_counts_from_one_and_names_its_columns(tmp_path):
    train = SpikeTrain(np.array([0, 25_000]), np.array([2, 5]))
    write_csv(tmp_path / "x.csv", train, 25_000, {"strength": np.array([1.0, 0.5])})
    assert (tmp_path / "x.csv").read_text().splitlines() == [
        "index,time_s,class,strength",
        "1,0.000000,2,1.0000",
        "25001,1.000000,5,0.5000",
    ]


def test_nan_and_rails_are_unusable_and_peaks_are_not():
    samples = np.sin(np.arange(1000) / 5).astype(np.float32)
    samples[100:120] = 3  # stuck to the rail
    samples[500] = np.nan
    samples[700] = 3  # one sample at the maximum is a peak
    bad = unusable(samples)
    assert set(np.flatnonzero(bad)) == {*range(100, 120), 500}
    assert not unusable(np.sin(np.arange(1000) / 5)).any()


def test_unequal_vectors_are_no_train():
    with pytest.raises(ValueError, match="equally long"):
        SpikeTrain(np.zeros(2, int), np.zeros(3, int))


FS_HZ = 25_000.0


def saved_sorting(path, rate=FS_HZ, units=(3, 9)):
    np.savez(
        path,
        unit_ids=np.array(units),
        num_segment=np.array([1]),
        sampling_frequency=np.array([rate]),
        spike_indexes_seg0=np.array([10, 20, 30]),
        spike_labels_seg0=np.array([9, 3, 9]),
    )
    return path


def test_units_become_neurons_from_1(tmp_path):
    train, said = read_sorting(saved_sorting(tmp_path / "a.npz", units=(3, 5, 9)), FS_HZ)
    assert train.index.tolist() == [10, 20, 30]
    assert train.unit.tolist() == [2, 1, 2]
    assert said == ("neuron 1 is unit 3, 2 is unit 9 of a.npz",)


@pytest.mark.filterwarnings("ignore:The extractor is not serializable")
def test_a_saved_folder_is_read_and_its_good_units_are_taken(tmp_path):
    core = pytest.importorskip("spikeinterface.core")
    sorting = core.NumpySorting.from_unit_dict([{"a": np.array([5, 9]), "b": np.array([7])}], FS_HZ)
    sorting.set_property("quality", np.array(["mua", "good"]))
    sorting.save(folder=tmp_path / "folder")
    train, said = read_sorting(tmp_path / "folder", FS_HZ)
    assert train.index.tolist() == [7]
    assert said == ("neuron 1 is unit b of folder",)


def test_what_is_no_sorting_is_refused(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_sorting(tmp_path / "none", FS_HZ)
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="is no sorting"):
        read_sorting(tmp_path / "x.npz", FS_HZ)
    with pytest.raises(BadInput, match="was sorted at 30000 Hz, the recording has 25000 Hz"):
        read_sorting(saved_sorting(tmp_path / "b.npz", rate=30_000.0), FS_HZ)
