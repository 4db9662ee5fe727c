import numpy as np
import pytest

from src.models.spikes.scores import detection
from src.preprocess.spikes.discover import DiscoverParams, Group, discover, discover_group, find_peaks
from src.signals import BadInput
from tests.preprocess.spikes.bumps import bump

FS_HZ = 25_000.0


def recorded(fs_hz, gains, seconds=6.0, seed=0, per_unit=80):
    """Traces ``(channel, time)`` of units with given gains ``(unit, channel)``, and their peaks."""
    rng = np.random.default_rng(seed)
    n_samples, truth = round(seconds * fs_hz), []
    traces = rng.standard_normal((len(gains[0]), n_samples)).astype(np.float32)
    length = round(0.003 * fs_hz)
    for unit, gain in enumerate(gains):
        shape = -bump(length // 3, (0.1 + 0.08 * unit) * fs_hz / 1000, 1.0, length)
        peaks = np.sort(rng.choice(np.arange(200, n_samples - 200, length), per_unit, replace=False)) + 3 * unit
        for at in peaks:
            traces[:, at - length // 3 : at - length // 3 + length] += np.outer(gain, shape)
        truth.append(peaks)
    return traces, truth


def accuracy(units, truth, within):
    train = units.found.train
    found = [train.index[train.unit == u] for u in np.unique(train.unit)]
    return [max(detection(peaks, own, within).f1 for own in found) for peaks in truth], len(found)


@pytest.mark.parametrize("fs_hz", [10_000.0, 15_000.0, 20_000.0, 30_000.0])
@pytest.mark.parametrize("gains", [[[15], [8]], [[15, 3, 0, 2], [2, 8, 9, 0]]])
def test_wires_and_tetrodes_of_every_rate_are_sorted(fs_hz, gains):
    traces, truth = recorded(fs_hz, gains)
    f1, n_units = accuracy(discover(traces, fs_hz), truth, round(0.0005 * fs_hz))
    assert min(f1) > 0.9
    assert n_units == 2


def test_a_rare_unit_of_a_tetrode_keeps_its_spikes():
    traces, _ = recorded(20_000.0, [[12, 2, 3, 1], [1, 14, 2, 6]])
    rare, (peaks,) = recorded(20_000.0, [[3, 4, 15, 12]], seed=5, per_unit=11)
    f1, _ = accuracy(discover((traces + rare) / np.float32(np.sqrt(2)), 20_000.0), [peaks], 10)
    assert f1[0] > 0.9


def test_two_blocks_find_what_one_finds():
    traces, _ = recorded(FS_HZ, [[15], [8]])
    whole = discover(traces, FS_HZ)
    pieces = discover(traces, FS_HZ, DiscoverParams(block=70_001))
    np.testing.assert_array_equal(whole.found.train.index, pieces.found.train.index)
    np.testing.assert_array_equal(whole.found.train.unit, pieces.found.train.unit)
    np.testing.assert_allclose(whole.amplitude, pieces.amplitude, atol=1e-4)


def test_a_long_recording_is_learned_from_an_excerpt(monkeypatch):
    traces, truth = recorded(FS_HZ, [[15], [8]], seconds=12.0, per_unit=200)
    monkeypatch.setattr("src.preprocess.spikes.discover.LEARNED_VALUES", 150_000)
    longest = []

    def read(first, last):
        longest.append(last - first)
        return traces[:, first:last]

    units = discover_group(Group(read, traces.shape[1], FS_HZ, DiscoverParams(block=40_000)))
    assert max(longest) < 60_000
    assert min(accuracy(units, truth, 10)[0]) > 0.9


def test_the_larger_polarity_is_chosen_and_pulses_are_above_the_ceiling():
    scaled = np.random.default_rng(0).standard_normal((1, 50_000)).astype(np.float32)
    for at in range(500, 49_000, 500):
        scaled[0, at : at + 5] -= 15
    scaled[0, 20_250] = 900
    sign, peaks, ceiling = find_peaks(scaled, FS_HZ, 5.0)
    assert sign == -1
    assert len(peaks) == 97
    assert ceiling < 900


# Ten pulses a second have lines where mains hum has some, and what they leave of spikes may make a unit of its own.
@pytest.mark.parametrize(("apart", "most_units"), [(11_000, 2), (2_500, 3)])
def test_pulses_are_no_spikes(apart, most_units):
    traces, truth = recorded(FS_HZ, [[15], [8]])
    pulses = np.arange(5_000, 149_000, apart)
    traces[0, pulses[:, None] + np.arange(10)] += 800
    traces[0, pulses[:, None] + 10 + np.arange(200)] += 60 * np.exp(-np.arange(200) / 25)  # the amplifier recovers
    units = discover(traces, FS_HZ)
    distance = np.abs(units.found.train.index[:, None] - pulses).min(axis=1)
    assert distance.min() > 40
    f1, n_units = accuracy(units, truth, 10)
    assert min(f1) > 0.9
    assert n_units <= most_units
    assert not any("hum" in note for note in units.group.notes)


@pytest.mark.parametrize("gains", [[[15], [8]], [[15, 3], [2, 9]]])
@pytest.mark.parametrize("first", [0, 50_000])
def test_a_stretch_of_one_value_is_a_gap_as_nan_is(gains, first):
    traces, _ = recorded(FS_HZ, gains)
    whole = discover(traces, FS_HZ)
    traces += 3
    gap = slice(first, first + 60_000)
    results = []
    for value in (np.nan, 0.0):
        traces[:, gap] = value
        results.append(discover(traces, FS_HZ, DiscoverParams(block=40_000)))
    absent, zero = results
    np.testing.assert_array_equal(zero.noise, absent.noise)
    np.testing.assert_allclose(zero.noise, whole.noise, rtol=0.05)
    np.testing.assert_array_equal(zero.found.train.index, absent.found.train.index)
    np.testing.assert_array_equal(zero.found.train.unit, absent.found.train.unit)
    assert not ((zero.found.train.index >= gap.start) & (zero.found.train.index < gap.stop)).any()
    assert "40.00% of the samples are NaN, stuck or artefacts: no spike is reported there" in zero.group.notes


def test_a_channel_without_samples_does_not_cost_the_group():
    traces, _ = recorded(FS_HZ, [[15, 3], [2, 9]])
    alone = discover(traces, FS_HZ)
    units = discover(np.insert(traces, 1, np.nan, axis=0), FS_HZ)
    np.testing.assert_array_equal(units.found.train.index, alone.found.train.index)
    assert units.channels.tolist() == [0, 2]
    assert units.group.notes == {"channel 1 of the group (counted from 0) has no finite sample and was not used"}
    silence, noise = np.full((2, 1000), np.nan), np.random.default_rng(0).standard_normal((1, 20_000))
    for signal, says in ((silence, "no channel has a finite sample"), (noise, "peaks beyond")):
        with pytest.raises(BadInput, match=says):
            discover(signal, FS_HZ, DiscoverParams(threshold=8.0))
