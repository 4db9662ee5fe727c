"""Hypnogram files of every kind come out as the same scoring; what cannot be understood is said."""

from datetime import datetime

import edfio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.recordings.sleep.hypnogram import Hypnogram, stage_counts, write_annotations
from src.recordings.sleep.scoring_files import read_hypnogram
from src.recordings.sleep.stage_names import CODINGS, ScoringOptions
from src.signals import RODENT_STAGES, BadInput


def text(path, content, name="h.csv"):
    (path / name).write_text(content)
    return path / name


def annotated(path, *annotations):
    edfio.Edf([], annotations=[edfio.EdfAnnotation(*a) for a in annotations]).write(path)
    return path


def test_sleep_edfs_annotations(tmp_path):
    path = annotated(
        tmp_path / "h.edf",
        (0.0, 60.0, "Sleep stage W"),
        (60.0, 30.0, "Sleep stage 1"),
        (90.0, 30.0, "Movement time"),
        (120.0, 30.0, "Sleep stage 4"),
        (150.0, 30.0, "Sleep stage R"),
        (180.0, 60.0, "Sleep stage ?"),
    )
    night = read_hypnogram(path)
    assert (night.epoch_s, night.onset_s) == (30.0, 0.0)
    np.testing.assert_array_equal(night.stages, [0, 0, 1, -1, 3, 4, -1, -1])


@pytest.mark.parametrize(
    "content",
    [
        "onset_s,duration_s,stage\n30,30,W\n60,60,N2\n120,30,REM\n",
        "onset,duration,trial_type\n30.0,30.0,Sleep stage W\n60.0,60.0,Sleep stage 2\n120.0,30.0,Sleep stage R\n",
        "onset;duration;stage\n30;30;W\n60;60;N2\n120;30;R\n",
        "onset\tduration\tstage\n30\t30\tW\n60\t60\tN2\n120\t30\tR\n",
        "30,30,W\n60,60,N2\n120,30,R\n",
        "stage,onset,duration,comment\nW,30,30,x\nN2,60,60,\nREM,120,30,\n",
        "onset_s,stage\n30,W\n60,N2\n90,N2\n120,REM\n",
        "\ufeffonset_s,duration_s,stage,p_W,p_N1\n\n30,30,W,0.9,0.1\n60,60,N2,0,0\n120,30,REM,0,0\n",
        "onset_s,duration_s,stage\n120,30,REM\n30,30,W\n60,60,N2\n",
    ],
)
def test_tables_in_any_usual_form(tmp_path, content):
    night = read_hypnogram(text(tmp_path, content))
    assert (night.epoch_s, night.onset_s) == (30.0, 30.0)
    np.testing.assert_array_equal(night.stages, [0, 2, 2, 4])


@pytest.mark.parametrize("content", ["W\nN1\n?\nREM\n", "stage\nW\nN1\n?\nREM\n", "Sleep_Stage\nW\n1\nMT\nR\n"])
@pytest.mark.parametrize("epoch_s", [None, 4.0])
def test_a_stage_a_line(tmp_path, content, epoch_s):
    night = read_hypnogram(text(tmp_path, content, "h.txt"), ScoringOptions(epoch_s=epoch_s))
    assert night.epoch_s == (epoch_s or 30.0)
    np.testing.assert_array_equal(night.stages, [0, 1, -1, 4])


def test_dreams_announces_itself(tmp_path):
    night = read_hypnogram(text(tmp_path, "[hypnogram]\n5\n4\n3\n2\n1\n0\n-1\n-3\n", "h.txt"))
    assert night.epoch_s == 5.0
    np.testing.assert_array_equal(night.stages, [0, 4, 1, 2, 3, 3, -1, -1])


def test_a_coding_does_not_disturb_names(tmp_path):
    np.testing.assert_array_equal(
        read_hypnogram(text(tmp_path, "W\n2\n?\n"), ScoringOptions(coding="ucddb")).stages, [0, 1, -1]
    )


def refusal(path, **more):
    with pytest.raises(BadInput) as caught:
        read_hypnogram(path, ScoringOptions(**more))
    assert "\n" not in str(caught.value)
    return f"{caught.value.problem}; {caught.value.hint}"


def test_bare_integers_are_not_guessed(tmp_path):
    path = text(tmp_path, "0\n1\n5\n")
    assert refusal(path) == (
        "has bare integers for stages (0, 1, 5), which mean different things in different files; "
        f"say which: source.stage_coding={'|'.join(CODINGS)} (aasm: 4 is REM; edf: 5 is REM; dreams: 5 is wake)"
    )
    assert refusal(path, coding="aasm").startswith("has unknown stages in the coding 'aasm': '5'; say what integers")
    assert refusal(path, coding="swedish").startswith("'swedish' is not known; choose from: aasm")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no stage"),
        ("\n \n", "holds no stage"),
        ("onset_s,duration_s,stage\n", "holds no stage"),
        ("onset_s,duration_s,stage\n0,30,W\n30,30,dream\n60,30,S9\n", "has unknown stages: 'S9', 'dream'; use W, N1,"),
        ("onset_s,duration_s,stage\n0,30,W\nsoon,30,N1\n", "row 2: onset 'soon' is not a number"),
        ("onset_s,duration_s,stage\n0,30,W\n30,long,N1\n", "row 2: duration 'long' is not a number"),
        ("onset_s,duration_s,stage\n0,30,W\n30,-30,N1\n", "row 2: duration is not positive"),
        ("onset_s,end_s,stage\n0,30,W\n60,30,N1\n", "row 2: end '30' is not a time after 60 s"),
        ("time,stage\n23:00:00,W\n60,N1\n", "row 2: onset '60' is no clock time"),
        ("Epoch,Stage\n1,W\n1,N1\n", "has epoch numbers that are not ascending integers"),
        ("onset_s,duration_s,stage\n0,30,W\n30,30\n", "row 2 of its stages has too few columns"),
        ("onset_s,duration_s,stage\n0,60,W\n30,30,N1\n", "stages overlap: one lasts 0..60 s, the next starts at 30 s"),
        ("onset_s,duration_s,stage\n0,30,W\n1e9,30,N1\n", "spans 11574 days"),
    ],
)
def test_tables_that_cannot_be_right(tmp_path, content, problem):
    assert problem in refusal(text(tmp_path, content))


