"""A small network trained on simulated nights, and what a user does to a recording before it is scored."""

import json
import re
from dataclasses import replace

import edfio
import numpy as np
import pytest
import torch
from torch.nn import functional

from src.models.bundle import export_bundle, load_bundle
from src.models.sleep.networks import SequenceSettings
from src.predict.sleep import predict, stage
from src.preprocess.sleep.epochs import EpochSettings, epochs_of
from src.preprocess.sleep.night_normalization import NIGHT_VIEW_VERSION, night_view
from src.preprocess.sleep.prepare import SLEEP_EPOCHS
from src.recordings.sleep.channels import resample
from src.recordings.sleep.scoring_files import read_hypnogram
from src.signals import HUMAN_STAGES, BadInput, Origin, SignalSpec
from src.simulate.sleep import write_night
from tests.models.test_bundle import describe
from tests.nights import read_recording
from tests.tables import read_csv

CHANNELS = ("EEG Fpz-Cz", "EEG Pz-Oz")
SETTINGS = EpochSettings.from_params({"channels": list(CHANNELS), "features": {"kind": "bandpower"}, "margin_s": None})
VIEWS = ["absolute", "night"]
AXES = ("epoch", "channel", "frequency", "time")
FREQS = tuple(SETTINGS.features.freqs_hz.tolist())
SHAPE = {"n_channels": 2, "n_freqs": 10, "n_frames": 1, "n_classes": 5}
ARGS: dict = SHAPE | {"window_epochs": 40, "width": 24, "hidden": 16}


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights")
    return [write_night(folder, subject, 1, seed=1, hours=3.0) for subject in range(4)]


@pytest.fixture(scope="module")
def bundle(nights, tmp_path_factory):
    torch.manual_seed(0)
    levels, stages = [], []
    for psg, scoring in nights[1:]:
        epochs = epochs_of(read_recording(psg, CHANNELS), None, SETTINGS)
        levels.append(torch.from_numpy(night_view(epochs.features, epochs.usable, VIEWS)))
        stages.append(torch.from_numpy(read_hypnogram(scoring).stages.astype(np.int64))[: len(levels[-1])])
    network = SequenceSettings(**ARGS, dropout=0.1).network()
    pooled = torch.cat(levels)
    network.standardize.adopt(pooled.mean((0, 3)), pooled.std((0, 3)))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-2)
    windows, labels = pooled.unflatten(0, (-1, 40)), torch.cat(stages).unflatten(0, (-1, 40))
    for _ in range(40):
        logits = network(windows)
        optimizer.zero_grad()
        functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1).backward()
        optimizer.step()
    described = describe(
        kind="sleep_sequence",
        network_args=ARGS | {"dropout": 0.1},
        signal=SignalSpec(CHANNELS, 100.0, 30.0, "dB re variance", AXES, (40, 2, 10, 1), FREQS),
        steps=[
            SLEEP_EPOCHS.describe(SETTINGS.to_params("sleep_edf")),
            {"step": "night_view", "version": NIGHT_VIEW_VERSION, "params": {"views": VIEWS}},
        ],
        classes=list(HUMAN_STAGES),
        metrics={"test/kappa": 0.8, "test/macro_f1": 0.75},
        origin=Origin(True, ("nights",), 4, 8.0),
    )
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    return load_bundle(export_bundle(folder, described, network.state_dict()))


def score(bundle, source, out, **options):
    summary = predict(bundle, source, out, **options)
    assert summary.exit_code == 0, summary.failures
    (name,) = summary.values
    rows = read_csv(out / name / "hypnogram.csv")
    return [row["stage"] for row in rows], "\n".join(summary.values[name]), out / name


def same(first, second):
    return np.mean([a == b for a, b in zip(first, second, strict=True)])


def test_a_night_gets_a_report_and_files_for_other_programs(bundle, nights, tmp_path):
    stages, printed, folder = score(bundle, nights[0][0], tmp_path, kind="sleep_edf", reference="beside")
    assert len(stages) == 360
    assert "agreement  κ" in printed
    assert "-Hypnogram.edf: EDF+ annotations" in printed
    found = json.loads((folder / "agreement.json").read_text())
    assert found["scores"]["kappa"] > 0.5
    assert sorted(p.name for p in folder.iterdir()) == [
        "agreement.json", "events.json", "events.tsv", "hypnogram.csv", "hypnogram.edf", "manifest.json",
        "night.png", "report.html",
    ]  # fmt: skip
    annotated = read_hypnogram(folder / "hypnogram.edf")
    assert [HUMAN_STAGES[s] for s in annotated.stages] == stages
    assert annotated.start == read_recording(nights[0][0], CHANNELS).start
    events = (folder / "events.tsv").read_text().splitlines()
    assert events[0].split("\t")[:3] == ["onset", "duration", "trial_type"]
    assert [line.split("\t")[2] for line in events[1:]] == stages


