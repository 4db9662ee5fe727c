from typing import Any

import numpy as np
import pytest

from src.models.spikes.decision import Decision, tune
from src.models.spikes.detector import SpikeDetection
from src.signals import BadInput


def curve(onsets, heights, n_samples=2_000):
    probability = np.full(n_samples, 0.01)
    for onset, height in zip(onsets, heights, strict=True):
        probability[onset - 3 : onset + 4] = height
    return probability


def test_spikes_are_the_peaks_of_the_probability_outside_the_refractory_period():
    probability = curve([100, 120, 400, 900], [0.9, 0.8, 0.75, 0.6])
    onsets, strength = Decision(0.7, 25).spikes(probability)
    np.testing.assert_array_equal(onsets, [100, 400])  # the smaller of two within 25 samples goes
    np.testing.assert_allclose(strength, [0.9, 0.75])
    np.testing.assert_array_equal(Decision(0.7, 10).spikes(probability)[0], [100, 120, 400])
    ends = np.zeros(50)
    ends[[0, 49]] = 0.9
    np.testing.assert_array_equal(Decision(0.5, 10).spikes(ends)[0], [0, 49])


def test_the_grid_point_with_the_largest_f1_is_chosen():
    truth = np.array([200, 600, 1_000, 1_400])
    false = curve([*truth, 300, 1_700], [0.95] * 4 + [0.82] * 2)
    decision = tune([(false, truth)])
    assert decision.threshold > 0.82
    assert decision.f1 == 1.0


def test_a_grid_whose_best_threshold_is_on_its_edge_is_widened():
    truth = np.array([200, 600, 1_000, 1_400])
    faint = curve([*truth, 300], [0.3] * 4 + [0.1])
    decision = tune([(faint, truth)])
    assert 0.1 < decision.threshold < 0.3
    assert decision.f1 == 1.0


def test_detector_config_is_the_coursework_s_file(tmp_path):
    path = tmp_path / "detector_config.npz"
    Decision(0.85, 45, 0.93).write(path)
    with np.load(path) as found:
        assert set(found) == {"decision_threshold", "refractory_suppression", "best_f1"}
    assert Decision.read(path) == Decision(0.85, 45)


@pytest.mark.parametrize("content", [{"x": 1}, {"decision_threshold": 1.5, "refractory_suppression": 25}])
def test_other_files_are_refused(tmp_path, content):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(BadInput, match=r"holds no decision|threshold 1\.5"):
        Decision.read(tmp_path / "x.npz")
    before = (tmp_path / "x.npz").read_bytes()
    grid: Any = {"thresholds": np.array([0.4, 0.5]), "refractory": np.arange(20, 40)}
    with pytest.raises(BadInput, match="is there already and is no detector_config"):
        Decision(0.85, 45).write(tmp_path / "x.npz")
    with pytest.raises(BadInput, match="is there already and is no detector_config"):
        SpikeDetection({"fs_hz": 25_000.0}, [], {}, detector_config=str(tmp_path / "x.npz"), **grid)
    assert (tmp_path / "x.npz").read_bytes() == before
