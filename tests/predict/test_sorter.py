from dataclasses import replace

import pytest

from src.models.bundle import load_bundle
from src.predict.sorter import Sorter, one_thread
from src.preprocess.spikes.prepare import load_trace
from src.signals import BadInput


@pytest.fixture(scope="module")
def bundles(spike_models):
    return [load_bundle(spike_models[task][2]) for task in ("detector", "classifier")]


def test_a_recording_finds_the_network_trained_for_it(bundles, spike_folder):
    sorter = Sorter.from_bundles(*bundles)
    for name in ("D2", "D5"):
        choice = sorter.choose(load_trace(spike_folder / f"{name}.mat", fs_hz=25_000.0), None)
        assert sorter.targets[choice.expert] == name
        assert choice.gain == 1.0
        assert choice.distance < 1e-3


def test_without_a_classifier_the_detector_names_the_neurons(bundles, spike_folder):
    sorter = Sorter.from_bundles(bundles[0], None)
    trace = load_trace(spike_folder / "D2.mat", fs_hz=25_000.0)
    found = sorter.sort(trace, sorter.choose(trace, None))
    assert len(found.train) > 100
    assert len(set(found.train.unit)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: replace(b, classes=b.classes[:3]), "names other neurons"),
        (lambda b: replace(b, signal=replace(b.signal, fs_hz=24_000.0)), "trained at 24000 Hz"),
        (lambda b: replace(b, decision={"targets": {"D6": {}}}), "trained for other targets"),
        (
            lambda b: replace(b, steps=[b.steps[0] | {"params": b.steps[0]["params"] | {"low_hz": 300.0}}]),
            "another band-pass",
        ),
        (lambda b: replace(b, steps=[b.steps[0] | {"version": 9}]), "needs version 9"),
        (
            lambda b: replace(b, steps=[b.steps[0] | {"params": {"width": 1}}]),
            "does not say how recordings are conditioned",
        ),
    ],
)
def test_bundles_that_were_not_made_for_each_other_are_refused(bundles, change, message):
    with pytest.raises(BadInput, match=message):
        Sorter.from_bundles(bundles[0], change(bundles[1]))


def test_sorting_takes_one_thread_and_gives_back_the_others():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
