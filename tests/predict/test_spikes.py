import json
import shutil
import zipfile
from typing import Any

import numpy as np
import pytest
import scipy.io

import infer
from src.models.bundle import load_bundle
from src.models.spikes.scores import detection, score
from src.predict.spikes import find_recordings, predict, sort_with_bank
from src.recordings.extracellular.spike_trains import read_spikes
from src.signals import BadInput, SourceOptions
from tests.composed import composed
from tests.tables import read_csv


@pytest.fixture(scope="module")
def sort(spike_folder):
    def run(source, output, **options):
        return sort_with_bank(source, output, labelled=str(spike_folder / "D1.mat"), **{"figures": False} | options)

    return run


@pytest.fixture(scope="module")
def sorted_folder(sort, spike_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("predictions")
    return sort(spike_folder, out, truth=str(spike_folder / "truth"), figures=True), out


def test_a_folder_is_sorted_and_written_as_matlab_expects(sorted_folder, spike_folder):
    summary, out = sorted_folder
    assert summary.exit_code == 0
    assert [o.name for o in summary.outcomes] == ["D2", "D5"]  # D1 is the labelled one
    for name in ("D2", "D5"):
        content = scipy.io.loadmat(out / f"{name}.mat")
        assert content["Index"].shape == content["Class"].shape
        assert content["Index"].shape[0] == 1
        assert content["Index"].min() >= 1
        assert set(np.unique(content["Class"])) <= {1, 2, 3, 4, 5}
        assert np.all(np.diff(content["Index"][0].astype(int)) >= 0)
        rows = read_csv(out / f"{name}.csv")
        assert [int(r["index"]) for r in rows] == content["Index"][0].tolist()
        assert [int(r["class"]) for r in rows] == content["Class"][0].tolist()
        record = json.loads((out / f"{name}.json").read_text())
        assert record["method"] == "bank"
        assert record["labelled"]["path"] == str(spike_folder / "D1.mat")
        assert sum(record["spikes"].values()) == len(rows)
        for figure in ("trace", "waveforms"):
            assert (out / f"{name}_{figure}.png").stat().st_size > 10_000
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert sorted(archive.namelist()) == ["D2.mat", "D5.mat"]
        assert archive.read("D2.mat") == (out / "D2.mat").read_bytes()
    (line,) = summary.values["D2"]  # nothing else to say
    assert str(out / "D2.mat") in line


def test_scores_are_added_where_the_truth_is_given(sorted_folder):
    rows = {row["recording"]: row for row in read_csv(sorted_folder[1] / "scores.csv")}
    assert float(rows["D2"]["f1_loose"]) > 0.97
    assert float(rows["D2"]["weighted"]) > 0.94


def test_networks_sort_the_targets_of_their_bundle(spike_models, spike_folder, tmp_path):
    detection, classifier = (spike_models[task][2] for task in ("detector", "classifier"))
    summary = predict(load_bundle(detection), spike_folder, tmp_path, classifier=str(classifier), figures=False)
    assert [o.name for o in summary.outcomes] == ["D2", "D5"]
    record = json.loads((tmp_path / "D2.json").read_text())
    assert record["task"] == "spike_detection"
    assert 0 < record["decision"]["threshold"] < 1
    found, truth = read_spikes(tmp_path / "D2.mat"), read_spikes(spike_folder / "truth" / "D2.mat")
    assert 0.5 * len(truth) < len(found) < 1.5 * len(truth)
    with pytest.raises(BadInput, match=r"options\.classifier: is missing"):
        predict(load_bundle(detection), spike_folder, tmp_path / "out")
    with pytest.raises(BadInput, match="resample to 25000 Hz"):
        hz = SourceOptions(fs_hz=24_000.0)
        predict(load_bundle(detection), spike_folder, tmp_path / "o", classifier=str(classifier), source_options=hz)


def test_a_later_start_gives_the_shifted_answers(sorted_folder, sort, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"]
    scipy.io.savemat(tmp_path / "later.mat", {"d": trace[:, 1_500:]})
    sort(tmp_path / "later.mat", tmp_path / "out")
    ours, whole = read_spikes(tmp_path / "out" / "later.mat"), read_spikes(sorted_folder[1] / "D2.mat")
    margin = 3_000  # the band-pass sees the cut
    mine, theirs = ours.index[ours.index > margin] + 1_500, whole.index[whole.index > margin + 1_500]
    assert detection(theirs, mine, 5).f1 > 0.98


def test_nothing_is_reported_where_nothing_was_recorded(sorted_folder, sort, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"][0].copy()
    trace[40_000:60_000] = np.nan
    trace[80_000:80_200] = trace.max() + 1
    scipy.io.savemat(tmp_path / "gap.mat", {"d": trace})
    summary = sort(tmp_path / "gap.mat", tmp_path / "out")
    assert "16.16% of the samples are NaN or saturated" in summary.values["gap"][1]
    ours, whole = read_spikes(tmp_path / "out" / "gap.mat"), read_spikes(sorted_folder[1] / "D2.mat")
    assert not np.any((ours.index > 39_950) & (ours.index < 60_050))
    assert not np.any((ours.index > 79_950) & (ours.index < 80_250))
    early = whole.index[whole.index < 35_000]
    assert detection(early, ours.index[ours.index < 35_000], 5).f1 > 0.95


def test_one_bad_recording_is_named_and_the_others_are_sorted(sort, spike_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(spike_folder / "D2.mat", folder)
    scipy.io.savemat(folder / "D5.mat", {"d": np.full(900, 7.0)})
    summary = sort(folder, tmp_path / "out")
    assert summary.exit_code == 1
    assert [o.name for o in summary.failures] == ["D5"]
    assert (tmp_path / "out" / "D2.mat").is_file()
    assert not (tmp_path / "out" / "D5.mat").exists()


def test_infer_takes_a_method_in_place_of_a_bundle(spike_folder, tmp_path):
    def run(*overrides):
        return infer.predict_with_method(composed("infer", *overrides, f"output_dir={tmp_path}"))

    labelled, recording = f"labelled={spike_folder / 'D1.mat'}", f"input={spike_folder / 'D2.mat'}"
    assert run("method=bank", labelled, recording, "options.figures=false").exit_code == 0
    assert (tmp_path / "D2.mat").is_file()
    for overrides, message in (
        (("method=bank", recording), "labelled: is missing"),
        (("method=bnk", recording, labelled), "unknown method 'bnk'; choose from: bank, discover"),
        (("method=bank", recording, labelled, "bundle=x"), "takes no bundle"),
        (("method=bank", recording, labelled, "options.subject=x"), "is no option of method=bank"),
    ):
        with pytest.raises(BadInput, match=message):
            run(*overrides)


def test_a_folder_of_recordings_is_no_place_for_predictions(sort, spike_folder, tmp_path):
    shutil.copytree(spike_folder, tmp_path / "data")
    before = {p.name: p.read_bytes() for p in (tmp_path / "data").glob("*.mat")}
    with pytest.raises(BadInput, match="is the input"):
        sort(tmp_path / "data", tmp_path / "data")
    with pytest.raises(BadInput, match="which neurolit did not write"):
        sort(tmp_path / "data" / "D2.mat", tmp_path / "data")
    assert {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir() if p.is_file()} == before


def test_refusals(sort, spike_folder, tmp_path):
    (tmp_path / "void").mkdir()
    options: list[tuple[dict[str, Any], str]] = [
        ({"exports": ["kilo"]}, "unknown kind 'kilo'"),
        *(({"gain": gain}, r"options\.gain: is .*give a factor other than 0") for gain in (0.0, float("nan"))),
    ]
    for given, says in options:
        with pytest.raises(BadInput, match=says):
            sort(spike_folder, tmp_path / "out", **given)
    for name, says in (("nowhere", "does not exist"), ("void", "holds no recording")):
        with pytest.raises(BadInput, match=says):
            sort(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_negative_gain_turns_the_recording_over(sort, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"]
    scipy.io.savemat(tmp_path / "turned.mat", {"d": -trace})
    assert sort(tmp_path / "turned.mat", tmp_path / "a", gain=-1.0).exit_code == 0
    assert sort(spike_folder / "D2.mat", tmp_path / "b", gain=1.0).exit_code == 0
    given, alone = (read_spikes(tmp_path / name) for name in ("a/turned.mat", "b/D2.mat"))
    np.testing.assert_array_equal(given.index, alone.index)


def test_a_gain_that_would_turn_the_recording_upside_down_is_corrected(sorted_folder, sort, spike_folder, tmp_path):
    summary = sort(spike_folder / "D2.mat", tmp_path, gain=-1.0)
    assert "options.gain=-1 would turn it upside down: 1 was taken" in summary.values["D2"][1]
    expected = read_spikes(sorted_folder[1] / "D2.mat")
    np.testing.assert_array_equal(read_spikes(tmp_path / "D2.mat").index, expected.index)


def test_fs_hz_is_that_of_the_recordings_and_never_of_the_labelled_one(sort, spike_folder, tmp_path):
    labelled = scipy.io.loadmat(spike_folder / "D1.mat")
    with pytest.raises(BadInput, match=r"labelled recording D1.mat has 25000 Hz; .*add options.labelled_fs_hz=20000"):
        sort(spike_folder / "D2.mat", tmp_path / "a", source_options=SourceOptions(20_000.0))
    with pytest.raises(BadInput, match="25 kHz is 25000"):
        sort(spike_folder / "D2.mat", tmp_path / "a", source_options=SourceOptions(25.0))
    sort(spike_folder / "D2.mat", tmp_path / "b", source_options=SourceOptions(20_000.0), labelled_fs_hz=20_000.0)
    assert json.loads((tmp_path / "b" / "D2.json").read_text())["fs_hz"] == 20_000.0
    scipy.io.savemat(tmp_path / "D1.mat", {k: labelled[k] for k in ("d", "Index", "Class")} | {"sr": 20_000.0})
    options: dict[str, Any] = {"labelled": str(tmp_path / "D1.mat"), "figures": False}
    sort_with_bank(spike_folder / "D2.mat", tmp_path / "c", **options)
    assert json.loads((tmp_path / "c" / "D2.json").read_text())["fs_hz"] == 20_000.0
    with pytest.raises(BadInput, match=r"labelled recording D1.mat has 20000 Hz"):
        sort_with_bank(spike_folder / "D2.mat", tmp_path / "d", source_options=SourceOptions(25_000.0), **options)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "d").exists()


def test_recordings_that_are_cut_off_at_a_rail(sort, spike_folder, tmp_path):
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"][0]
    for name, share in (("few", 5e-4), ("many", 0.01)):
        np.save(tmp_path / f"{name}.npy", np.minimum(trace, np.quantile(trace, 1 - share)))
    (mild,) = [v for v in sort(tmp_path / "few.npy", tmp_path / "a").values["few"] if "cut off" in v]
    assert "the largest neurons are incomplete" in mild
    (failure,) = sort(tmp_path / "many.npy", tmp_path / "b").failures
    assert "cut off at the largest value that was recorded" in failure.reason
    assert not list((tmp_path / "b").glob("many*"))
    pulses = np.where(np.arange(len(trace)) % 2500 < 3, 500.0, trace)  # saturated artefacts are no spikes
    np.save(tmp_path / "pulses.npy", pulses)
    assert not any("cut off" in line for line in sort(tmp_path / "pulses.npy", tmp_path / "c").values["pulses"])


def test_what_a_folder_holds_beside_recordings_is_named(spike_folder, tmp_path, capsys):
    for name in ("D2.mat", "notes.txt", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_recordings(tmp_path)] == ["D2.mat"]
    assert "notes.txt passed over" in capsys.readouterr().err


def test_an_earlier_sorting_can_be_the_labels(sort, spike_folder, tmp_path):
    labels = read_spikes(spike_folder / "D1.mat")
    np.savez(
        tmp_path / "D1_sorting.npz",
        unit_ids=np.arange(11, 16),
        num_segment=np.array([1]),
        sampling_frequency=np.array([25_000.0]),
        spike_indexes_seg0=labels.index + 8,
        spike_labels_seg0=labels.unit + 10,
    )
    given = {"sorting": str(tmp_path / "D1_sorting.npz"), "exports": ["spikeinterface", "phy"]}
    summary = sort(spike_folder / "D2.mat", tmp_path / "out", **given)
    lines = "\n".join(summary.values["D2"])
    assert "neuron 1 is unit 11, 2 is unit 12" in lines
    found, truth = read_spikes(tmp_path / "out" / "D2.mat"), read_spikes(spike_folder / "truth" / "D2.mat")
    result = score((truth.index + 8, truth.unit), (found.index, found.unit), 250_000)
    assert result.strict.f1 > 0.95
    assert result.class_accuracy > 0.9
    assert "good" in (tmp_path / "out" / "D2_phy" / "cluster_group.tsv").read_text()
