import pytest
from rich.console import Console

from src.predict.spike_scores import report_scores
from src.predict.spikes import sort_with_bank
from src.signals import BadInput
from src.storage.output import OutputFolder
from tests.tables import read_csv


@pytest.fixture(scope="module")
def reported(spike_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("scores")
    sort_with_bank(spike_folder, out, labelled=str(spike_folder / "D1.mat"), figures=False)
    console = Console(record=True, width=160)
    rows = report_scores({"D2": "D2", "D5": "D5"}, spike_folder / "truth", OutputFolder(out), 5, console)
    return rows, out, console.export_text()


def test_every_recording_has_a_row(reported):
    rows, out, _ = reported
    assert [r["recording"] for r in rows] == ["D2", "D5"]
    for row in rows:
        assert row["method"] == "bank"
        assert 0 <= row["f1_strict"] <= row["f1_loose"] <= 1
        assert row["f1_loose"] > 1.5 * row["chance_random"]
    assert rows[0]["f1_loose"] > rows[1]["f1_loose"]
    assert len(read_csv(out / "scores.csv")) == 2


def test_figures_and_chance_levels_are_there(reported):
    _, out, printed = reported
    for name in ("scores", "confusion", "precision_recall"):
        assert (out / f"{name}.png").stat().st_size > 10_000
    assert "chance level of F1 within ±2 ms" in printed
    assert "final score" not in printed  # that takes all of D2–D6


def test_a_truth_that_is_not_there_is_said(spike_folder, tmp_path):
    (tmp_path / "truth").mkdir()
    with pytest.raises(BadInput, match="holds no recording 'D2'"):
        sort_with_bank(
            spike_folder / "D2.mat",
            tmp_path / "out",
            labelled=str(spike_folder / "D1.mat"),
            truth=str(tmp_path / "truth"),
            figures=False,
        )
