import numpy as np
import pytest

from src.models.spikes.decision import Decision
from src.signals import BadInput


def test_a_trained_detector_finds_spikes_on_held_out_data(spike_models):
    model, _, _ = spike_models["detector"]
    rows = model.results()
    assert [r["target"] for r in rows] == ["D2", "D2", "D5", "D5"]
    assert rows[0]["f1_loose"] > 0.6
    assert rows[0]["f1_loose"] > 1.5 * rows[0]["chance_random"]
    assert model.test_metrics()["test/f1_loose"] == np.mean([r["f1_loose"] for r in rows])


def test_decisions_belong_to_targets_and_one_for_all_is_written(spike_models, tmp_path):
    model, data, _ = spike_models["detector"]
    model.detector_config = str(tmp_path / "detector_config.npz")
    decision = model.tune(data)
    assert set(decision["targets"]) == {"D2", "D5"}
    assert decision["targets"]["D5"]["level"] > 2 * decision["targets"]["D2"]["level"]
    with np.load(tmp_path / "detector_config.npz") as found:
        assert 0 < found["decision_threshold"] < 1
    model.detector_config = None


def test_a_target_without_validation_has_the_median_threshold_and_says_so(spike_models, monkeypatch):
    model, data, _ = spike_models["detector"]
    d5 = next(recording for recording in data.held_out("test") if recording.name == "D5")
    monkeypatch.setattr(model, "rows", [])
    monkeypatch.setattr(model, "decisions", {"D2": Decision(0.6, 30), "D3": Decision(0.8, 40)})
    with pytest.warns(UserWarning, match=r"D5 was not in the validation: .* of D2, D3; .*limit_val_batches=1.0"):
        found = model.predict_step(d5, 0)
    index, _ = Decision(0.7, 35).spikes(model.network.onset_probability(d5.conditioned))
    np.testing.assert_array_equal(found["index"], index)
    monkeypatch.setattr(model, "decisions", {})
    with pytest.raises(BadInput, match="D5: has no threshold; fit the detector with validation data"):
        model.predict_step(d5, 0)
