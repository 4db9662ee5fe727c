import numpy as np
import pytest

from src.models.spike_scoring import chance_random, score
from src.models.spikes.baselines import (
    BankSorter,
    Labelled,
    TemplateMatcher,
    ThresholdSorter,
    baselines,
    best_threshold,
    remembered,
)
from src.preprocess.spikes.filters import bandpass
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.spikes import FS_HZ, NEURONS, background, mean_peak, simulate

TEMPLATES = np.stack([n.at(np.arange(-70, 150)) for n in NEURONS])
NOISE = background(10.0, 1.0, mean_peak())


def recording(seed, sign=1.0):
    trace, train = simulate(350, 10.0, seed, duration_s=6)
    return Labelled(sign * bandpass(trace, FS_HZ, 20.0, None, 1), train)


@pytest.fixture(scope="module")
def scores():
    tuning, (trace, train, _) = [recording(1)], recording(2)
    found = {}
    for name, baseline in baselines(TEMPLATES, 70, NOISE).items():
        baseline.tune(tuning)
        sorted_ = baseline.sort(trace)
        found[name] = score((train.index, train.unit), (sorted_.index, sorted_.unit), len(trace))
    return found, chance_random(train.index, len(train), len(trace), 50)


def test_every_baseline_is_far_above_chance_and_the_bank_is_the_best(scores):
    found, chance = scores
    assert len(found) == 4
    for result in found.values():
        assert result.loose.f1 > 0.85 > 3 * chance
        assert result.strict.f1 > 0.75
    best = found["filter bank + subtraction"]
    assert best.loose.f1 == max(r.loose.f1 for r in found.values())
    assert best.class_accuracy > 0.85
    assert found["threshold + nearest template"].class_accuracy > 0.4


def test_the_threshold_sorter_follows_the_spikes_sign():
    trace, train, _ = recording(3, sign=-1.0)
    sorter = ThresholdSorter(-TEMPLATES[:, 50:114], 20, FS_HZ, threshold=4.0, cluster=False)
    found = sorter.sort(trace)
    assert score((train.index, train.unit), (found.index, found.unit), len(trace)).loose.f1 > 0.8


@pytest.mark.parametrize("kind", ["threshold", "matcher", "bank"])
def test_silence_gives_an_empty_train(kind):
    sorter = {
        "threshold": ThresholdSorter(TEMPLATES[:, 50:114], 20, FS_HZ),
        "matcher": TemplateMatcher(TEMPLATES[:, 50:114], 20, threshold=1.0),
        "bank": BankSorter(TEMPLATES, 70, NOISE),
    }[kind]
    assert len(sorter.sort(np.zeros(5_000, np.float32))) == 0


def test_a_neuron_that_was_never_seen_is_never_named():
    absent = TEMPLATES.copy()
    absent[2] = 0
    trace = recording(4).trace
    for baseline in baselines(absent, 70, NOISE).values():
        baseline.tune([recording(5)])
        assert 3 not in baseline.sort(trace).unit


def test_the_best_threshold_is_the_best_and_work_is_done_once():
    done = []
    spikes = remembered(lambda trace: done.append(1) or np.array([100, 200, 400]))
    trial = Labelled(np.zeros(500), SpikeTrain(np.array([100, 200]), np.array([1, 1])))
    assert best_threshold([trial], [1, 2, 3], lambda x, t: spikes(x)[: int(t)]) == 2
    assert len(done) == 1
