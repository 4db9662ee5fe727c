import csv

import pytest
from rich.console import Console

from src.models.bundle import load_bundle
from src.predict.sorter import Sorter
from src.predict.spike_scores import OURS, report_scores
from src.predict.spikes import predict
from src.signals import BadInput
from src.storage.output import OutputFolder


@pytest.fixture(scope="module")
def reported(spike_models, spike_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("scores")
    detection, classification = (load_bundle(spike_models[task][2]) for task in ("detector", "classifier"))
    predict(detection, spike_folder, out, classifier=str(classification.folder), figures=False)
    sorter = Sorter.from_bundles(detection, classification)
    console = Console(record=True, width=160)
    paths = {name: spike_folder / f"{name}.mat" for name in ("D2", "D5")}
    output, truth = OutputFolder(out), spike_folder / "truth"
    rows = report_scores(sorter, detection, paths, truth, output, key="d", channel=None, console=console)
    return rows, out, console.export_text()


def test_ours_and_every_baseline_have_a_row_per_recording(reported):
    rows, out, _ = reported
    assert len(rows) == 2 * 5
    assert [r["method"] for r in rows[:5]].count(OURS) == 1
    for row in rows:
        assert 0 <= row["f1_10"] <= row["f1_50"] <= 1
        assert row["f1_50"] > 1.5 * row["chance_random"]
    clean, noisy = (next(r for r in rows if r["recording"] == n and r["method"] == OURS) for n in ("D2", "D5"))
    assert clean["f1_50"] > 0.75
    assert clean["f1_50"] > noisy["f1_50"]
    with (out / "scores.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == 10


def test_figures_and_chance_levels_are_there(reported):
    _, out, printed = reported
    for name in ("scores", "confusion", "precision_recall"):
        assert (out / f"{name}.png").stat().st_size > 10_000
    assert "chance level of F1" in printed
    assert "final score" not in printed  # that takes all of D2–D6


def test_a_truth_that_is_not_there_is_said(spike_models, spike_folder, tmp_path):
    detection = load_bundle(spike_models["detector"][2])
    (tmp_path / "truth").mkdir()
    with pytest.raises(BadInput, match="holds no recording 'D2'"):
        predict(detection, spike_folder, tmp_path / "out", truth=str(tmp_path / "truth"), figures=False)
