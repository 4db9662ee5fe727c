import re
from dataclasses import replace

import edfio
import numpy as np
import pytest

from src.models.bundle import require_contract
from src.predict.sleep_input import InputOptions, find_inputs, read_input
from src.preprocess.sleep.epochs import EpochSettings
from src.preprocess.sleep.night_normalization import NIGHT_VIEW
from src.preprocess.sleep.prepare import SLEEP_EPOCHS
from src.signals import HUMAN_STAGES, BadInput, SignalSpec
from src.simulate.sleep import write_night
from tests.models.test_bundle import describe
from tests.nights import read_recording

SETTINGS = EpochSettings.from_params(
    {"channels": ["EEG Fpz-Cz", "EEG Pz-Oz"], "features": {"kind": "bandpower"}, "aliases": {"EEG Fpz-Cz": ["F4-M1"]}}
)
BUNDLE = describe(
    kind="sleep_sequence",
    network_args={},
    signal=SignalSpec(SETTINGS.channels, 100.0, 30.0, "dB re variance", ("channel", "frequency", "time"), (2, 5, 1)),
    steps=[SLEEP_EPOCHS.describe(SETTINGS.to_params("sleep_edf"))],
    classes=list(HUMAN_STAGES),
)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights")
    write_night(folder, 0, 1, seed=0, hours=2.0)
    (found,) = find_inputs(folder, "sleep_edf")
    return found


def test_signal_sanity_start_and_reference_come_together(night):
    given = read_input(BUNDLE, night, InputOptions(reference="beside"))
    assert given.groups[0].features.shape == (240, 2, 5, 1)
    assert [report.channel for report in given.signal] == ["EEG Fpz-Cz", "EEG Pz-Oz"]
    assert given.start is not None
    assert len(given.reference) == 240
    assert given.level.decibels.shape == (240, len(given.level.freqs_hz))


def test_an_absent_channel_is_nan_and_the_others_are_as_before(night):
    both = read_input(BUNDLE, night, InputOptions()).groups[0]
    one = read_input(BUNDLE, night, InputOptions(channels=("none", "EEG Pz-Oz"))).groups[0]
    assert np.isnan(one.features[:, 0]).all()
    np.testing.assert_allclose(one.features[:, 1], both.features[:, 1])
    with pytest.raises(BadInput, match="names no channel"):
        read_input(BUNDLE, night, InputOptions(channels=("none", "none")))


def test_a_scale_reaches_the_sanity_report(night):
    small = read_input(BUNDLE, night, InputOptions(scale=1e-6))
    assert any("is the unit right?" in finding for report in small.signal for finding in report.findings)


def test_a_channel_that_is_not_there_lists_those_that_are(night):
    with pytest.raises(BadInput, match="has no channel 'C3-M2'; choose from: EEG Fpz-Cz"):
        read_input(BUNDLE, night, InputOptions(channels=("C3-M2", "C4-M1")))


def test_a_hypnogram_elsewhere_may_be_named(night, tmp_path):
    (tmp_path / "score.txt").write_text("W\n" * 100 + "N2\n" * 140)
    given = read_input(BUNDLE, night, InputOptions(reference=str(tmp_path / "score.txt")))
    assert given.reference.tolist() == [0] * 100 + [2] * 140
    assert given.reference_read == "score.txt: one stage a line, epochs of 30 s, 100% of the recording scored"
    (tmp_path / "score.txt").write_text("0\n" * 100 + "2\n" * 140)
    with pytest.raises(BadInput, match=r"say which: options\.stage_coding=aasm"):
        read_input(BUNDLE, night, InputOptions(reference=str(tmp_path / "score.txt")))


def test_bands_relative_to_the_recording_need_no_more_than_50_hz(night, tmp_path):
    recording = read_recording(night.psg[0], SETTINGS.channels)
    signals = [
        edfio.EdfSignal(row[::2], 50.0, label=name, physical_dimension="uV", physical_range=(-1000, 1000))
        for name, row in zip(SETTINGS.channels, recording.samples.astype(float), strict=True)
    ]
    edfio.Edf(signals, data_record_duration=1.0).write(tmp_path / "slow.edf")
    (slow,) = find_inputs(tmp_path / "slow.edf", "edf_folder")
    with pytest.raises(BadInput, match="50 Hz is too low, up to 30 Hz is analysed"):
        read_input(BUNDLE, slow, InputOptions())
    relative = replace(
        BUNDLE, steps=[*BUNDLE.steps, {"step": NIGHT_VIEW, "version": 1, "params": {"views": ["night"]}}]
    )
    given = read_input(relative, slow, InputOptions())
    assert (
        given.notes[0]
        == "EEG Fpz-Cz, EEG Pz-Oz: the network reads up to 30 Hz, which this sampling rate does not reach"
    )
    assert np.isfinite(given.groups[0].features).all()


