import numpy as np
import pytest

from src.recordings.extracellular.sortings import read_sorting
from src.signals import BadInput

FS_HZ = 25_000.0


def saved(path, rate=FS_HZ, units=(3, 9)):
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
    train, said = read_sorting(saved(tmp_path / "a.npz", units=(3, 5, 9)), FS_HZ)
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
        read_sorting(saved(tmp_path / "b.npz", rate=30_000.0), FS_HZ)
