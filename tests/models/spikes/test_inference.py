import numpy as np
import pytest
import torch

from src.models.bundle import build_network, load_bundle
from src.models.spike_scoring import detection
from src.models.spikes.decision import Decision
from src.models.spikes.inference import (
    detect,
    detect_again,
    neuron_probability,
    onset_probability,
    sort_trace,
    window_probability,
)
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.prepare import load_trace
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes

CHAIN = Conditioning(low_hz=20.0, order=1)


@pytest.fixture(scope="module")
def loaded(spike_models, spike_folder):
    networks = [load_bundle(spike_models[task][2]).network() for task in ("detector", "classifier")]
    return *networks, load_trace(spike_folder / "D2.mat", fs_hz=25_000.0).centred


@pytest.mark.parametrize("kind", ["spike_detector", "spike_detector_original"])
@pytest.mark.parametrize("piece", [500, 1_234, 10**6])
def test_pieces_join_to_one_call_on_the_whole_trace(kind, piece):
    torch.manual_seed(0)
    network = build_network(kind, {"experts": 1, "neurons": 3}).eval()
    trace = np.random.default_rng(0).standard_normal(3_000).astype(np.float32)
    offset = network.label_offset
    with torch.no_grad():
        whole = torch.sigmoid(network(torch.from_numpy(np.pad(trace, (0, offset)))[None, None]))[0, :, offset:].numpy()
    np.testing.assert_allclose(onset_probability(network, trace, 0, piece=piece), whole, atol=1e-6)


def test_one_pass_is_what_stride_1_windows_of_120_samples_give():
    torch.manual_seed(1)
    network = build_network("spike_detector", {"experts": 1, "neurons": 3}).eval()
    assert network.receptive_field <= 120
    trace = np.random.default_rng(1).standard_normal(2_000).astype(np.float32)
    windows = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(trace, 120).copy())[:, None]
    with torch.no_grad():
        slow = torch.sigmoid(network(windows))[..., 60].numpy().T  # the middle of every window
    fast = onset_probability(network, trace, 0)
    read_at = np.arange(len(windows)) + 60 - network.label_offset
    np.testing.assert_allclose(fast[:, read_at], slow, atol=1e-5)


def sort(loaded, centred, block=1 << 18, decision=None, threads=1):
    detector, classifier, _ = loaded
    decision = decision or Decision(0.4, 25, 0.5)
    return sort_trace(detector, classifier, CHAIN, centred, 0, decision, block=block, threads=threads)


def test_the_block_size_changes_nothing(loaded):
    whole = sort(loaded, loaded[2])
    for block, threads in ((20_000, 1), (33_333, 3)):
        blocks = sort(loaded, loaded[2], block, threads=threads)
        np.testing.assert_array_equal(blocks.train.index, whole.train.index)
        np.testing.assert_array_equal(blocks.train.unit, whole.train.unit)
        np.testing.assert_allclose(blocks.confidence, whole.confidence, atol=1e-3)
    assert len(whole.train) > 120


def test_a_later_start_shifts_the_spikes_and_nothing_else(loaded):
    whole, shift = sort(loaded, loaded[2]), 777
    later = sort(loaded, np.concatenate((np.zeros(shift, np.float32), loaded[2])))
    np.testing.assert_array_equal(later.train.index - shift, whole.train.index)
    np.testing.assert_array_equal(later.train.unit, whole.train.unit)


def test_looking_again_finds_spikes_under_others(loaded, spike_folder):
    detector, _, centred = loaded
    truth = read_spikes(spike_folder / "truth" / "D2.mat")
    decision = Decision(0.4, 25, 0.4)
    first = detect(detector, CHAIN, centred, 0, decision)
    again = detect_again(detector, CHAIN, centred, first, 0, decision)
    assert set(zip(first[0].index, first[0].unit, strict=True)) <= set(zip(again[0].index, again[0].unit, strict=True))
    once, twice = (detection(truth.index, f[0].index, 50) for f in (first, again))
    assert twice.recall > once.recall
    untouched = detect_again(detector, CHAIN, centred, first, 0, Decision(0.4, 25, None))
    assert untouched is first


def test_spikes_are_named_with_their_pairs_in_order(loaded, spike_folder):
    _, classifier, centred = loaded
    truth = read_spikes(spike_folder / "truth" / "D2.mat")
    probability = neuron_probability(classifier, CHAIN, centred, truth, 0)
    assert probability.shape == (len(truth), 6)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    right = probability[:, :-1].argmax(axis=1) + 1 == truth.unit
    assert right.mean() > 0.8
    some = np.arange(0, len(truth), 2)[:40]
    alone = neuron_probability(classifier, CHAIN, centred, SpikeTrain(truth.index, truth.unit), 0, block=30_000)
    np.testing.assert_allclose(alone[some], probability[some], atol=1e-3)


def test_only_spikes_with_other_neighbours_are_judged_again(loaded, spike_folder, monkeypatch):
    _, classifier, centred = loaded
    truth = read_spikes(spike_folder / "truth" / "D2.mat")
    probability = neuron_probability(classifier, CHAIN, centred, truth, 0)
    renamed = truth.unit.copy()
    renamed[100] = renamed[100] % 5 + 1
    changed = SpikeTrain(np.delete(truth.index, 50), np.delete(renamed, 50))
    afresh = neuron_probability(classifier, CHAIN, centred, changed, 0)
    judged = []
    monkeypatch.setattr(
        "src.models.spikes.inference.window_probability",
        lambda network, windows, expert: judged.append(len(windows)) or window_probability(network, windows, expert),
    )
    kept = neuron_probability(classifier, CHAIN, centred, changed, 0, known=(truth, probability))
    np.testing.assert_allclose(kept, afresh, atol=1e-6)
    assert 2 <= sum(judged) < 20


def test_silence_and_a_handful_of_samples_give_no_spikes(loaded):
    for length in (1, 50, 5_000):
        found = sort(loaded, np.zeros(length, np.float32))
        assert len(found.train) == len(found.strength) == len(found.confidence) == 0


def test_spikes_held_for_noise_can_be_dropped(loaded):
    detector, classifier, centred = loaded
    kept = sort_trace(detector, classifier, CHAIN, centred, 0, Decision(0.1, 25), reject=1.0)
    dropped = sort_trace(detector, classifier, CHAIN, centred, 0, Decision(0.1, 25), reject=0.3)
    assert len(dropped.train) < len(kept.train)
    named = sort_trace(detector, None, CHAIN, centred, 0, Decision(0.4, 25))
    assert set(np.unique(named.train.unit)) <= {1, 2, 3, 4, 5}
