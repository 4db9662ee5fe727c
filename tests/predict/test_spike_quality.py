import numpy as np
import pytest

from src.predict.spike_quality import SortedGroup, mark_noise, perhaps_one, unit_rows
from src.recordings.extracellular.spike_trains import SpikeTrain

FS_HZ = 25_000.0


def units(index, n_samples=250_000):
    template = np.zeros((1, 2, 75))
    template[0, 1, 25] = 12.0
    train = SpikeTrain(index, np.ones(len(index), np.int64))
    return SortedGroup(train, np.full(len(index), 12.0), template, np.ones(2), n_samples, n_samples)


def test_the_quality_of_a_unit_decides_its_label():
    (good,) = unit_rows(units(np.arange(500, 249_000, 1_000)), FS_HZ, 3, first=5)
    assert (good["unit"], good["group"], good["channel"], good["label"]) == (5, 3, 1, "good")
    assert good["snr"] == pytest.approx(12.0)
    assert good["rate_hz"] == pytest.approx(24.9)
    doubled = np.sort(np.r_[np.arange(500, 249_000, 1_000), np.arange(520, 249_000, 1_000)])
    (mixed,) = unit_rows(units(doubled), FS_HZ, 0, first=1)
    assert mixed["isi_violations"] > 0.4
    assert mixed["label"] == "mua"
    (brief,) = unit_rows(units(np.arange(500, 30_000, 1_000)), FS_HZ, 0, first=1)
    assert brief["presence"] < 0.2
    assert brief["label"] == "mua"


def test_what_follows_larger_units_or_is_small_without_a_refractory_period_is_noise():
    large, rng = np.arange(500, 249_000, 1_000), np.random.default_rng(0)
    free, hash_ = (np.sort(rng.integers(0, 250_000, n)) for n in (150, 900))
    index = [large, large[::2] + rng.integers(-40, 41, len(large[::2])), free, hash_]
    train = SpikeTrain.sorted(np.concatenate(index), np.repeat([1, 2, 3, 4], [len(i) for i in index]))
    templates = np.zeros((4, 1, 75))
    templates[:, 0, 25] = 40.0, 6.0, 8.0, 2.2
    group = SortedGroup(train, np.ones(len(train)), templates, np.ones(1), 250_000, 250_000)
    rows = unit_rows(group, FS_HZ, 0, first=1)
    assert [row["label"] for row in rows] == ["good", "good", "mua", "mua"]
    mark_noise(rows)
    assert [row["label"] for row in rows] == ["good", "noise", "mua", "noise"]


def test_the_spikes_of_a_burst_may_be_one_neuron_and_independent_ones_are_not():
    rng, seconds = np.random.default_rng(0), 60.0
    ms = np.arange(-50, 75) / 25
    narrow, broad, other = (np.exp(-0.5 * (ms / width) ** 2)[None] for width in (0.2, 0.25, 0.6))
    bursts = np.sort(rng.uniform(1, seconds - 1, 150))
    second = bursts + rng.uniform(0.004, 0.008, 150)  # smaller and broader, in the same burst
    alone = np.sort(rng.uniform(0, seconds, 900))
    dense = np.sort(rng.uniform(0, seconds, 900))
    assert perhaps_one([9 * narrow, 5 * broad], [bursts, second], seconds) == [[0, 1]]
    assert perhaps_one([9 * narrow, other, 5 * broad], [bursts, alone, second], seconds) == [[0, 2]]
    assert perhaps_one([9 * narrow, 5 * broad], [alone, dense], seconds) == []
    assert perhaps_one([9 * narrow, 5 * other], [bursts, second], seconds) == []
