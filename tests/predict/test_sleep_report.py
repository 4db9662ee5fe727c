import re
from datetime import datetime

import numpy as np
import pytest

from src.predict.sleep_report import ScoredNight, console_lines, describe, write_night
from src.signals import HUMAN_STAGES, RODENT_STAGES, Origin

PEOPLE = Origin(True, ("a cohort",), 40, 320.0, "ODC-By 1.0")
SIMULATED = Origin(False, ("simulated sleepers",), 24, 190.0)


def night(classes=HUMAN_STAGES, epoch_s=30.0, n=120, **changed):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(len(classes), 0.4), n)
    stages = probabilities.argmax(1)
    if n > 7:
        stages[7] = -1
        probabilities[7] = np.nan
    fields = {
        "recording_id": "a <night>", "channels": ["EEG C3-M2"], "classes": list(classes), "epoch_s": epoch_s,
        "start": datetime(2024, 5, 1, 22, 30), "onset_s": np.arange(n) * epoch_s, "stages": stages,
        "probabilities": probabilities, "decibels": rng.normal(size=(n, 20)), "freqs_hz": np.arange(1.0, 21.0),
        "origin": PEOPLE, "bundle_metrics": {"test/kappa": 0.77},
    }  # fmt: skip
    return ScoredNight(**{**fields, **changed})


def page(folder, scored):
    write_night(folder, scored, 0.0)
    text = (folder / "report.html").read_text()
    return re.sub(r"base64,[^\"]+", "base64,", text), text


def test_the_page_needs_nothing_beside_it(tmp_path):
    text, whole = page(tmp_path, night())
    assert text.startswith("<!doctype html>")
    assert "data:image/png;base64," in whole
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "a &lt;night&gt;" in text
    assert "22:30:00" in text
    for heading in ("Sleep statistics", "Review these first"):
        assert heading in text
    assert "Agreement" not in text
    assert "nan" not in text.lower()


def test_what_was_found_in_the_signal_stands_above_the_picture(tmp_path):
    text, _ = page(tmp_path, night(findings=["EEG C3-M2: 20.0% of the time flat"]))
    assert text.index("20.0% of the time flat") < text.index("data:image/png")


def test_a_reference_is_compared(tmp_path):
    text, _ = page(tmp_path, night(reference=np.maximum(night().stages, 0)))
    assert "Agreement with the reference" in text
    assert text.count("data:image/png") == 2
    assert "human scorers among themselves: κ 0.76" in text


def test_scores_are_quoted_with_their_origin():
    found = describe(night())
    assert found["origin"] == "trained on recordings: a cohort (40 subjects, 320 h; licence of the data: ODC-By 1.0)"
    assert "κ 0.77 on recordings of subjects it was not trained on (a cohort)" in found["notes"]
    assert not found["banner"]
    assert "expected accuracy" in [tile["name"] for tile in found["summary"]]


def test_a_network_of_simulated_sleepers_says_so_and_nothing_of_people(tmp_path):
    text, _ = page(tmp_path, night(origin=SIMULATED))
    assert "has learned from simulated data alone" in text
    assert "SIMULATED data" in text
    assert "expected accuracy" not in text
    assert "eople" not in text
    assert "κ 0.77 on simulated recordings" in text


@pytest.mark.parametrize("n", [1, 9])
def test_a_recording_of_a_few_epochs_has_no_statistics(tmp_path, n):
    text, _ = page(tmp_path, night(n=n))
    assert "expected accuracy" not in text
    assert "Sleep statistics" not in text
    assert "100 %" not in text


def test_a_mouse_is_scored_in_its_own_stages_and_epochs(tmp_path):
    mouse = night(RODENT_STAGES, 4.0, start=None)
    text, _ = page(tmp_path, night(RODENT_STAGES, 4.0, start=None, reference=np.maximum(mouse.stages, 0)))
    assert "epochs of 4 s" in text
    assert "NREM" in text
    assert "N2" not in text
    assert "human" not in text


def sure(names, **changed):
    """A night of which the network is certain, stage by stage for so many epochs."""
    stages = np.concatenate([np.full(count, HUMAN_STAGES.index(name)) for name, count in names])
    rows = np.where(np.eye(5)[stages] > 0, 0.996, 0.001)
    levels = np.random.default_rng(0).normal(size=(len(stages), 20))
    return night(n=len(stages), stages=stages, probabilities=rows, decibels=levels, **changed)


def test_rem_soon_after_sleep_onset_and_wide_intervals_are_marked():
    early = sure([("W", 40), ("N1", 4), ("REM", 40), ("N2", 400), ("W", 10)])
    tiles = {tile["name"]: tile for tile in describe(early)["summary"]}
    assert "REM within 15 min" in tiles["REM latency"]["doubt"]
    assert not tiles["total sleep time"]["doubt"]
    late = sure([("W", 200), ("N2", 300)], transitions=np.eye(5) * 50 + 10)
    late.probabilities[:200] = (0.9, 0.0, 0.1, 0.0, 0.0)
    tiles = {tile["name"]: tile for tile in describe(late)["summary"]}
    assert "uncertain by more than 30 min" in tiles["sleep latency"]["doubt"]


def test_a_number_far_outside_a_narrow_interval_is_marked():
    unsure = sure([("W", 400), ("N2", 400)], transitions=np.eye(5) * 1000 + 1)
    unsure.probabilities[200:400] = (0.4, 0.2, 0.2, 0.1, 0.1)
    unsure.probabilities[100:300:20] = (0.0, 0.0, 1.0, 0.0, 0.0)
    low, high = unsure.intervals["sol_min"]
    assert high - low < 30
    assert unsure.statistics["sol_min"] > high + 30
    assert "uncertain by more than 30 min" in unsure.doubt("sol_min")


def test_statistics_count_from_lights_off_to_lights_on():
    scored = sure([("W", 60), ("N2", 200), ("W", 40)], lights=(50 * 30.0, 280 * 30.0))
    assert scored.statistics["trt_min"] == 115.0
    assert scored.statistics["sol_min"] == 5.0
    assert "lights off at 22:55:00" in describe(scored)["statistics"]["note"]
    assert sure([("W", 60), ("N2", 200)]).statistics["sol_min"] == 30.0


def test_the_console_says_what_the_page_marks(tmp_path):
    lines = console_lines(sure([("W", 4), ("REM", 40), ("N2", 400)], notes=["no scoring"]), tmp_path)
    assert any("REM latency: REM within" in line for line in lines)
    assert lines[0] == "note       no scoring"
    assert lines[-1].endswith("night.png")
