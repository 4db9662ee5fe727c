import numpy as np
import pytest
import scipy.io

from src.datamodules.spikes import GUARD_SAMPLES
from src.recordings.extracellular.spike_trains import SpikeTrain, write_mat
from src.signals import BadInput

WINDOWS = {"windows": 2, "window": 120}


@pytest.fixture(scope="module")
def data(spike_data):
    made = spike_data(WINDOWS)
    made.prepare_data()
    made.setup("fit")
    return made


def test_the_labelled_recording_is_split_by_time_with_a_guard_gap(data):
    train, val, test = (data.parts[p] for p in ("train", "val", "test"))
    assert train.start == 0
    assert val.start - train.stop == test.start - val.stop == GUARD_SAMPLES
    assert test.stop == 14 * 25_000
    counted = {part: row["spikes"] for part, row in data.summary().items()}
    assert sum(counted.values()) <= 45 * 14
    assert len(data.split.parts) == 3
    assert data.statistics()["scale"] > 0


def test_what_happens_after_the_training_block_changes_no_training_example(spike_data, spike_folder, tmp_path, data):
    content = scipy.io.loadmat(spike_folder / "D1.mat")
    trace = content["d"][0].copy()
    trace[data.parts["train"].stop + 1000 :] *= 3
    train = SpikeTrain(content["Index"][0].astype(int) - 1, content["Class"][0].astype(int))
    write_mat(tmp_path / "D1.mat", train, trace)
    for name in ("D2", "D5"):
        (tmp_path / f"{name}.mat").write_bytes((spike_folder / f"{name}.mat").read_bytes())
    other = spike_data(WINDOWS, data_dir=str(tmp_path))
    other.setup("fit")
    ours, theirs = (d.blocks["train"].bandpassed[:-2000] for d in (data, other))
    np.testing.assert_allclose(theirs, ours, atol=0.05)


def test_held_out_recordings_are_as_noisy_as_their_targets(data):
    held = data.held_out("val")
    assert [h.name for h in held] == ["D2", "D2", "D5", "D5"]
    assert all(len(h.bandpassed) == len(data.parts["val"]) for h in held)
    assert len(held[1].train) == 2 * len(held[0].train)  # once as it is, once twice as dense
    assert np.median(np.abs(held[2].bandpassed)) > 2 * np.median(np.abs(held[0].bandpassed))
    assert held[2].level > 2 * held[0].level
    np.testing.assert_array_equal(held[0].bandpassed, data.held_out("val")[0].bandpassed)


def test_the_chain_of_the_detector_follows_the_band_pass(spike_data, spike_folder):
    conditioning = {"low_hz": 20.0, "wavelet": "sym4", "matched_filter": True}
    made = spike_data(WINDOWS, conditioning=conditioning, targets=["D2"])
    made.setup("fit")
    assert len(made.conditioning.template) > 50
    (held, _) = made.held_out("val")
    assert not np.allclose(held.conditioned, held.bandpassed)
    (step,) = made.steps()
    assert step["params"]["wavelet"] == "sym4"


def test_embedded_recordings_are_made_where_none_are_given(spike_data):
    made = spike_data(WINDOWS, data_dir=None, targets=["D2"], recording={"duration_s": 2.0, "seed": 1})
    made.prepare_data()
    assert (made.folder() / "D6.mat").is_file()
    made.setup("fit")
    assert not made.origin().recorded


def test_refusals(spike_data, spike_folder, tmp_path):
    with pytest.raises(BadInput, match="is empty"):
        spike_data(WINDOWS, targets=[])
    with pytest.raises(BadInput, match="holds no recording 'D9'"):
        spike_data(WINDOWS, targets=["D9"]).setup("fit")
    content = scipy.io.loadmat(spike_folder / "D1.mat")
    write_mat(tmp_path / "D1.mat", SpikeTrain(np.array([349_000]), np.array([1])), content["d"][0])
    with pytest.raises(BadInput, match="no spike lies in the training block"):
        spike_data(WINDOWS, data_dir=str(tmp_path), targets=["D1"]).setup("fit")