def test_what_a_prediction_says_of_its_network(bundle, nights, tmp_path):
    _, _, folder = score(bundle, nights[0][0], tmp_path, kind="sleep_edf")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["bundle"]["origin"] == {
        "recorded": True, "cohorts": ["nights"], "subjects": 4, "hours": 8.0, "licence": "not stated", "citation": "",
    }  # fmt: skip
    assert manifest["intervals"]["tst_min"][0] <= manifest["statistics"]["tst_min"] + 30


def test_a_recording_that_is_not_what_the_bundle_reads_is_refused(bundle, nights, tmp_path):
    other = replace(bundle, signal=replace(bundle.signal, window_s=10.0))
    summary = predict(other, nights[0][0], tmp_path / "out", kind="sleep_edf")
    assert "epoch length (s): the recording has 30.0, the bundle reads 10.0" in str(summary.failures)
    assert not list((tmp_path / "out").glob("*/*"))


def test_one_channel_cannot_stand_for_two(bundle, nights, tmp_path):
    summary = predict(bundle, nights[0][0], tmp_path, channels=["EEG Fpz-Cz", "EEG Fpz-Cz"])
    assert "twice in one group" in str(summary.failures)


def test_a_signal_in_memory_gets_the_stages_of_the_file(bundle, nights, tmp_path):
    stages, _, folder = score(bundle, nights[0][0], tmp_path, kind="sleep_edf")
    recording = read_recording(nights[0][0], CHANNELS)
    found = stage(recording.samples, recording.fs_hz, CHANNELS, bundle=bundle)
    lit = stage(recording.samples, recording.fs_hz, CHANNELS, bundle=bundle, lights=(600, "6000"))
    assert (lit.statistics["trt_min"], lit.stages.tolist()) == (90.0, found.stages.tolist())
    with pytest.raises(BadInput, match="is a clock time, but the recording states no start"):
        stage(recording.samples, recording.fs_hz, CHANNELS, bundle=bundle, lights=("23:10", None))
    assert found.stages.tolist() == stages
    assert found.statistics == json.loads((folder / "manifest.json").read_text())["statistics"]
    assert "trained on recordings: nights" in found.origin
    volts = stage(recording.samples * 1e-6, recording.fs_hz, CHANNELS, units="V", bundle=bundle)
    np.testing.assert_allclose(volts.probabilities, found.probabilities, atol=1e-3)
    assert "is the unit right? (units='V')" in stage(recording.samples * 1e-6, 100.0, CHANNELS, bundle=bundle).notes[0]
    with pytest.raises(BadInput, match=r"give .channel, time., fs_hz and a name"):
        stage(recording.samples[0], 100.0, "EEG", bundle=bundle)
    with pytest.raises(BadInput, match=r"night\.edf: is a path and no signal; type: python infer.py input=night"):
        stage("night.edf", bundle=bundle)
    with pytest.raises(BadInput, match="values of type complex64; give real numbers"):
        stage(recording.samples.astype(np.complex64), 100.0, CHANNELS, bundle=bundle)
    with pytest.raises(BadInput, match="names 1 channel"):
        stage(recording.samples, 100.0, CHANNELS, use="C3", bundle=bundle)


def test_a_raw_of_mne_is_taken_as_it_is(bundle, nights):
    mne = pytest.importorskip("mne")
    recording = read_recording(nights[0][0], CHANNELS)
    info = mne.create_info(["EEG Pz-Oz", "EMG", "EEG Fpz-Cz"], recording.fs_hz, ["eeg", "emg", "eeg"])
    rows = np.stack([recording.samples[1], recording.samples[1], recording.samples[0]]).astype(float) * 1e-6
    raw = mne.io.RawArray(rows, info, verbose="ERROR")
    found = stage(raw, bundle=bundle)
    raw.set_annotations(mne.Annotations([600, 6000], [0, 0], ["Lights off", "lights_on"]))
    assert stage(raw, bundle=bundle).statistics["trt_min"] == 90.0
    raw.annotations.append(7200, 0, "Lights off")
    assert stage(raw, bundle=bundle, lights=(None, 6000)).statistics["trt_min"] == 100.0
    raw.set_meas_date(1_583_103_600)  # 2020-03-01 23:00 UTC
    assert stage(raw, bundle=bundle, lights=("23:20", None)).statistics["trt_min"] == 80.0
    assert same(stage(raw, recording.fs_hz, info["ch_names"], units="V", bundle=bundle).stages, found.stages) == 1.0
    for wrong, words in (
        ({"fs_hz": 256.0}, f"fs_hz: is 256.0 where the Raw states {recording.fs_hz}"),
        ({"channels": ["C3", "EMG", "C4"]}, "channels: is .*C3.* where the Raw states .*Pz-Oz"),
        ({"units": "uV"}, "units: is uV where the Raw states V"),
    ):
        with pytest.raises(BadInput, match=words):
            stage(raw, **wrong, bundle=bundle)
    plain = stage(recording.samples, recording.fs_hz, CHANNELS, bundle=bundle)
    assert same(found.stages, plain.stages) > 0.99


