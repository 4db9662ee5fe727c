from dataclasses import replace

import numpy as np
import pytest

from src.models.bundle import load_bundle
from src.models.spikes.decision import Decision
from src.predict.spike_networks import NetworkSorter, one_thread
from src.preprocess.spikes.trace import load_trace
from src.signals import BadInput
from src.simulate.spikes import FS_HZ


@pytest.fixture(scope="module")
def bundles(spike_models):
    return tuple(load_bundle(spike_models[task][2]) for task in ("detector", "classifier"))


def test_a_recording_gets_the_decision_of_its_name_or_of_the_nearest_noise(bundles):
    sorter = NetworkSorter.from_bundles(*bundles)
    loud = 2.0 * np.random.default_rng(0).standard_normal(20_000)
    assert sorter.decision("D2", loud) is sorter.decisions["D2"]
    assert sorter.decision("other", loud) is sorter.decisions["D5"]
    assert sorter.decision("other", loud * 0.1) is sorter.decisions["D2"]


def test_detector_config_replaces_the_decisions(bundles, spike_folder, tmp_path):
    Decision(0.999, 60).write(tmp_path / "detector_config.npz")
    trace = load_trace(spike_folder / "D2.mat", fs_hz=FS_HZ)
    strict = NetworkSorter.from_bundles(*bundles, config=tmp_path / "detector_config.npz").sort(trace)
    usual = NetworkSorter.from_bundles(*bundles).sort(trace)
    assert len(strict.train) < len(usual.train)
    assert strict.facts["decision"]["threshold"] == 0.999
    assert ((usual.confidence > 0.2) & (usual.confidence <= 1)).all()


def test_a_gain_brings_a_recording_to_the_labelled_one_s_unit(bundles, spike_folder):
    trace = load_trace(spike_folder / "D2.mat", fs_hz=FS_HZ)
    louder = replace(trace, centred=trace.centred * np.float32(1000))
    found = NetworkSorter.from_bundles(*bundles, gain=1e-3).sort(louder)
    np.testing.assert_array_equal(found.train.index, NetworkSorter.from_bundles(*bundles).sort(trace).train.index)


def test_a_recording_of_the_other_polarity_is_turned_over(bundles, spike_folder):
    trace, sorter = load_trace(spike_folder / "D2.mat", fs_hz=FS_HZ), NetworkSorter.from_bundles(*bundles)
    found = sorter.sort(replace(trace, centred=-trace.centred))
    np.testing.assert_array_equal(found.train.index, sorter.sort(trace).train.index)
    assert "turned over" in found.notes[0]
    assert sorter.sort(trace).notes == ()


def test_pulses_are_no_spikes(bundles, spike_folder):
    trace, sorter = load_trace(spike_folder / "D2.mat", fs_hz=FS_HZ), NetworkSorter.from_bundles(*bundles)
    samples, pulses = trace.centred.copy(), np.arange(2_000, len(trace.centred) - 100, 2_500)
    samples[pulses[:, None] + np.arange(15)] += 500
    found = sorter.sort(replace(trace, centred=samples))
    assert np.abs(found.train.index[:, None] - pulses).min() > 60
    assert f"blanked: {len(pulses)} artefacts" in found.notes[0]
    assert len(found.train) > 0.8 * len(sorter.sort(trace).train)


def test_bundles_that_do_not_belong_together_are_refused(bundles):
    detection, classification = bundles
    with pytest.raises(BadInput, match="is a spike_classification bundle"):
        NetworkSorter.from_bundles(classification, classification)
    with pytest.raises(BadInput, match="names other neurons"):
        NetworkSorter.from_bundles(detection, replace(classification, classes=["a", "b"]))
    step = {**classification.steps[0], "params": {**classification.steps[0]["params"], "low_hz": 300.0}}
    with pytest.raises(BadInput, match="another band-pass"):
        NetworkSorter.from_bundles(detection, replace(classification, steps=[step]))


def test_threads_are_given_back():
    import torch

    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
