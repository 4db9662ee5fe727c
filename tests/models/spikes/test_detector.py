import numpy as np


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
