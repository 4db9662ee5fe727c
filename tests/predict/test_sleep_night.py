import json
import re
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from src.predict.sleep_input import NightInput
from src.predict.sleep_night import ScoredNight
from src.preprocess.sleep.epochs import EpochSet
from src.reports.sleep import Level
from src.signals import HUMAN_STAGES, RODENT_STAGES, Origin, SignalSpec
from tests.tables import read_csv

PEOPLE = Origin(True, ("a cohort",), 40, 320.0, "ODC-By 1.0")
SIMULATED = Origin(False, ("simulated sleepers",), 24, 190.0)


def scored(rows, classes=HUMAN_STAGES, epoch_s=30.0, origin=PEOPLE, transitions=None, tail_s=0.0, **given):
    """A night with these probabilities, all other things being usual."""
    n = len(rows)
    empty = np.zeros(n)
    about = (np.arange(n) * epoch_s, empty, SignalSpec(("C3",), 100.0, epoch_s, "dB", ()))
    epochs = EpochSet(empty, empty.astype(np.int8), empty > 0, *about, {"tail_s": tail_s})
    fields = {
        "recording_id": "a <night>", "groups": [epochs], "channels": ["EEG C3-M2"], "epoch_s": epoch_s,
        "level": Level(np.random.default_rng(0).normal(size=(n, 20)), np.arange(1.0, 21.0)),
        "start": datetime(2024, 5, 1, 22, 30),
    }  # fmt: skip
    return ScoredNight(
        NightInput(**fields | given), np.array(rows), list(classes), origin, {"test/kappa": 0.77}, transitions
    )


def night(classes=HUMAN_STAGES, n=120, **changed):
    rows = np.random.default_rng(0).dirichlet(np.full(len(classes), 0.4), n)
    rows[7:8] = np.nan
    return scored(rows, classes, **changed)


def sure(*names, **changed):
    """A night of which the network is certain, stage by stage for so many epochs."""
    stages = np.concatenate([np.full(count, HUMAN_STAGES.index(name)) for name, count in names])
    return scored(np.where(np.eye(5)[stages] > 0, 0.996, 0.001), **changed)


def page(folder, found):
    found.write(folder)
    return re.sub(r"base64,[^\"]+", "base64,", (folder / "report.html").read_text())


def test_the_page_needs_nothing_beside_it(tmp_path):
    text = page(tmp_path, night())
    assert text.startswith("<!doctype html>")
    assert "data:image/png;base64," in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "a &lt;night&gt;" in text
    assert "22:30:00" in text
    for heading in ("Sleep statistics", "Review these first"):
        assert heading in text
    assert "Agreement" not in text
    assert "nan" not in text.lower()
    assert "Network trained on recordings: a cohort (40 subjects, 320 h; licence of the data: ODC-By 1.0)" in text
    assert "κ 0.77 on recordings of subjects it was not trained on (a cohort)" in text
    assert "expected accuracy" in text
    assert "simulated" not in text


def test_notes_stand_above_the_picture(tmp_path):
    text = page(tmp_path, night(notes=["20 % of the time flat"]))
    assert text.index("20 % of the time flat") < text.index("data:image/png")


def test_a_reference_and_yasa_are_compared(tmp_path):
    stages = np.maximum(night().stages, 0)
    text = page(tmp_path, replace(night(reference=stages), yasa=stages))
    assert "Agreement with the reference" in text
    assert "the stages in the file" in text
    assert text.count("data:image/png") == 2
    assert "human scorers among themselves: κ 0.76" in text
    assert "YASA’s scoring of the same night" in text
    first, second = (tmp_path / "hypnogram.csv").read_text().splitlines()[:2]
    assert first.endswith(",yasa")
    assert second.endswith(f",{HUMAN_STAGES[stages[0]]}")


def test_a_network_of_simulated_sleepers_says_so_and_nothing_of_people(tmp_path):
    text = page(tmp_path, night(origin=SIMULATED))
    assert "has learned from simulated data alone" in text
    assert "SIMULATED data" in text
    assert "expected accuracy" not in text
    assert "eople" not in text
    assert "κ 0.77 on simulated recordings" in text


@pytest.mark.parametrize("n", [1, 9])
def test_a_recording_of_a_few_epochs_has_no_statistics(tmp_path, n):
    text = page(tmp_path, night(n=n))
    assert "expected accuracy" not in text
    assert "Sleep statistics" not in text
    assert "100 %" not in text


def test_a_mouse_is_scored_in_its_own_stages_and_epochs(tmp_path):
    mouse = night(RODENT_STAGES, epoch_s=4.0, start=None)
    text = page(tmp_path, replace(mouse, given=replace(mouse.given, reference=np.maximum(mouse.stages, 0))))
    assert "epochs of 4 s" in text
    assert "NREM" in text
    assert "N2" not in text
    assert "human" not in text


