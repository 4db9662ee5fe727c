import numpy as np
import pytest

from src.models.spike_scoring import detection
from src.preprocess.spikes.background import measure_background, recovered, tiled
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.waveforms import conditioned_waveforms, fit_waveforms
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.spikes import FS_HZ, SPIKE_SAMPLES, Neuron, background, mean_peak, place, simulate

CHAIN = Conditioning(low_hz=20.0, order=1)
STRANGER = (
    Neuron(peak=-9.0, rise=3.0, steepness=2.0, fall=3.0, undershoot=-3.0, undershoot_at=12.0, undershoot_width=4.0),
)


@pytest.fixture(scope="module")
def known():
    trace, train = simulate(700, 30.0, 5, duration_s=18)
    seen = conditioned_waveforms(fit_waveforms(trace - slow_baseline(trace), train, 5), CHAIN)
    return seen, (CHAIN.linear(trace), train)


@pytest.mark.parametrize("ratio", [16.0, 8.0, 2.7])
def test_the_noise_of_an_unlabelled_recording_is_measured_to_a_few_per_cent(known, ratio):
    trace, _ = simulate(1000, ratio, 6, duration_s=15)
    measured = measure_background(CHAIN.linear(trace), FS_HZ, *known)
    assert measured.gaussian
    assert len(measured.suspects) == 0
    truth = background(ratio, 1.0, mean_peak())
    for low, high in ((150, 600), (600, 4000), (150, 4000)):
        assert measured.noise.sigma(low, high) == pytest.approx(truth.sigma(low, high), rel=0.07)


def test_foreign_neurons_are_noticed_and_the_known_ones_found_among_them(known):
    trace, train = simulate(700, 10.0, 7, duration_s=15)
    rng = np.random.default_rng(0)
    places = np.sort(rng.integers(0, len(trace) - SPIKE_SAMPLES, 400))
    foreign = place(SpikeTrain(places, np.ones(400, np.int64)), len(trace), STRANGER, rng)
    measured = measure_background(CHAIN.linear((trace + foreign).astype(np.float32)), FS_HZ, *known)
    assert not measured.gaussian
    agreement = detection(train.index, measured.suspects.index, 10)
    assert agreement.precision > 0.8
    assert agreement.recall > 0.7
    # To a search for known neurons the foreign ones are noise.
    assert measured.noise.sigma(150, 4000) > 1.2 * mean_peak() / 10


def test_grafts_are_repeated_to_length():
    linear, train = tiled(np.arange(4.0), SpikeTrain(np.array([1, 3]), np.array([2, 5])), 10)
    assert linear.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert train.index.tolist() == [1, 3, 5, 7, 9]
    assert train.unit.tolist() == [2, 5, 2, 5, 2]


def test_recovered_is_a_share_of_the_grafts():
    assert recovered(np.array([100, 200]), np.array([95, 300])) == 0.5
    assert recovered(np.array([100]), np.zeros(0, int)) == 0
    assert recovered(np.zeros(0, int), np.array([3])) == 0
