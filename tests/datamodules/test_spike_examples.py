import numpy as np
import pytest
import torch

from src.datamodules.spike_examples import NoisyBlock, SpikeWindows, TraceWindows, onset_labels
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import background_spectrum
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.spikes import Spectrum

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
    assert len(list(windows)) == 3
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