def test_rem_soon_after_sleep_onset_and_wide_intervals_are_marked(tmp_path):
    early = sure(("W", 40), ("N1", 4), ("REM", 40), ("N2", 400), ("W", 10), notes=["no scoring"])
    assert "REM within 15 min" in early.doubt("rem_latency_min")
    assert not early.doubt("tst_min")
    lines = early.console_lines(tmp_path)
    assert lines[0] == "note       no scoring"
    assert any("REM latency: REM within" in line for line in lines)
    assert lines[-1].endswith("night.png")
    late = sure(("W", 200), ("N2", 300), transitions=np.eye(5) * 50 + 10)
    late.probabilities[:200] = (0.9, 0.0, 0.1, 0.0, 0.0)
    assert "uncertain by more than 30 min" in late.doubt("sol_min")
    assert "⚠ uncertain by more than 30 min" in page(tmp_path, late)


def test_a_recording_that_starts_asleep_has_no_latencies_to_sign(tmp_path):
    asleep = sure(("N2", 20), ("N3", 30), ("REM", 10))
    assert {asleep.doubt(name) for name in ("sol_min", "rem_latency_min")} == {
        "asleep from the first epoch on: sleep onset is not in the recording"
    }
    wide = replace(asleep, margins={"tst_min": (20.0, 0.0)})
    assert wide.doubt("tst_min") == "uncertain by more than 15 min"
    tiles, table = page(tmp_path, wide).split("Sleep statistics")
    assert all("⚠ uncertain by more than 15 min" in part for part in (tiles, table))


def test_a_night_with_an_hour_unscored_and_a_short_recording_are_said(tmp_path):
    holed = sure(("W", 60), ("N2", 400))
    holed.probabilities[100:220] = np.nan
    assert {holed.doubt(name) for name in ("tst_min", "se_percent", "waso_min")} == {"60 min are unscored"}
    margins = {"tst_min": (10.0, 10.0)}
    said = "measured on whole nights and say little about 0.5 h"
    assert said in page(tmp_path, replace(sure(("W", 20), ("N2", 40)), margins=margins))
    assert said not in page(tmp_path, replace(holed, margins=margins))


def test_a_number_far_outside_a_narrow_interval_is_marked():
    one = sure(("W", 400), ("N2", 400), transitions=np.eye(5) * 1000 + 1)
    one.probabilities[100] = (0.45, 0.02, 0.5, 0.02, 0.01)
    low, high = one.intervals["sol_min"]
    assert high - low < 30
    assert one.statistics["sol_min"] < low - 30
    assert "uncertain by more than 30 min" in one.doubt("sol_min")


def test_statistics_count_from_lights_off_to_lights_on(tmp_path):
    found = sure(("W", 60), ("N2", 200), ("W", 40), lights=(50 * 30.0, 280 * 30.0))
    assert found.statistics["trt_min"] == 115.0
    assert found.statistics["sol_min"] == 5.0
    assert "lights off at 22:55:00" in page(tmp_path, found)
    assert sure(("W", 60), ("N2", 200)).statistics["sol_min"] == 30.0


def test_files_for_other_programs_say_where_nothing_was_scored(tmp_path):
    rows = [[0.9, 0.1, 0.0], [np.nan] * 3, [0.2, 0.8, 0.0]]
    scored(rows, RODENT_STAGES, 4.0, tail_s=1.5).write(tmp_path)
    table = read_csv(tmp_path / "hypnogram.csv")
    assert [row["stage"] for row in table] == ["Wake", "unscored", "NREM", "unscored"]
    assert [row["onset_s"] for row in table] == ["0", "4", "8", "12"]
    assert table[3]["duration_s"] == "1.5"
    assert table[1]["p_Wake"] == ""
    assert (tmp_path / "events.tsv").read_text().splitlines() == [
        "onset\tduration\ttrial_type\tconfidence",
        "0\t4\tWake\t0.900",
        "4\t4\tunscored\tn/a",
        "8\t4\tNREM\t0.800",
    ]
    meaning = json.loads((tmp_path / "events.json").read_text())
    assert set(meaning["trial_type"]["Levels"]) == {*RODENT_STAGES, "unscored"}


@pytest.mark.parametrize(
    ("agree", "doubts", "said"),
    [
        (1.0, ["clocks differ by days"], ""),
        (1.0, [], ""),
        (0.0, [], "may be of another night: κ is "),
        (0.4, ["it lasts 7 h, the recording 9 h"], "may be of another night: it lasts 7 h"),
        (0.4, [], ""),
    ],
)
def test_a_reference_of_another_night_is_said_before_the_numbers(tmp_path, agree, doubts, said):
    found = sure(("W", 40), ("N2", 200), ("REM", 100), ("N2", 100))
    rng = np.random.default_rng(0)
    reference = np.where(rng.random(440) < agree, found.stages, rng.permutation(found.stages))
    found = replace(found, given=replace(found.given, reference=reference, doubts=doubts))
    lines, text = found.console_lines(tmp_path), page(tmp_path, found)
    numbers = next(i for i, line in enumerate(lines) if "κ " in line and "macro-F1" in line)
    if not said:
        assert found.reference_doubt == ""
        assert lines[numbers].startswith("agreement")
        assert "another night" not in text
        return
    assert said in lines[numbers - 1]
    assert lines[numbers - 1].startswith("WARNING")
    assert lines[numbers].startswith("DOUBTFUL")
    assert text.count("⚠ doubtful reference") == 3
    assert said in text[text.index("Agreement with the reference") : text.index("Cohen")]
    assert said in json.loads((tmp_path / "agreement.json").read_text())["doubt"]
