import numpy as np
import pytest

from src.preprocess.spikes.bank import SpikeBank, Whitening
from src.preprocess.spikes.filters import Spectrum
from src.preprocess.spikes.pursuit import Pursuit, independent, local_peaks
from tests.preprocess.spikes.bumps import bump

FS_HZ = 25_000.0
REFRACTORY = 25


TEMPLATES = np.stack([bump(22, 4, 9), bump(26, 8, 8), bump(20, 3, 5)])[:, None]
NOISE = Spectrum(np.full(513, 2 / FS_HZ), FS_HZ)


@pytest.fixture(scope="module")
def bank():
    modes = 0.05 * TEMPLATES[:, None]
    return SpikeBank(TEMPLATES, modes, 10, Whitening.of([NOISE]))


def recording(spikes, n_samples=6_000, noise=1.0, seed=0):
    trace = noise * np.random.default_rng(seed).standard_normal(n_samples)
    for index, unit in spikes:
        trace[index - 10 : index + 90] += TEMPLATES[unit, 0]
    return trace[None]


def close(found, spikes, within=2):
    pairs = list(zip(found.index.tolist(), found.unit.tolist(), strict=True))
    return len(pairs) == len(spikes) and all(any(abs(i - j) <= within and u == v for i, u in pairs) for j, v in spikes)


def test_spikes_are_found_and_named(bank):
    spikes = [(500, 0), (900, 1), (1_400, 2), (2_000, 0)]
    found = Pursuit(bank, recording(spikes), REFRACTORY).run(floor=8.0)
    assert close(found, spikes)
    assert (found.ratio > 20).all()


@pytest.mark.parametrize("lag", [0, 2, 5])
@pytest.mark.parametrize("units", [(0, 1), (1, 0)])
def test_overlapping_spikes_are_told_apart(bank, units, lag):
    spikes = [(1_000, units[0]), (1_000 + lag, units[1])]
    found = Pursuit(bank, recording(spikes, noise=0.5), REFRACTORY).run(floor=8.0)
    assert close(found, spikes)


def test_one_unit_does_not_fire_twice_within_its_refractory_period(bank):
    found = Pursuit(bank, recording([(1_000, 0), (1_015, 0)]), REFRACTORY).run(floor=8.0)
    for unit in range(3):
        assert (np.diff(found.index[found.unit == unit]) > REFRACTORY).all()


def test_what_is_found_is_taken_off_the_residual(bank):
    spikes = [(1_000, 0), (3_000, 1)]
    pursuit = Pursuit(bank, recording(spikes, noise=0.0), REFRACTORY)
    before = np.square(pursuit.residual).sum()
    pursuit.run(floor=8.0)
    assert np.square(pursuit.residual).sum() < 0.02 * before


def test_noise_alone_holds_no_spike_and_a_short_trace_is_no_error(bank):
    assert len(Pursuit(bank, recording([]), REFRACTORY).run(floor=12.0)) == 0
    for length in (2, 30, 200):
        assert len(Pursuit(bank, np.zeros((1, length)), REFRACTORY).run()) == 0


def test_the_marginal_names_the_unit(bank):
    pursuit = Pursuit(bank, recording([(1_000, 0), (2_000, 1)]), REFRACTORY)
    found = pursuit.run(floor=8.0)
    np.testing.assert_array_equal(pursuit.marginal().argmax(axis=1), found.unit)


def test_independent_changes_do_not_touch():
    index = np.array([10, 20, 30, 300, 310])
    gain = np.array([1.0, 3.0, 2.0, 0.0, 5.0])
    np.testing.assert_array_equal(independent(index, gain, 0.5, 50), [False, True, False, False, True])


def test_local_peaks_are_apart():
    values = np.zeros(100)
    values[[10, 14, 60]] = 3, 5, 4
    np.testing.assert_array_equal(local_peaks(values, 2.0, 20), [14, 60])
    assert len(local_peaks(values, 9.0, 20)) == 0