def test_files_that_are_none(tmp_path):
    assert refusal(tmp_path / "h.csv") == "does not exist; check the path"
    (tmp_path / "h.csv").write_bytes(bytes(range(256)))
    assert refusal(tmp_path / "h.csv") == "is not a text file; give an EDF+, XML, CSV or text hypnogram"
    (tmp_path / "h.edf").write_bytes(b"")
    assert refusal(tmp_path / "h.edf") == "is empty (0 bytes); copy or download it again"


def test_annotations_without_stages_and_with_unknown_ones(tmp_path):
    path = annotated(tmp_path / "h.edf", (0.0, 3.0, "Arousal"), (9.0, 3.0, "Spindle"))
    assert refusal(path) == "has no sleep stage among its annotations ('Arousal', 'Spindle'); give the hypnogram file"
    path = annotated(tmp_path / "h.edf", (0.0, 30.0, "Sleep stage W"), (30.0, 30.0, "Sleep stage 7"))
    assert refusal(path).startswith("has unknown stages: 'Sleep stage 7'; use W, N1, N2, N3, REM or ?")


def test_onsets_off_any_grid_are_laid_on_seconds(tmp_path):
    night = read_hypnogram(text(tmp_path, "onset_s,duration_s,stage\n0,30.1234,W\n30.1234,29.8766,N1\n"))
    assert night.epoch_s == 1.0
    np.testing.assert_array_equal(night.stages, [0] * 30 + [1] * 30)
    assert "onsets lie on no grid of whole seconds" in night.warnings[0]


nights = st.builds(
    lambda stages, epoch_s, onset: Hypnogram(
        np.array(stages, np.int8), epoch_s, onset * epoch_s, datetime(2003, 1, 2, 3)
    ),
    st.lists(st.integers(-1, 4), min_size=1, max_size=30),
    st.sampled_from([4.0, 5.0, 20.0, 30.0]),
    st.integers(0, 3),
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights)
def test_what_is_written_is_read(tmp_path, night):
    write_annotations(night.annotations(), night.start, tmp_path / "h.edf")
    back = read_hypnogram(tmp_path / "h.edf")
    assert (back.onset_s, back.start) == (night.onset_s, night.start)
    np.testing.assert_array_equal(
        np.repeat(back.stages, round(back.epoch_s)), np.repeat(night.stages, round(night.epoch_s))
    )


def test_written_files_read_well_elsewhere(tmp_path):
    night = Hypnogram(np.array([0, 3, 3, -1], np.int8), 30.0)
    write_annotations(night.annotations(), night.start, tmp_path / "h.edf")
    found = edfio.read_edf(tmp_path / "h.edf").annotations
    assert [tuple(a) for a in found] == [
        (0.0, 30.0, "Sleep stage W"),
        (30.0, 60.0, "Sleep stage 3"),
        (90.0, 30.0, "Sleep stage ?"),
    ]


def test_rodent_scorings_go_both_ways(tmp_path):
    night = Hypnogram(np.array([0, 1, 2, -1], np.int8), 4.0, stage_names=RODENT_STAGES)
    write_annotations(night.annotations(), night.start, tmp_path / "h.edf")
    back = read_hypnogram(tmp_path / "h.edf", ScoringOptions(stage_names=RODENT_STAGES))
    np.testing.assert_array_equal(back.stages, night.stages)


def test_sleep_edfs_own_files_hold_what_they_should(shared_data):
    totals = dict.fromkeys(("W", "N1", "N2", "N3", "REM", "unscored"), 0)
    for path in sorted((shared_data / "sleep_edfx_hypnograms").glob("*.edf")):
        night = read_hypnogram(path)
        assert (night.epoch_s, night.onset_s, night.warnings) == (30.0, 0.0, ())
        for name, count in stage_counts(night.stages).items():
            totals[name] += count
    assert totals == {"W": 37115, "N1": 1689, "N2": 8927, "N3": 3074, "REM": 3693, "unscored": 3102}


@pytest.mark.parametrize(
    ("excerpt", "counts"),
    [(1, (56, 12, 220, 72, 0)), (2, (4, 20, 200, 136, 0)), (3, (32, 88, 224, 16, 0)), (7, (8, 36, 244, 44, 28))],
)
def test_dreams_scorings_hold_what_they_should(shared_data, excerpt, counts):
    night = read_hypnogram(shared_data / "sleep_dreams_spindles" / f"Hypnogram_excerpt{excerpt}.txt")
    assert tuple(stage_counts(night.stages).values()) == (*counts, 0)