def test_lights_come_from_options_and_are_refused_when_they_are_none(bundle, nights, tmp_path):
    _, _, folder = score(bundle, nights[0][0], tmp_path, kind="sleep_edf", lights_off=600, lights_on="6000")
    assert json.loads((folder / "manifest.json").read_text())["statistics"]["trt_min"] == 90.0
    for wrong in ("late", "25:10", "22:60", "-5"):
        with pytest.raises(BadInput, match=f"options.lights_off: is '{wrong}'; give a clock time"):
            predict(bundle, nights[0][0], tmp_path / "b", lights_off=wrong)
    for lights, words in (({"lights_off": 1e6}, "lights_off: is 1000000.0, and the recording lasts .* h"), (
        {"lights_off": 600, "lights_on": 300}, "lights_on: is 300 s after the start, lights off 600 s")):  # fmt: skip
        (failure,) = predict(bundle, nights[0][0], tmp_path / "b", kind="sleep_edf", **lights).failures
        assert re.search(words, failure.reason)
    with pytest.raises(BadInput, match=r"nope\.csv: does not exist"):
        predict(bundle, nights[0][0], tmp_path / "b", reference=str(tmp_path / "nope.csv"))


@pytest.fixture(scope="module")
def recorded(bundle, nights):
    """The samples of a night, and its stages."""
    samples = read_recording(nights[0][0], CHANNELS).samples
    return samples, stage(samples, 100.0, CHANNELS, bundle=bundle).stages.tolist()


def test_the_order_of_channels_does_not_matter(bundle, recorded):
    samples, plain = recorded
    assert stage(samples[::-1], 100.0, CHANNELS[::-1], bundle=bundle).stages.tolist() == plain


def test_gain_and_rate_hardly_matter(bundle, recorded):
    samples, plain = recorded
    assert same(stage(samples * np.float32(1e-6), 100.0, CHANNELS, bundle=bundle).stages, plain) > 0.99
    assert same(stage(resample(samples, 100.0, 128.0), 128.0, CHANNELS, bundle=bundle).stages, plain) >= 0.95


@pytest.mark.parametrize(("seconds", "least"), [(300, 0.95), (10, 0.9)])
def test_when_the_recording_starts_hardly_matters(bundle, recorded, seconds, least):
    samples, plain = recorded
    stages = stage(samples[:, seconds * 100 :], 100.0, CHANNELS, bundle=bundle).stages
    shifted = plain[seconds // 30 :]
    assert same(stages[: len(shifted) - 1], shifted[: len(stages)][: len(shifted) - 1]) >= least


def test_channels_vote_and_may_be_absent(bundle, nights, tmp_path):
    one = score(bundle, nights[0][0], tmp_path / "a", channels=["EEG Fpz-Cz", "none"])
    assert "report" in one[1]
    voted = score(bundle, nights[0][0], tmp_path / "b", channels=["EEG Fpz-Cz", "none", *CHANNELS])
    manifest = json.loads((voted[2] / "manifest.json").read_text())
    assert manifest["channels"] == ["EEG Fpz-Cz", "EEG Fpz-Cz + EEG Pz-Oz"]
    summary = predict(bundle, nights[0][0], tmp_path / "c", channels=["EEG Fpz-Cz", "none", "EEG Pz-Oz"])
    assert summary.exit_code
    assert "give one for each of" in str(summary.failures)
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").glob("*/*"))


def test_where_the_signal_is_missing_nothing_is_guessed(bundle, nights, tmp_path):
    psg = nights[0][0]
    recording = read_recording(psg, CHANNELS)
    rows = recording.samples.astype(np.float64)
    rows[:, 100 * 30 * 100 : 110 * 30 * 100] = 0.0
    signals = [
        edfio.EdfSignal(row[:-1500], 100.0, label=name, physical_dimension="uV", physical_range=(-500, 500))
        for name, row in zip(CHANNELS, np.clip(rows, -499, 499), strict=True)
    ]
    edfio.Edf(signals, data_record_duration=1.0).write(tmp_path / "gap.edf")
    stages, printed, _ = score(bundle, tmp_path / "gap.edf", tmp_path / "a")
    assert stages[100:110] == ["unscored"] * 10
    assert stages[-1] == "unscored"
    assert stages.count("unscored") == 11
    assert "does not move" in printed
