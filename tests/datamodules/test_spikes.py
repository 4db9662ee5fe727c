import numpy as np
import pytest
import scipy.io
import torch

from src.datamodules.spikes import GUARD_SAMPLES, NoisyBlock, SpikeWindows, TraceWindows, onset_labels
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import Spectrum, background_spectrum
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


FS_HZ = 25_000.0
PLAIN = Conditioning(low_hz=None)


def flat(sigma):
    return Spectrum(np.full(513, 2 * sigma**2 / FS_HZ), FS_HZ)


@pytest.fixture(scope="module")
def block():
    rng = np.random.default_rng(0)
    train = SpikeTrain.sorted(np.arange(200, 49_000, 400), rng.integers(1, 4, 122))
    trace = 0.1 * rng.standard_normal(50_000)
    for index, unit in zip(train.index, train.unit, strict=True):
        trace[index : index + 20] += 5.0 * unit
    return NoisyBlock(trace, train, flat(0.1), {"quiet": flat(0.2), "loud": flat(2.0)})


@pytest.mark.parametrize("dense", [False, True])
def test_a_stretch_has_the_target_s_noise_and_its_spikes_in_place(block, dense):
    noisy, train = block.draw("loud", 50_000, np.random.default_rng(1), dense=dense)
    assert len(train) == pytest.approx(122 * (1 + dense), abs=2)
    clean = np.zeros(50_000)
    for index, unit in zip(train.index, train.unit, strict=True):
        clean[index : index + 20] += 5.0 * unit
    noise = background_spectrum(noisy - clean, FS_HZ, np.ones(50_000, bool))
    assert noise.sigma() == pytest.approx(2.0, rel=0.1)


def test_batches_follow_the_global_generator_and_go_round_the_targets(block):
    windows = TraceWindows(block, 3, 3, after=PLAIN, windows=4)
    torch.manual_seed(0)
    samples, labels = windows[1]
    assert samples.shape == (4, 1, 120)
    assert labels.shape == (4, 120)
    assert not (windows[1][0] == samples).all()
    torch.manual_seed(0)
    assert (windows[1][0] == samples).all()
    quiet, loud = (float(windows[step][0].abs().median()) for step in (0, 1))
    assert quiet < 0.3 < loud
    assert len(windows) == 3
    with pytest.raises(IndexError):
        windows[3]
    assert windows.statistics()["scale"] == pytest.approx(block.bandpassed.std())


def test_batches_to_be_learned_by_heart_are_the_same_ones(block):
    windows = TraceWindows(block, 3, same=True, after=PLAIN, windows=4)
    assert (windows[0][0] == windows[0][0]).all()


def test_waveforms_carry_the_names_of_their_neurons(block):
    waveforms, units = SpikeWindows(block, 1, samples=20_000, jitter=0.0)[0]
    assert waveforms.shape[1:] == (1, 64)
    assert set(units.tolist()) <= {0, 1, 2}
    height = waveforms[:, 0, 22:38].mean(dim=1)
    np.testing.assert_allclose(height, 5.0 * (units + 1), atol=0.5)


def test_labels_are_widened_and_cut_at_the_ends():
    labels = onset_labels(np.array([1, 50, 99]), 100, 3)
    assert labels.sum() == 5 + 7 + 4
    assert labels[47:54].all()
