import csv
import json
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import scipy.io

from src.models.bundle import load_bundle
from src.predict.spikes import predict, sort_with_bank
from src.recordings.extracellular.spike_trains import read_spikes
from src.signals import BadInput


@pytest.fixture(scope="module")
def bundles(spike_models):
    return load_bundle(spike_models["detector"][2]), str(spike_models["classifier"][2])


@pytest.fixture(scope="module")
def predicted(bundles, spike_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("predictions")
    summary = predict(bundles[0], spike_folder, out, classifier=bundles[1], truth=str(spike_folder / "truth"))
    return summary, out


def test_targets_are_sorted_and_written_as_matlab_expects(predicted):
    summary, out = predicted
    assert summary.exit_code == 0
    assert [o.name for o in summary.outcomes] == ["D2", "D5"]  # D1 is what the bundle was trained on
    for name in ("D2", "D5"):
        content = scipy.io.loadmat(out / f"{name}.mat")
        assert content["Index"].shape == content["Class"].shape
        assert content["Index"].shape[0] == 1
        assert content["Index"].min() >= 1
        assert set(np.unique(content["Class"])) <= {1, 2, 3, 4, 5}
        assert np.all(np.diff(content["Index"][0].astype(int)) >= 0)
        with (out / f"{name}.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert [int(r["index"]) for r in rows] == content["Index"][0].tolist()
        assert [int(r["class"]) for r in rows] == content["Class"][0].tolist()
        record = json.loads((out / f"{name}.json").read_text())
        assert record["target"] == name
        assert sum(record["spikes"].values()) == len(rows)
        for figure in ("trace", "waveforms"):
            assert (out / f"{name}_{figure}.png").stat().st_size > 10_000
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert sorted(archive.namelist()) == ["D2.mat", "D5.mat"]
        assert archive.read("D2.mat") == (out / "D2.mat").read_bytes()


def test_the_console_says_what_was_found_and_where_it_is(predicted):
    summary, out = predicted
    first, second = summary.values["D2"]  # and no word of an unlike background
    assert str(out / "D2.mat") in first
    assert "network for D2" in second


@pytest.mark.parametrize("factor", [1e-3, 5.0])
def test_a_recording_in_another_unit_gives_the_same_answers(predicted, bundles, spike_folder, tmp_path, factor):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"]
    scipy.io.savemat(tmp_path / "louder.mat", {"d": trace * factor})
    summary = predict(bundles[0], tmp_path / "louder.mat", tmp_path / "out", classifier=bundles[1], figures=False)
    assert "network for D2, scaled by" in summary.values["louder"][1]
    ours, same = read_spikes(tmp_path / "out" / "louder.mat"), read_spikes(predicted[1] / "D2.mat")
    np.testing.assert_array_equal(ours.index, same.index)
    np.testing.assert_array_equal(ours.unit, same.unit)


def test_a_later_start_gives_the_shifted_answers(predicted, bundles, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"]
    scipy.io.savemat(tmp_path / "later.mat", {"d": trace[:, 1_500:]})
    predict(bundles[0], tmp_path / "later.mat", tmp_path / "out", classifier=bundles[1], figures=False)
    ours, whole = read_spikes(tmp_path / "out" / "later.mat"), read_spikes(predicted[1] / "D2.mat")
    margin = 3_000  # the band-pass sees the cut
    mine = {(int(i) + 1_500, int(u)) for i, u in zip(ours.index, ours.unit, strict=True) if i > margin}
    theirs = {(int(i), int(u)) for i, u in zip(whole.index, whole.unit, strict=True) if i > margin + 1_500}
    assert len(mine ^ theirs) <= 0.02 * len(theirs)


def test_a_column_and_an_array_are_the_same_recording(predicted, bundles, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"]
    (tmp_path / "in").mkdir()
    scipy.io.savemat(tmp_path / "in" / "column.mat", {"d": trace.T})
    np.save(tmp_path / "in" / "array.npy", trace[0])
    summary = predict(bundles[0], tmp_path / "in", tmp_path / "out", classifier=bundles[1], figures=False)
    assert summary.exit_code == 0
    expected = read_spikes(predicted[1] / "D2.mat")
    for name in ("column", "array"):
        np.testing.assert_array_equal(read_spikes(tmp_path / "out" / f"{name}.mat").index, expected.index)


def test_nothing_is_reported_where_nothing_was_recorded(predicted, bundles, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"][0].copy()
    trace[40_000:60_000] = np.nan
    trace[80_000:80_200] = trace.max() + 1
    scipy.io.savemat(tmp_path / "gap.mat", {"d": trace})
    summary = predict(bundles[0], tmp_path / "gap.mat", tmp_path / "out", classifier=bundles[1])
    assert "16.16% of the samples are NaN or saturated" in summary.values["gap"][1]
    ours, whole = read_spikes(tmp_path / "out" / "gap.mat"), read_spikes(predicted[1] / "D2.mat")
    assert not np.any((ours.index > 39_950) & (ours.index < 60_050))
    assert not np.any((ours.index > 79_950) & (ours.index < 80_250))
    early = whole.index[whole.index < 35_000]
    assert len(np.intersect1d(ours.index, early)) > 0.9 * len(early)


def test_no_spike_is_a_valid_answer(bundles, tmp_path):
    rng = np.random.default_rng(0)
    quiet = np.cumsum(rng.standard_normal(50_000)) * 1e-3
    scipy.io.savemat(tmp_path / "quiet.mat", {"d": quiet})
    summary = predict(bundles[0], tmp_path / "quiet.mat", tmp_path / "out", classifier=bundles[1])
    assert summary.exit_code == 0
    assert summary.values["quiet"][1].endswith("Index and Class are empty")
    assert "its background is unlike all that the networks know" in summary.values["quiet"][-1]
    content = scipy.io.loadmat(tmp_path / "out" / "quiet.mat")
    assert content["Index"].size == content["Class"].size == 0
    assert (tmp_path / "out" / "quiet.csv").read_text().startswith("index,time_s,class")


def test_one_bad_recording_is_named_and_the_others_are_sorted(bundles, spike_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(spike_folder / "D2.mat", folder)
    scipy.io.savemat(folder / "D5.mat", {"x": np.ones(9)})
    summary = predict(bundles[0], folder, tmp_path / "out", classifier=bundles[1], figures=False)
    assert summary.exit_code == 1
    assert [o.name for o in summary.failures] == ["D5"]
    assert "no variable 'd'" in summary.failures[0].reason
    assert (tmp_path / "out" / "D2.mat").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((1, 0)), "is empty"),
        (np.full(500, 3.0), "NaN or saturated|same value"),
        (np.where(np.arange(1000) < 600, np.nan, np.arange(1000.0)), "60% of the samples"),
        (np.ones((3, 400)), "3 channels"),
    ],
)
def test_recordings_that_cannot_be_sorted(bundles, tmp_path, content, message):
    scipy.io.savemat(tmp_path / "x.mat", {"d": content})
    summary = predict(bundles[0], tmp_path / "x.mat", tmp_path / "out", figures=False)
    (failure,) = summary.failures
    assert failure.reason
    assert __import__("re").search(message, failure.reason)


def test_counts_of_a_converter_are_sorted_in_no_more_time_and_with_a_warning(bundles, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D5.mat")["d"][0][:75_000]
    np.save(tmp_path / "counts.npy", np.round(500 * np.diff(trace)).astype(np.int16))
    started = time.process_time()
    summary = predict(bundles[0], tmp_path / "counts.npy", tmp_path / "out", figures=False)
    assert time.process_time() - started < 20
    assert any("do not trust" in line for line in summary.values["counts"])


def test_a_few_samples_are_sorted_without_a_crash(bundles, tmp_path):
    for length in (2, 30, 150):
        scipy.io.savemat(tmp_path / "x.mat", {"d": np.random.default_rng(0).standard_normal(length)})
        summary = predict(bundles[0], tmp_path / "x.mat", tmp_path / "out", classifier=bundles[1], figures=length == 30)
        assert summary.exit_code == 0


@pytest.fixture(scope="module")
def banked(spike_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("banked")
    truth = str(spike_folder / "truth")
    return sort_with_bank(spike_folder, out, labelled=str(spike_folder / "D1.mat"), truth=truth), out


def test_the_bank_sorts_a_folder_with_its_labelled_recording(banked, spike_folder):
    summary, out = banked
    assert [o.name for o in summary.outcomes] == ["D2", "D5"]
    assert summary.exit_code == 0
    record = json.loads((out / "D2.json").read_text())
    assert record["method"] == "bank"
    assert record["labelled"]["path"] == str(spike_folder / "D1.mat")
    assert sum(record["spikes"].values()) == len(read_spikes(out / "D2.mat"))
    with (out / "scores.csv").open() as handle:
        rows = {row["recording"]: row for row in csv.DictReader(handle)}
    assert float(rows["D2"]["f1_loose"]) > 0.97
    assert float(rows["D2"]["weighted"]) > 0.94
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert sorted(archive.namelist()) == ["D2.mat", "D5.mat"]


def test_infer_takes_a_method_in_place_of_a_bundle(spike_folder, tmp_path, repository):
    def infer(*arguments):
        command = [sys.executable, "infer.py", *arguments, f"output_dir={tmp_path}"]
        return subprocess.run(command, capture_output=True, text=True, cwd=repository)

    labelled, recording = f"labelled={spike_folder / 'D1.mat'}", f"input={spike_folder / 'D2.mat'}"
    done = infer("method=bank", labelled, recording, "options.figures=false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "D2.mat").is_file()
    missing = infer("method=bank", recording)
    assert missing.returncode == 2
    assert "labelled: is missing" in missing.stdout + missing.stderr


def test_refusals(bundles, spike_folder, tmp_path, spike_models):
    with pytest.raises(BadInput, match="resample to 25000 Hz"):
        predict(bundles[0], spike_folder, tmp_path, fs_hz=24_000.0)
    with pytest.raises(BadInput, match="is a spike_detection bundle, not spike_classification"):
        predict(bundles[0], spike_folder, tmp_path, classifier=str(spike_models["detector"][2]))
    with pytest.raises(BadInput, match="does not exist"):
        predict(bundles[0], tmp_path / "nowhere", tmp_path)
    (tmp_path / "void").mkdir()
    with pytest.raises(BadInput, match="holds no recording"):
        predict(bundles[0], tmp_path / "void", tmp_path)
    with pytest.raises(BadInput, match="holds no recording 'D3'"):
        predict(bundles[0], spike_folder, tmp_path, recordings=["D3"])
