import numpy as np
import pytest

from src.predict.spike_quality import SortedGroup, unit_rows
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
