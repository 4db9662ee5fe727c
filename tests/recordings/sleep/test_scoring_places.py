"""Scorings are found beside, inside or below a recording, under their usual names."""

import numpy as np
import pytest

from src.recordings.sleep.nights import discover
from src.signals import RODENT_STAGES, BadInput
from tests.nights import load
from tests.recordings.sleep.made_scorings import (
    MARK,
    SLEEP_EDF,
    STAGES,
    every_30_s,
    read,
    recording,
    refused,
    right,
    scoring,
    table,
)


@pytest.mark.parametrize(
    "name",
    [
        "n.csv", "n.CSV", "n_hypnogram.csv", "n_stages.csv", "n-staging.csv", "hypnogram.csv", "n_Hypnogram.CSV",
        "n - Schlafprofil.txt", "Schlafprofil.txt", "Sleep profile.txt",
        "n.hyp", "n.hypno", "n.ids", "n.STA", "n_hypno.txt", "n.stg.txt", "n.allscore.txt", "n_scores.csv",
        "Hypnogram_n.txt",
    ],
)  # fmt: skip
@pytest.mark.parametrize("signal", ["n.edf", "n-PSG.EDF", "n_eeg.edf", "n PSG.edf"])
def test_scorings_are_found_by_their_usual_names(tmp_path, name, signal):
    recording(tmp_path / signal)
    table(tmp_path / name, every_30_s())
    assert right(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["n-Hypnogram.edf", "n_hypnogram.edf", "n_sleepscoring.edf", "n_scored.edf", "n_annotations.edf", "n Base.edf"],
)
def test_scorings_in_edf_are_no_recordings(folder, name):
    scoring(folder / name, [SLEEP_EDF[stage] for stage in STAGES])
    assert right(folder) == []


def test_stages_inside_the_recording(tmp_path):
    recording(tmp_path / "n.edf", [MARK(*row) for row in every_30_s([SLEEP_EDF[stage] for stage in STAGES])])
    assert right(tmp_path) == []
    recording(tmp_path / "n.edf", [MARK(0, None, "Gain: 2"), MARK(9, None, "Gain: 3"), MARK(30, None, "1")])
    (night,) = discover("edf_folder", tmp_path)
    assert load(night, ["Fpz-Cz"])[1] is None


def test_bids_folders_of_any_depth(tmp_path):
    for subject in ("01", "02"):
        folder = tmp_path / f"sub-{subject}" / "ses-a" / "eeg"
        recording(folder / f"sub-{subject}_ses-a_task-sleep_eeg.edf")
        rows = "".join(f"{onset}\t{duration}\t{name}\n" for onset, duration, name in every_30_s())
        (folder / f"sub-{subject}_ses-a_task-sleep_events.tsv").write_text("onset\tduration\ttrial_type\n" + rows)
    nights = discover("edf_folder", tmp_path)
    assert [(night.subject_id, night.hypnogram is not None) for night in nights] == [("01", True), ("02", True)]
    assert right(tmp_path / "sub-01") == []


def test_our_own_predictions_are_found_and_said_to_be_a_program_s(folder):
    rows = "".join(f"{onset}\t30\t{name}\t0.9\n" for onset, _, name in every_30_s())
    (folder / "events.tsv").write_text("onset\tduration\ttrial_type\tconfidence\n" + rows)
    assert right(folder) == ["was scored by a program, not by a person (it holds probabilities)"]
    recording(folder / "m.edf")
    assert [night.hypnogram for night in discover("edf_folder", folder)] == [None, None]


def test_isrucs_two_scorers_and_its_suffix(tmp_path):
    recording(tmp_path / "1.edf").rename(tmp_path / "1.rec")
    for name in ("1_1.txt", "1_2.txt"):
        (tmp_path / name).write_text("\n".join(STAGES))
    (night,) = discover("edf_folder", tmp_path)
    assert night.notes == ["2 scorings beside it: 1_1.txt is read, not 1_2.txt"]
    assert right(tmp_path) == []
    recording(tmp_path / "1_2.edf")
    assert [n.hypnogram.name for n in discover("edf_folder", tmp_path)] == ["1_1.txt", "1_2.txt"]


