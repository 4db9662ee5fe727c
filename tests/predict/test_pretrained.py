"""The network that ships: found without being named, whatever the gain, and honest about where it comes from."""

import json

import numpy as np
import pytest
import torch

from pretrained import make_sleep_human
from src.models.bundle import load_bundle
from src.predict.sleep import HUMAN_BUNDLE, predict, stage
from src.preprocess.sleep.bandpower_files import LAYOUTS
from src.preprocess.sleep.epochs import EpochSet
from src.recordings.sleep.scoring_files import read_hypnogram
from src.simulate.sleep import write_night
from tests.nights import read_recording


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    psg, scoring = write_night(tmp_path_factory.mktemp("nights"), 3, 1, seed=5, hours=6.0)
    return read_recording(psg, ["EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal"]), read_hypnogram(scoring), psg


@pytest.mark.parametrize(
    ("name", "licence", "subjects", "author"),
    [("sleep_human", "ODC-By 1.0", 42, "Kemp"), ("sleep_mouse", "BSD-2-Clause", 1, "Katsageorgiou")],
)
def test_a_shipped_bundle_is_small_recorded_and_has_a_card(repository, name, licence, subjects, author):
    folder = repository / "pretrained" / name
    bundle = load_bundle(folder)
    assert (bundle.origin.recorded, bundle.origin.licence, bundle.origin.subjects) == (True, licence, subjects)
    assert sum(p.stat().st_size for p in folder.iterdir()) < 1_000_000
    card = folder.with_suffix(".md").read_text()
    assert f"{bundle.metrics['test/kappa']:.3f}" in card
    assert author in card
    assert bundle.weights_sha256 in card


def test_the_mouse_is_scored_with_its_bundle(repository, shared_data, tmp_path):
    whole = np.load(shared_data / "sleep_mouse_bandpower" / "sampleData.npz")
    baseline = whole["epochTime"][:, 1] == 1
    last = np.concatenate([np.flatnonzero(day)[-1000:] for day in (baseline, ~baseline)])  # nothing was trained on them
    recording = tmp_path / "sampleData.npz"
    np.savez(recording, **{name: whole[name][last] for name in ("bandsD", "epochsLinked", "epochTime")})
    bundle = load_bundle(repository / "pretrained" / "sleep_mouse")
    summary = predict(bundle, recording, tmp_path / "out", kind="mouse_bandpower", reference="beside")
    assert summary.exit_code == 0, summary.failures
    found = [json.loads(path.read_text())["scores"]["kappa"] for path in tmp_path.glob("out/*/agreement.json")]
    assert len(found) == 2
    assert min(found) > 0.8


def test_a_signal_is_scored_without_naming_anything_and_its_gain_does_not_matter(night):
    recording, scoring, _ = night
    found = stage(recording.samples, recording.fs_hz, recording.channels)
    truth = np.array(["W", "N1", "N2", "N3", "REM"])[scoring.stages[: len(found.stages)]]
    assert np.mean(found.stages[: len(truth)] == truth) > 0.6
    low, high = found.intervals["min_N3"]
    assert high - low > 60  # as wide as the errors of whole nights, not of epochs
    for gain in (0.2, 5.0):
        other = stage(recording.samples * np.float32(gain), recording.fs_hz, recording.channels, units="a.u.")
        assert np.mean(other.stages == found.stages) > 0.999


def test_channels_of_another_montage_are_found_and_named(night):
    recording, _, _ = night
    found = stage(recording.samples[[0, 2, 1]], recording.fs_hz, ["F3-M2", "EOG left", "EMG chin"])
    assert found.channels == ["F3-M2 + EOG left"]
    assert any("scored by: Network and YASA" in note and "not on F3-M2" in note for note in found.notes)
    part = recording.samples[[0, 2], : round(1800 * recording.fs_hz)]
    names, use = ["EEG Fpz-Cz", "EOG horizontal"], ("EEG Fpz-Cz", "none", "none")
    assert not stage(part, recording.fs_hz, names, use=use).notes
    (note,) = stage(part * np.float32(1e3), recording.fs_hz, names, use=use).notes
    assert "is the unit right?" in note


def test_a_file_is_scored_with_the_shipped_bundle(night, tmp_path):
    summary = predict(load_bundle(HUMAN_BUNDLE), night[2], tmp_path, kind="sleep_edf")
    assert summary.exit_code == 0, summary.failures
    (manifest,) = tmp_path.glob("*/manifest.json")
    assert json.loads(manifest.read_text())["bundle"]["origin"]["cohorts"] == ["Sleep-EDF Expanded (sleep cassette)"]


def test_a_training_gives_the_same_weights_again(monkeypatch, tmp_path):
    monkeypatch.setattr(make_sleep_human, "STEPS", 4)
    rng = np.random.default_rng(0)
    nights = []
    for number in range(3):
        stages = np.repeat(np.arange(5), 40).astype(np.int8)
        levels = rng.normal(stages[:, None, None, None], 1.0, (200, 3, 5, 1)).astype(np.float32)
        epochs = EpochSet(
            levels, stages, np.ones(200, bool), 30.0 * np.arange(200.0), np.zeros(1), LAYOUTS["bandpower"]
        )
        nights.append((f"{number}__1", str(number), epochs))
    first, second = (make_sleep_human.trained(nights, tmp_path, name).state_dict() for name in ("a", "b"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["members.0.head.weight"], first["members.1.head.weight"])
