import numpy as np
import pytest

from src.datamodules.spike_examples import EpochSteps, NoisyBlock, SpikeWindows, TraceWindows, onset_labels
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.noise import background_spectrum
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.noise import Spectrum

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


def test_examples_depend_on_seed_epoch_and_step_alone(block):
    windows = TraceWindows(block, PLAIN, windows=4, seed=3)
    samples, labels = windows[0, 1]
    assert samples.shape == (4, 1, 120)
    assert labels.shape == (4, 120)
    again, _ = TraceWindows(block, PLAIN, windows=4, seed=3)[0, 1]
    assert (samples == again).all()
    assert not (windows[1, 1][0] == samples).all()
    quiet, loud = (float(windows[0, step][0].abs().median()) for step in (0, 1))
    assert quiet < 0.3 < loud  # the steps go round the targets


def test_waveforms_carry_the_names_of_their_neurons(block):
    waveforms, units = SpikeWindows(block, samples=20_000, jitter=0.0)[0, 0]
    assert waveforms.shape[1:] == (1, 64)
    assert set(units.tolist()) <= {0, 1, 2}
    height = waveforms[:, 0, 22:38].mean(dim=1)
    np.testing.assert_allclose(height, 5.0 * (units + 1), atol=0.5)


def test_labels_are_widened_and_cut_at_the_ends():
    labels = onset_labels(np.array([1, 50, 99]), 100, 3)
    assert labels.sum() == 5 + 7 + 4
    assert labels[47:54].all()


def test_processes_share_the_steps_and_overfitting_repeats_an_epoch():
    steps = [list(EpochSteps(3, rank, 2)) for rank in (0, 1)]
    assert sorted(s for _, s in steps[0] + steps[1]) == list(range(6))
    sampler = EpochSteps(2, same=True)
    sampler.set_epoch(4)
    assert list(sampler) == [(0, 0), (0, 1)]
