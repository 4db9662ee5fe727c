import csv
import json

import numpy as np

from src.predict.sleep_files import write_bids, write_stages

ONSET_S = np.array([0.0, 4.0, 8.0])
STAGES = np.array([0, -1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]])


def test_the_rest_of_the_signal_is_a_row_of_its_own(tmp_path):
    write_stages(tmp_path / "x.csv", ONSET_S, 4.0, STAGES, PROBABILITIES, ["Wake", "NREM"], 1.5)
    with (tmp_path / "x.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["stage"] for row in rows] == ["Wake", "unscored", "NREM", "unscored"]
    assert [row["onset_s"] for row in rows] == ["0", "4", "8", "12"]
    assert rows[3]["duration_s"] == "1.5"
    assert rows[1]["p_Wake"] == ""


def test_bids_events_are_explained(tmp_path):
    write_bids(tmp_path / "events.tsv", ONSET_S, 4.0, STAGES, PROBABILITIES, ["Wake", "NREM"])
    lines = (tmp_path / "events.tsv").read_text().splitlines()
    assert lines == [
        "onset\tduration\ttrial_type\tconfidence",
        "0\t4\tWake\t0.900",
        "4\t4\tunscored\tn/a",
        "8\t4\tNREM\t0.800",
    ]
    meaning = json.loads((tmp_path / "events.json").read_text())
    assert set(meaning["trial_type"]["Levels"]) == {"Wake", "NREM", "unscored"}
