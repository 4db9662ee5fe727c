from dataclasses import replace

import numpy as np
import pytest

from src.models.spikes.scores import detection, score
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.sorting import BankSorter, best_threshold, posterior, refractory_samples
from src.preprocess.spikes.trace import as_trace, load_trace
from src.preprocess.spikes.waveforms import load_labelled
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes
from src.signals import BadInput
from src.simulate.spikes import FS_HZ

CHAIN = Conditioning(low_hz=20.0)


@pytest.fixture(scope="module")
def sorter(spike_folder):
    return BankSorter.from_labelled(load_labelled(spike_folder / "D1.mat", CHAIN), CHAIN)


@pytest.mark.parametrize(("name", "f1", "named"), [("D2", 0.97, 0.93), ("D5", 0.80, 0.80)])
def test_a_recording_is_sorted_with_the_neurons_of_another(sorter, spike_folder, name, f1, named):
    trace = load_trace(spike_folder / f"{name}.mat", fs_hz=FS_HZ)
    found = sorter.sort(trace)
    truth = read_spikes(spike_folder / "truth" / f"{name}.mat")
    result = score((truth.index, truth.unit), (found.train.index, found.train.unit), len(trace.centred))
    assert result.loose.f1 > f1
    assert result.class_accuracy > named
    assert ((found.strength > 0) & (found.strength <= 1)).all()
    assert ((found.confidence > 0) & (found.confidence <= 1 + 1e-6)).all()


def test_blocks_do_not_change_the_answer(sorter, spike_folder, monkeypatch):
    trace = load_trace(spike_folder / "D2.mat", fs_hz=FS_HZ)
    whole = sorter.sort(trace)
    monkeypatch.setattr("src.preprocess.spikes.sorting.BLOCK", 40_000)
    pieces = sorter.sort(trace)
    same = len(np.intersect1d(whole.train.index, pieces.train.index))
    assert same >= 0.99 * max(len(whole.train), len(pieces.train))


def test_the_background_is_measured_without_the_spikes(sorter, spike_folder):
    trace = load_trace(spike_folder / "D2.mat", fs_hz=FS_HZ)
    bandpassed = CHAIN.bandpassed(trace.centred)
    noise = sorter.measure(bandpassed, trace.usable)
    truth = read_spikes(spike_folder / "truth" / "D2.mat")
    away = np.ones(len(bandpassed), bool)
    for onset in truth.index:
        away[max(onset - 20, 0) : onset + 120] = False
    assert noise.sigma(300, 4000) < 0.6 * bandpassed.std()
    assert noise.sigma() == pytest.approx(bandpassed[away].std(), rel=0.15)


def test_posteriors_fit_their_rate_to_the_recording():
    clear, doubtful = np.full(50, 30.0), np.full(5_000, 2.0)
    probability = posterior(np.concatenate((clear, doubtful)), 1_000_000, 1e-3)
    assert (probability[:50] > 0.99).all()
    assert (probability[50:] < 0.05).all()
    assert len(posterior(np.zeros(0), 1_000, 1e-3)) == 0


def test_the_threshold_has_the_largest_expected_f1():
    probability = np.array([0.99, 0.95, 0.9, 0.5, 0.2, 0.1, 0.05])
    limit = best_threshold(probability, 0.0)
    kept = probability[probability >= limit]
    f1 = 2 * kept.sum() / (len(kept) + probability.sum())
    for other in probability:
        rest = probability[probability >= other]
        assert f1 >= 2 * rest.sum() / (len(rest) + probability.sum())
    assert best_threshold(np.zeros(0), 3.0) == 1.0


def test_the_refractory_period_is_the_shortest_interval_within_bounds():
    train = SpikeTrain.sorted(np.arange(0, 10_000, 40), np.ones(250))
    assert refractory_samples(train, FS_HZ) == 36
    assert refractory_samples(SpikeTrain.sorted([5], [1]), FS_HZ) == 12


@pytest.fixture(scope="module")
def usual(sorter, spike_folder):
    trace = load_trace(spike_folder / "D2.mat", fs_hz=FS_HZ)
    return trace, sorter.sort(trace).train


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda x: -x, "turned over"),
        (lambda x: 1e-3 * x, "scaled by"),
        (lambda x: 0.5 * x, "scaled by 2 to"),
        (lambda x: np.round(300 * x), "scaled by"),
        (lambda x: -1e3 * x, "turned over"),
        (lambda x: x + np.sin(2 * np.pi * 50 / FS_HZ * np.arange(len(x))), "mains hum"),
        (lambda x: x + 500.0 * (np.arange(len(x)) % 30_011 < 10), "artefacts"),
        (lambda x: np.where(np.arange(len(x)) % 10_000 < 3, 500.0, x), "artefacts up to"),  # as often as a mains line
    ],
)
def test_what_can_be_repaired_is_and_is_said(sorter, usual, damage, note):
    trace, expected = usual
    found = sorter.sort(replace(trace, centred=damage(trace.centred).astype(np.float32)))
    assert any(note in said for said in found.notes)
    result = score((expected.index, expected.unit), (found.train.index, found.train.unit), len(trace.centred))
    assert result.strict.f1 > 0.96
    assert result.class_accuracy > 0.96


def test_a_recording_that_is_partly_silent_is_sorted_without_a_word(sorter, spike_folder, usual, tmp_path):
    samples = usual[0].centred.copy()
    samples[40_000:90_000] = 0
    np.save(tmp_path / "D2.npy", samples)
    found = sorter.sort(load_trace(tmp_path / "D2.npy", fs_hz=FS_HZ))
    assert found.notes == ()
    outside = (usual[1].index < 39_000) | (usual[1].index > 91_000)
    away = found.train.index[(found.train.index < 39_000) | (found.train.index > 91_000)]
    assert detection(usual[1].index[outside], away, 10).f1 > 0.97


@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_a_short_recording_is_sorted_as_its_stretch_of_a_long_one(sorter, usual, seconds):
    trace, expected = usual
    n_samples = round(seconds * FS_HZ)
    found = sorter.sort(as_trace(trace.centred[:n_samples], FS_HZ, "short"))
    assert any("0.2 s long" in note for note in found.notes) == (seconds < 0.5)
    assert detection(expected.index[expected.index < n_samples - 50], found.train.index, 10).f1 > 0.9


def test_amplitudes_that_no_gain_explains_are_refused(sorter, usual):
    noise = 1e4 * np.random.default_rng(0).standard_normal(len(usual[0].centred))
    with pytest.raises(BadInput, match=r"times those of the labelled recording.*give options\.gain"):
        sorter.sort(replace(usual[0], centred=noise.astype(np.float32)))
