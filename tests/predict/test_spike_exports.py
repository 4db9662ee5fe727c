import runpy
from dataclasses import replace

import numpy as np
import pytest

from src.predict.spike_exports import SortedRecording, export, require_known
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

FS_HZ = 25_000.0


@pytest.fixture
def done():
    rng = np.random.default_rng(0)
    train = SpikeTrain.sorted(rng.integers(0, 40_000, 60), rng.choice([1, 3], 60))
    traces = rng.standard_normal((2, 40_000)).astype(np.float32)
    units = [{"unit": u, "group": 0, "label": label} for u, label in ((1, "good"), (2, "mua"), (3, "mua"))]

    def read(first, last):
        return traces[:, first:last]

    return SortedRecording("D2", FS_HZ, 40_000, read, np.zeros(2, np.int64), train, units, "onset", "D2.mat")


def test_a_spikeinterface_sorting_holds_every_pair(done, tmp_path):
    (path,) = export(["spikeinterface"], tmp_path, done)
    with np.load(path) as content:
        np.testing.assert_array_equal(content["spike_indexes_seg0"], done.train.index)
        np.testing.assert_array_equal(content["spike_labels_seg0"], done.train.unit)
        assert content["unit_ids"].tolist() == [1, 2, 3]  # a neuron without spikes is one all the same
        assert content["sampling_frequency"] == [FS_HZ]
        assert content["num_segment"] == [1]


def test_a_phy_folder_agrees_with_itself(done, tmp_path):
    (folder,) = export(["phy"], tmp_path, done)
    params = runpy.run_path(str(folder / "params.py"))
    assert params["sample_rate"] == FS_HZ
    raw = np.fromfile(folder / params["dat_path"], params["dtype"])
    traces = done.read(0, 40_000)
    assert np.corrcoef(raw, traces.T.reshape(-1))[0, 1] > 0.999
    read = {p.stem: np.load(p) for p in folder.glob("*.npy")}
    np.testing.assert_array_equal(read["spike_times"], done.train.index)
    np.testing.assert_array_equal(read["spike_clusters"], done.train.unit)
    np.testing.assert_array_equal(read["spike_templates"], done.train.unit - 1)
    assert read["templates"].shape == (3, 80, 2)
    assert not read["templates"][1].any()
    for unit in (0, 2):  # a spike's amplitude is in units of its own mean waveform
        assert read["amplitudes"][read["spike_templates"] == unit].mean() == pytest.approx(1)
    assert np.isfinite(read["similar_templates"]).all()
    assert (folder / "cluster_group.tsv").read_text().startswith("cluster_id\tgroup\n1\tgood\n2\tmua\n")


def test_no_spikes_are_a_valid_export(done, tmp_path):
    written = export(["spikeinterface", "phy"], tmp_path, replace(done, train=SpikeTrain.empty()))
    assert all(path.exists() for path in written)


def test_other_readers_agree(done, tmp_path):
    core = pytest.importorskip("spikeinterface.core")
    pytest.importorskip("pynwb")
    from pynwb import NWBHDF5IO
    from spikeinterface.extractors import read_phy

    npz, phy, nwb = export(["spikeinterface", "phy", "nwb"], tmp_path, done)
    for sorting in (core.read_npz_sorting(npz), read_phy(phy)):
        for unit in (1, 3):
            found = sorting.get_unit_spike_train(unit)
            np.testing.assert_array_equal(found, done.train.index[done.train.unit == unit])
    with NWBHDF5IO(str(nwb), "r") as handle:
        units = handle.read().units
        np.testing.assert_allclose(units["spike_times"][0] * FS_HZ, done.train.index[done.train.unit == 1])
        assert units.id[:].tolist() == [1, 2, 3]
        assert units["quality"][:].tolist() == ["good", "mua", "mua"]
        assert "those of the onset" in units.description


def test_an_unknown_kind_is_refused():
    with pytest.raises(BadInput, match="unknown kind 'klusters'; choose from: spikeinterface, phy, nwb"):
        require_known(["klusters"])


def test_blocks_do_not_change_what_is_written(done, tmp_path, monkeypatch):
    (tmp_path / "pieces").mkdir()
    (whole,) = export(["phy"], tmp_path, done)
    monkeypatch.setattr("src.predict.spike_exports.BLOCK", 7_001)
    (pieces,) = export(["phy"], tmp_path / "pieces", done)
    for file in whole.iterdir():
        if file.suffix == ".npy":
            np.testing.assert_allclose(np.load(file), np.load(pieces / file.name), rtol=1e-6)
    assert (whole / "recording.dat").read_bytes() == (pieces / "recording.dat").read_bytes()
