import numpy as np
import pytest

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.labelled import load_labelled
from src.recordings.extracellular.spike_trains import SpikeTrain, write_mat
from src.signals import BadInput
from src.simulate.spikes import NEURONS

CHAIN = Conditioning()


def test_waveforms_of_a_stretch_are_those_of_its_neurons(spike_folder):
    labelled = load_labelled(spike_folder / "D1.mat", CHAIN)
    model = labelled.waveforms(range(200_000))
    peaks = model.templates.max(axis=1)
    np.testing.assert_allclose(peaks, [n.peak for n in NEURONS], rtol=0.1)
    assert model.counts.sum() == len(labelled.train.between(0, 200_000))
    assert len(labelled.flat) == len(labelled.bandpassed) == len(labelled.trace.centred)


def test_any_number_of_neurons_is_allowed_unless_it_is_limited(tmp_path):
    rng = np.random.default_rng(0)
    train = SpikeTrain.sorted(np.arange(200, 9_000, 100), rng.integers(1, 10, 88))
    write_mat(tmp_path / "D1.mat", train, rng.standard_normal(10_000))
    assert load_labelled(tmp_path / "D1.mat", CHAIN).waveforms(range(10_000)).n_units == 9
    with pytest.raises(BadInput, match="outside 1…5"):
        load_labelled(tmp_path / "D1.mat", CHAIN, n_units=5)


def test_a_recording_without_spikes_is_refused(tmp_path):
    write_mat(tmp_path / "D1.mat", SpikeTrain.empty(), np.random.default_rng(0).standard_normal(5_000))
    with pytest.raises(BadInput, match="holds no labelled spike"):
        load_labelled(tmp_path / "D1.mat", CHAIN)
