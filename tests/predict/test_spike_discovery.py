import csv
import json

import numpy as np
import pytest

from src.models.spike_scoring import detection
from src.predict.spike_discovery import discover_units, unit_rows
from src.preprocess.spikes.discover import Units
from src.preprocess.spikes.sorting import Sorted
from src.recordings.extracellular.spike_trains import SpikeTrain

FS_HZ = 25_000.0


def units(index, n_samples=250_000):
    train = SpikeTrain(index, np.ones(len(index), np.int64))
    bandpassed = np.random.default_rng(0).standard_normal((2, n_samples))
    bandpassed[1, index] = 12.0
    template = np.zeros((1, 2, 75))
    template[0, 1, 25] = 12.0
    ones = np.ones(len(index))
    return Units(template, 25, Sorted(train, ones, ones), bandpassed, 1, np.ones(n_samples, bool), np.ones(2))


def test_the_quality_of_a_unit_decides_its_label():
    (good,) = unit_rows(units(np.arange(500, 249_000, 1_000)), FS_HZ, 3, first=5)
    assert good["unit"] == 5
    assert good["group"] == 3
    assert good["channel"] == 1
    assert good["snr"] == pytest.approx(12.0)
    assert good["rate_hz"] == pytest.approx(24.9)
    assert good["label"] == "good"
    doubled = np.sort(np.r_[np.arange(500, 249_000, 1_000), np.arange(520, 249_000, 1_000)])
    (mixed,) = unit_rows(units(doubled), FS_HZ, 0, first=1)
    assert mixed["isi_violations"] > 0.4
    assert mixed["label"] == "mua"
    (brief,) = unit_rows(units(np.arange(500, 30_000, 1_000)), FS_HZ, 0, first=1)
    assert brief["presence"] < 0.2
    assert brief["label"] == "mua"


@pytest.mark.slow
def test_the_units_of_two_tetrodes_are_found(tmp_path):
    rng = np.random.default_rng(1)
    traces, truth = rng.standard_normal((100_000, 4)).astype(np.float32), {}
    shape = -np.exp(-0.5 * ((np.arange(40) - 12) / 3.0) ** 2)
    for unit, gains in enumerate(([14, 4, 2, 1], [2, 3, 12, 9])):
        truth[unit] = np.sort(rng.choice(np.arange(100, 99_000, 200), 150, replace=False)) + 90 * unit
        for at in truth[unit]:
            traces[at : at + 40] += shape[:, None] * np.array(gains)
    np.savez(tmp_path / "tetrode.npz", traces=traces, fs=FS_HZ)
    summary = discover_units(tmp_path / "tetrode.npz", tmp_path / "out")
    assert summary.exit_code == 0, summary.failures
    with (tmp_path / "out" / "tetrode_spikes.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    for onsets in truth.values():
        best = max(
            detection(onsets + 12, np.array([int(r["sample"]) for r in rows if r["unit"] == u]), 10).f1
            for u in {r["unit"] for r in rows}
        )
        assert best > 0.95
    record = json.loads((tmp_path / "out" / "tetrode.json").read_text())
    assert len(record["units"]) == 2