def test_names_of_stages_in_a_hypnogram_may_be_the_users_own(night, tmp_path):
    (tmp_path / "score.txt").write_text("awake\n" * 100 + "kernschlaf\n" * 140)
    named = InputOptions(reference=str(tmp_path / "score.txt"), stage_names={"kernschlaf": "N2"})
    assert read_input(BUNDLE, night, named).reference.tolist() == [0] * 100 + [2] * 140
    with pytest.raises(BadInput, match="has unknown stages: 'kernschlaf'"):
        read_input(BUNDLE, night, InputOptions(reference=str(tmp_path / "score.txt")))


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        find_inputs(tmp_path / "absent.edf", "edf_folder")
    with pytest.raises(BadInput, match=r"epochs\.h5"):
        find_inputs(tmp_path, "prepared")
    with pytest.raises(BadInput, match=r"'edf' is no kind of recording; choose from: .*dreams.*prepared, bandpower"):
        find_inputs(tmp_path, "edf")
    (tmp_path / "00__1.npz").touch()
    with pytest.raises(BadInput, match=r"holds \.npz files; if they are band powers, give options.kind=bandpower"):
        find_inputs(tmp_path, "edf_folder")


LFP = ("a", "b", "c", "d")
READS = SignalSpec(
    LFP, 500.0, 4.0, "dB re 1 uV^2/Hz", ("epoch", "channel", "frequency", "time"), (64, 4, 60, 7),
    tuple(np.arange(0.5, 30.5, 0.5).tolist()),
)  # fmt: skip


def check(channels=LFP, low_hz=0.5, shape=(4, 60, 7), epoch_s=4.0, units="dB re 1 uV^2/Hz", fs_hz=500.0):
    freqs_hz = tuple((low_hz + 0.5 * np.arange(shape[1])).tolist())
    require_contract(READS, SignalSpec(channels, fs_hz, epoch_s, units, READS.axes, shape, freqs_hz), "x")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"low_hz": 20.0}, r"frequencies \(Hz\): .* has \(20.0, 49.5, 60\), the bundle reads \(0.5, 30.0, 60\)"),
        ({"channels": ("a", "a", "a", "a")}, "channels: .* has .'a', 'a', 'a', 'a'., the bundle reads .'a', 'b'"),
        ({"epoch_s": 10.0}, r"epoch length \(s\): the recording has 10.0, the bundle reads 4.0"),
        ({"channels": ("a",)}, "channels: the recording has 1, the bundle reads 4"),
        ({"fs_hz": 100.0}, r"sampling rate \(Hz\): the recording has 100.0, the bundle reads 500.0"),
        ({"shape": (4, 60, 9)}, r"times of an epoch: the recording has \(60, 9\), the bundle reads \(60, 7\)"),
        ({"units": "dB"}, "unit: the recording has dB, the bundle reads dB re 1 uV"),
    ],
)
def test_every_difference_from_the_bundle_is_named_with_both_values(changes, problem):
    check()
    with pytest.raises(BadInput, match=problem):
        check(**changes)


@pytest.mark.parametrize(
    ("c3_uv", "note"), [(0.0, "EEG C3-A2 left out: .* is flat"), (500.0, "EEG C3-A2 has no vote: .* cannot be EEG")]
)
def test_a_channel_that_nobody_named_and_nobody_can_score_gives_way(tmp_path, c3_uv, note):
    rng = np.random.default_rng(0)
    amplitudes = {"EEG C3-A2": c3_uv, "EEG C4-A1": 20.0, "EEG O1-A2": 20.0}
    signals = [
        edfio.EdfSignal(uv * rng.standard_normal(60_000).clip(-4, 4), 100, label=name, physical_range=(-2000, 2000))
        for name, uv in amplitudes.items()
    ]
    for signal in signals:
        signal.physical_dimension = "uV"
    edfio.Edf(signals).write(tmp_path / "n.edf")
    (found,), bundle = (
        find_inputs(tmp_path, "edf_folder"),
        replace(BUNDLE, decision={**BUNDLE.decision, "any_channel": True}),
    )
    given = read_input(bundle, found, InputOptions())
    assert given.channels == ["EEG C4-A1"]
    assert any(re.search(note, line) for line in given.notes)
    named = InputOptions(channels=("EEG C3-A2", "none"))
    if c3_uv:
        assert read_input(bundle, found, named).channels == ["EEG C3-A2"]
    else:
        with pytest.raises(BadInput, match="is flat"):
            read_input(bundle, found, named)
