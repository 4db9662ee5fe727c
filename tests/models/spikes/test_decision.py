import numpy as np
import pytest

from src.models.spikes.decision import THRESHOLDS, Decision, Trial, merit, tune_detection, tune_second
from src.recordings.extracellular.spike_trains import SpikeTrain

FS = 25_000.0


def recording(seed, good=0.6, bad=0.4, n=20_000):
    """Curves in which every true spike reaches ``good`` and every false one ``bad``."""
    rng = np.random.default_rng(seed)
    places = np.arange(100, n - 100, 100)
    true = np.sort(rng.choice(places, len(places) // 2, replace=False))
    probability = np.zeros((1, n), np.float32)
    for at in places:
        probability[0, at - 3 : at + 4] = good if at in true else bad
    return probability, SpikeTrain(true, np.ones(len(true), np.int64))


def test_the_threshold_lies_between_what_is_true_and_what_is_not():
    decision = tune_detection([Trial(*recording(seed), None) for seed in range(2)], width=7, fs_hz=FS)
    assert 0.4 < decision.threshold <= 0.6
    assert decision.merit == 1
    assert not decision.on_edge


@pytest.mark.parametrize(("good", "bad"), [(0.12, 0.05), (0.97, 0.8)])
def test_a_grid_with_its_optimum_on_the_edge_is_widened(good, bad):
    decision = tune_detection([Trial(*recording(3, good, bad), None)], width=7, fs_hz=FS)
    assert decision.merit == 1
    assert not THRESHOLDS[0] <= decision.threshold <= THRESHOLDS[-1]
    assert bad < decision.threshold <= good


def test_the_refractory_period_follows_the_neurons():
    n = 20_000
    true = np.arange(200, n - 200, 200)
    probability = np.zeros((1, n), np.float32)
    for at in true:  # every spike is followed, 18 samples on, by an echo as clear as itself but a little lower
        probability[0, at - 3 : at + 4] = 0.9
        probability[0, at + 15 : at + 22] = 0.85
    trial = Trial(probability, SpikeTrain(true, np.ones_like(true)), None)
    decision = tune_detection([trial], width=7, fs_hz=FS)
    assert decision.refractory >= 18
    assert decision.merit == 1


def test_nothing_to_find_is_no_reason_to_fail():
    decision = tune_detection([Trial(np.zeros((1, 500), np.float32), SpikeTrain.empty(), None)], width=7, fs_hz=FS)
    assert decision.merit == 0
    assert 0 < decision.threshold < 1


def test_a_second_look_is_taken_where_it_pays_and_only_there():
    first = SpikeTrain(np.array([100, 500]), np.array([1, 1])), np.ones(2)
    truth = SpikeTrain(np.array([100, 300, 500]), np.array([1, 2, 1]))
    residual = np.zeros((2, 1_000), np.float32)
    residual[1, 297:304] = 0.75
    decision = Decision(0.4, 25, merit=0.8)
    better = tune_second([(first, None)], [Trial(residual, truth, None)], decision, width=7)
    assert better.second is not None
    assert better.second <= 0.75
    assert better.merit == 1
    nothing = Trial(np.zeros((2, 1_000), np.float32), truth, None)
    silent = tune_second([(first, None)], [nothing], decision, width=7)
    assert silent == decision
    assert Decision(**better.to_dict()) == better


def test_without_full_labels_the_threshold_is_still_the_best():
    """Labelled spikes in a recording that has as many of its own, and false ones below them."""
    (own, _), (added, truth) = recording(5, good=0.7, bad=0.3), recording(6, good=0.7, bad=0.0)
    own = np.roll(own, 50, axis=1)
    decision = tune_detection([Trial(np.maximum(own, added), truth, own)], width=7, fs_hz=FS)
    assert 0.3 < decision.threshold <= 0.7
    # Were what is found beside the labelled spikes held for false, precision could not exceed a half.
    assert decision.merit == pytest.approx(1, abs=0.05)


def test_merit_is_f1_with_labels_and_grows_with_precision_and_recall_without():
    truth, found = np.array([100, 500]), np.array([100, 900])
    assert merit([truth], [found], [None]) == 0.5
    many, few = np.arange(0, 4_000, 50), np.arange(0, 4_000, 100)
    assert merit([truth], [truth], [few]) > merit([truth], [truth], [many]) > merit([truth], [found], [many])
    assert merit([np.zeros(0, int)], [np.zeros(0, int)], [None]) == 0
