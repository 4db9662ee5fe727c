import json

import numpy as np
import torch

from src.models.bundle import load_bundle
from src.models.spikes.detector import SpikeDetection
from src.simulate.spikes import NEURONS


def test_a_few_steps_find_most_spikes_of_a_block_nothing_was_fitted_to(spike_models):
    model, _, _ = spike_models["detector"]
    rows = {row["target"]: row for row in model.results()}
    assert list(rows) == ["D2", "D5"]
    assert rows["D2"]["f1_loose"] > 0.8
    assert rows["D5"]["f1_loose"] > 0.6
    assert rows["D2"]["f1_loose"] > rows["D5"]["f1_loose"] > 3 * rows["D5"]["chance_random"]
    assert model.test_metrics()["test/f1_loose"] == np.mean([rows[n]["f1_loose"] for n in rows])


def test_the_first_filters_are_the_targets_whitened_templates(spike_data):
    data = spike_data({"windows": 2, "window": 120, "context": True})
    data.setup("fit")
    model = SpikeDetection(data.signal.to_dict(), data.classes, "spike_detector", {}, data.targets)
    model.set_normalization(data.statistics())
    stems = [trunk.stem for trunk in model.network.trunks]
    assert not torch.equal(stems[0].weight[:5], stems[1].weight[:5])
    # A filter answers its own neuron's waveform, at the labelled sample, more than its neighbours in time.
    shape = NEURONS[4].at(np.arange(-300, 300)).astype(np.float32)
    answer = stems[1](torch.from_numpy(shape)[None, None] / model.network.scale[1])[0, 4]
    assert abs(int(answer.argmax()) - (300 + model.network.label_offset)) <= 2


def test_decisions_are_tuned_per_target_and_travel_with_the_baselines(spike_models):
    model, _, folder = spike_models["detector"]
    decision = load_bundle(folder).decision
    assert set(decision["targets"]) == set(decision["baselines"]) == {"D2", "D5"}
    for target in decision["targets"].values():
        assert 0 < target["threshold"] < 1
        assert target["refractory"] > 0
        assert target["merit"] > 0.5
    assert decision["baselines"]["D2"]["threshold + PCA + mixture"] > 1
    assert load_bundle(folder).task == "spike_detection"
    assert model.bundle_fields()["kind"] == "spike_detector"


def test_the_originals_network_trains_in_the_same_frame(spike_data):
    data = spike_data({"windows": 4, "window": 120, "context": False})
    data.setup("fit")
    model = SpikeDetection(data.signal.to_dict(), data.classes, "spike_detector_original", {}, data.targets)
    model.set_normalization(data.statistics())
    samples, labels = torch.randn(4, 1, 120), torch.zeros(4, 1, 120)
    assert torch.isfinite(model.network(samples, 1)).all()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model.network(samples, 0), labels)
    loss.backward()
    assert model.width == 7


def test_scores_that_do_not_exist_are_none_and_can_be_written(spike_models):
    model, _, _ = spike_models["detector"]
    own = model.rows
    try:
        model.rows = [{**own[0], "f1_loose": float("nan"), "precision": float("nan")}, own[1]]
        rows = model.results()
        assert rows[0]["f1_loose"] is None
        assert rows[1] == own[1]
        json.dumps(rows, allow_nan=False)
        assert model.test_metrics()["test/f1_loose"] == own[1]["f1_loose"]  # the mean over those that have one
    finally:
        model.rows = own