def test_a_signal_in_text_is_not_read_in_place_of_its_scoring(folder):
    """DREAMS has both: ``excerpt3.txt`` and ``Hypnogram_excerpt3.txt``."""
    (folder / "n.txt").write_text("\n".join(["[C3-A1]", *["-12.5"] * 90_000]))
    (folder / "Hypnogram_n.txt").write_text("\n".join(STAGES))
    assert right(folder) == []


def test_of_two_scorings_the_one_that_is_read_is_named(folder):
    for name in ("n.csv", "n_scored.csv", "n-nsrr.xml"):
        table(folder / name, every_30_s())
    (night,) = discover("edf_folder", folder)
    assert night.notes == ["3 scorings beside it: n.csv is read, not n_scored.csv, n-nsrr.xml"]
    (named,) = discover("edf_folder", folder, scoring="{stem}_scored.csv")
    assert (named.hypnogram.name, named.notes) == ("n_scored.csv", [])


def test_the_files_of_a_sleep_edf_night_find_each_other(tmp_path):
    for name in ("SC4001E0", "SC4002E0"):
        recording(tmp_path / f"{name}-PSG.edf")
    scoring(tmp_path / "SC4001EC-Hypnogram.edf", [SLEEP_EDF[stage] for stage in STAGES])
    nights = discover("edf_folder", tmp_path)
    assert [night.subject_id for night in nights] == ["SC400", "SC400"]
    assert [night.hypnogram and night.hypnogram.name for night in nights] == ["SC4001EC-Hypnogram.edf", None]


def test_a_baseline_night_is_a_recording(tmp_path):
    """MASS calls its scorings ``n Base.edf``; they hold no signals."""
    recording(tmp_path / "n_base.edf")
    recording(tmp_path / "m.edf")
    assert [night.recording_id for night in discover("edf_folder", tmp_path)] == ["m", "n_base"]


def test_a_damaged_scoring_is_not_passed_over(folder):
    scoring(folder / "n-Hypnogram.edf", [SLEEP_EDF[stage] for stage in STAGES])
    whole = (folder / "n-Hypnogram.edf").read_bytes()
    for share in (0.5, 0.999):
        (folder / "n-Hypnogram.edf").write_bytes(whole[: int(share * len(whole))])
        refused(folder, r"n-Hypnogram\.edf: (is truncated|holds 0 data records)")


def test_a_pattern_names_scorings_that_are_elsewhere(tmp_path):
    recording(tmp_path / "psg" / "n-PSG.edf")
    (tmp_path / "scored").mkdir()
    table(tmp_path / "scored" / "n.rater2.txt", every_30_s())
    assert right(tmp_path, pattern="../scored/{stem}.rater2.txt") == []
    with pytest.raises(BadInput, match="names no file beside any recording"):
        discover("edf_folder", tmp_path, scoring="{stem}.nowhere")
    with pytest.raises(BadInput, match="is no pattern; write it like"):
        discover("edf_folder", tmp_path, scoring="{subject}.csv")


def test_files_of_one_name_are_different_recordings(tmp_path):
    for name in ("a/n.edf", "b/n.edf", "c/n.EDF"):
        recording(tmp_path / name)
    nights = discover("edf_folder", tmp_path)
    assert [night.recording_id for night in nights] == ["a-n.edf", "b-n.edf", "c-n.EDF"]
    assert len({night.subject_id for night in nights}) == 3


def test_rodent_states_in_lines_of_four_seconds(folder):
    names = ["NREM"] * 200 + ["REM"] * 50 + ["Wake"] * 200
    (folder / "n.txt").write_text("\n".join(names))
    stages, facts = read(folder, grid_s=4.0, stage_names=RODENT_STAGES)
    np.testing.assert_array_equal(stages, [1] * 200 + [2] * 50 + [0] * 200)
    assert facts["warnings"] == ["450 epochs over 1800 s of signal: taken as epochs of 4 s"]


def test_xml_that_is_no_scoring(folder):
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    for text, match in ((bomb, "document type"), ("<a><b></a>", "no well-formed XML"), ("<a/>", "holds no stage")):
        (folder / "n.xml").write_text(text)
        refused(folder, match)
