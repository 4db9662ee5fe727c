"""Scorings as people bring them, each with a recording: read right, or refused with what to type."""

import datetime

import numpy as np
import pytest

from src.signals import UNSCORED
from tests.recordings.sleep.made_scorings import (
    AASM,
    EVENING,
    MARK,
    R_AND_K,
    SLEEP_EDF,
    STAGES,
    TRUE,
    every_30_s,
    in_edf,
    read,
    recording,
    refused,
    right,
    scoring,
    table,
)


@pytest.mark.parametrize(("coding", "numbers"), [("aasm", AASM), ("edf", R_AND_K)])
@pytest.mark.parametrize("form", ["edf", "csv", "txt", "inside", "xml", "eannot"])
def test_integers_mean_the_same_in_every_format(tmp_path, coding, numbers, form):
    names = [numbers[stage] for stage in STAGES]
    recording(tmp_path / "n.edf", [MARK(*row) for row in every_30_s(names)] if form == "inside" else None)
    if form == "edf":
        scoring(tmp_path / "n_hypnogram.edf", names)
    elif form == "csv":
        table(tmp_path / "n.csv", every_30_s(names))
    elif form == "xml":
        stages = "".join(f"<SleepStage>{name}</SleepStage>" for name in names)
        (tmp_path / "n.xml").write_text(f"<CMPStudyConfig><SleepStages>{stages}</SleepStages></CMPStudyConfig>")
    elif form != "inside":
        (tmp_path / f"n.{form}").write_text("\n".join(names))
    assert right(tmp_path, coding=coding) == []
    if coding == "aasm":
        assert "is stage_coding=aasm meant?" in read(tmp_path, coding="edf")[1]["warnings"][0]
    if form in ("edf", "csv", "txt", "eannot"):
        refused(tmp_path, r"has bare integers for stages .* say which: source.stage_coding=aasm\|edf")
        if coding == "edf":
            refused(tmp_path, "unknown stages in the coding 'aasm': '5'", coding="aasm")


@pytest.mark.parametrize(
    "names",
    [
        SLEEP_EDF,
        {"W": "SLEEP-S0", "N1": "SLEEP-S1", "N2": "SLEEP-S2", "N3": "SLEEP-S3", "REM": "SLEEP-REM"},
        {"W": "Stage - W", "N1": "Stage - N1", "N2": "Stage - N2", "N3": "Stage - N3", "REM": "Stage - R"},
        {
            "W": "Wake|0",
            "N1": "Stage 1 sleep|1",
            "N2": "Stage 2 sleep|2",
            "N3": "Stage 4 sleep|4",
            "REM": "REM sleep|5",
        },
        {"W": "WK", "N1": "S1", "N2": "S2", "N3": "S4", "REM": "RE"},
        {"W": "W", "N1": "1", "N2": "2", "N3": "3", "REM": "R"},
    ],
)
@pytest.mark.parametrize("form", ["edf", "txt", "tsv"])
def test_names_mean_the_same_in_every_format(folder, names, form):
    given = [names[stage] for stage in STAGES]
    if form == "edf":
        scoring(folder / "n-Hypnogram.edf", given)
    elif form == "txt":
        (folder / "n.txt").write_text("\n".join(given))
    else:
        rows = [f"{30 * i}\t30\t{name}" for i, name in enumerate(given)]
        (folder / "n_events.tsv").write_text("\n".join(["onset\tduration\ttrial_type", *rows]))
    assert right(folder) == []


@pytest.mark.parametrize(("unit", "factor"), [("(min)", 60), ("[h]", 3600), ("_ms", 0.001), (" s", 1)])
def test_times_have_the_unit_of_their_heading(folder, unit, factor):
    table(folder / "n.csv", [(f"{30 * i / factor:.7f}", name) for i, name in enumerate(STAGES)], f"time{unit},stage")
    assert right(folder) == []
    table(folder / "n.csv", [(300 * i, name) for i, name in enumerate(STAGES)], "onset (samples),stage")
    refused(folder, "in samples; give seconds from the start")


def test_clock_times_count_under_any_heading(folder):
    clocks = [f"23:{i // 2:02d}:{i % 2 * 30:02d},000; {name}" for i, name in enumerate(STAGES)]
    for preamble in ("Rate: 30 s\nEvents list: N3, N2", "Uhr; Stage"):
        (folder / "n.txt").write_text("\n".join([preamble, *clocks[3:]]), encoding="cp1252")
        np.testing.assert_array_equal(read(folder)[0], [*[-1] * 3, *TRUE[3:]])


def test_durations_alone_follow_one_another(folder):
    runs = [("W", 300), ("N1", 150), ("N2", 600), ("N3", 300), ("REM", 300), ("W", 150)]
    clocks = [(name, f"0:{length // 60:02d}:{length % 60:02d}") for name, length in runs]
    for rows in (runs, clocks):
        table(folder / "n.csv", rows, "stage,duration")
        assert right(folder) == []


@pytest.mark.parametrize(("coding", "numbers"), [("aasm", AASM), ("edf", R_AND_K)])
def test_numbered_stages_are_integers_where_a_coding_is_given(tmp_path, coding, numbers):
    in_edf(tmp_path, [f"Sleep stage {numbers[stage]}" for stage in STAGES])
    assert right(tmp_path, coding=coding) == []
    refused(tmp_path, r"integers for stages \(Sleep stage 0, .* say which: source.stage_coding=aasm")


@pytest.mark.parametrize("wake", ["Sleep stage 0", "Sleep stage W"])
def test_numbers_that_may_be_wake_or_rem_are_refused_however_few(tmp_path, wake):
    rem = "Sleep stage 4" if wake.endswith("0") else "Sleep stage 5"
    in_edf(tmp_path, [wake, *["Sleep stage 2"] * 50, "Sleep stage 3", rem])
    refused(tmp_path, r"integers for stages \(Sleep stage .* say which: source.stage_coding=aasm")


def test_a_bare_4_in_a_file_without_rem_is_refused(folder):
    (folder / "n.txt").write_text("\n".join({"W": "W"}.get(name, AASM[name]) for name in STAGES))
    refused(folder, r"has bare integers for stages \(1, 2, 3, 4\)")


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("form", ["clock", "onset", "edf"])
def test_unknown_stages_without_durations_are_not_the_stage_before_them(folder, form, changes):
    """As events they would be left out, and N1 would last to N3."""
    names = [*STAGES[:25], *STAGES[35:45], *STAGES[15:25], *STAGES[45:]]
    rows = [(i, "Zwei" if s == "N2" else s) for i, s in enumerate(names) if not changes or not i or names[i - 1] != s]
    if form == "edf":
        scoring(folder / "n-Hypnogram.edf", [], more=[MARK(30 * i, None, name) for i, name in rows])
    else:
        times = [f"23:{i // 2:02d}:{i % 2 * 30:02d}" if form == "clock" else 30 * i for i, _ in rows]
        table(folder / "n.csv", [(time, name) for time, (_, name) in zip(times, rows, strict=True)], "onset,stage")
    refused(folder, "has unknown stages: 'Zwei'")
    two = {"Zwei": "N2"}
    np.testing.assert_array_equal(read(folder, more_names=two)[0][:55], [TRUE[STAGES.index(s)] for s in names[:55]])


def test_events_off_the_grid_end_no_stage(folder):
    """Changes of stage and arousals, both without durations."""
    changes = [(30 * i, "", name) for i, name in enumerate(STAGES) if not i or STAGES[i - 1] != name]
    table(folder / "n.csv", [*changes, (607, "", "Arousal"), (990, "", "Arousal"), (450, "", "Lights off")])
    np.testing.assert_array_equal(read(folder)[0][:55], TRUE[:55])


def test_names_of_the_user(tmp_path):
    own = {"W": "awake?", "N1": "drowsy", "N2": "light", "N3": "deep", "REM": "dream"}
    in_edf(tmp_path, [own[stage] for stage in STAGES])
    refused(tmp_path, "has no sleep stage among its annotations")
    assert right(tmp_path, more_names={name: stage for stage, name in own.items()}) == []


@pytest.mark.parametrize(
    ("signal", "hypnogram", "day"),
    [
        (datetime.time(0, 5), datetime.time(0, 0), 1),
        (EVENING, datetime.time(0, 0), 1),
        (EVENING, datetime.time(0, 0), 2),
        (datetime.time(22, 30), datetime.time(22, 30), 9),
        (datetime.time(0, 0), datetime.time(22, 30), 9),
        (EVENING, datetime.time(22, 0), 1),
        (datetime.time(12, 0), datetime.time(22, 30), 9),
    ],
)
def test_clocks_that_cannot_be_believed(tmp_path, signal, hypnogram, day):
    recording(tmp_path / "n.edf", start=signal)
    scoring(tmp_path / "n-Hypnogram.edf", [SLEEP_EDF[stage] for stage in STAGES], start=hypnogram, day=day)
    notes = right(tmp_path)
    assert signal == hypnogram or "onsets taken from the start of the signal" in notes[0]


def test_a_scoring_that_begins_at_midnight_indeed(tmp_path):
    recording(tmp_path / "n.edf", start=datetime.time(23, 55))
    scoring(tmp_path / "n-Hypnogram.edf", STAGES[10:], start=datetime.time(0, 0), day=2)
    np.testing.assert_array_equal(read(tmp_path)[0][10:], TRUE[10:])


@pytest.mark.parametrize(
    ("first", "note"),
    [(STAGES[:20], "by days: times of day taken, dates ignored"), ([], "by days: onsets taken from the start")],
)
def test_a_date_that_is_a_day_off_does_not_count(tmp_path, first, note):
    """The recording has the date of the evening, the scoring that of the morning, and begins 10 minutes earlier."""
    recording(tmp_path / "n.edf", start=datetime.time(0, 30))
    scoring(tmp_path / "n-Hypnogram.edf", [*first, *STAGES], start=datetime.time(0, 20), day=2)
    assert any(note in warning for warning in right(tmp_path))


@pytest.mark.parametrize(("day", "late_s"), [(1, 300), (2, 300), (1, 30)])
def test_clocks_that_make_sense_are_believed(folder, day, late_s):
    late = (datetime.datetime(2020, 1, 1, 23) + datetime.timedelta(seconds=late_s)).time()
    scoring(folder / "n-Hypnogram.edf", STAGES[late_s // 30 :], start=late, day=day)
    stages, facts = read(folder)
    np.testing.assert_array_equal(stages[late_s // 30 :], TRUE[late_s // 30 :])
    assert facts["offset_s"] == late_s


@pytest.mark.parametrize("clock", ["%H:%M:%S", "%H.%M.%S", "%I:%M:%S %p", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.0"])
@pytest.mark.parametrize("first", [EVENING, datetime.time(23, 55)])
def test_clock_times_in_text(tmp_path, clock, first):
    recording(tmp_path / "n.edf", start=first)
    zero = datetime.datetime.combine(datetime.date(2020, 1, 1), first)
    rows = [f"{(zero + datetime.timedelta(seconds=30 * i)).strftime(clock)}\t{s}" for i, s in enumerate(STAGES)]
    (tmp_path / "n.txt").write_text("\n".join(["Time\tStage", *rows[4:]]))
    stages, facts = read(tmp_path)
    np.testing.assert_array_equal(stages, [*[-1] * 4, *TRUE[4:]])
    assert facts["scoring"] == "n.txt: table of clock times, epochs of 30 s"


@pytest.mark.parametrize("lines", [90, 180, 360, 1800])
def test_the_length_of_the_signal_says_how_long_a_line_lasts(folder, lines):
    (folder / "n.txt").write_text("\n".join(STAGES[i * 60 // lines] for i in range(lines)))
    assert right(folder) == [f"{lines} epochs over 1800 s of signal: taken as epochs of {1800 / lines:g} s"]


@pytest.mark.parametrize("lines", [40, 75, 130])
def test_a_text_of_another_length_is_refused(folder, lines):
    (folder / "n.txt").write_text("\n".join((STAGES * 3)[:lines]))
    refused(folder, f"has {lines} epochs, .* state the length of an epoch: source.text_epoch_s=")


@pytest.mark.parametrize(("lines", "epoch_s"), [(90, 30), (40, 30), (60, 20), (120, 30)])
def test_a_scoring_one_and_a_half_or_two_thirds_as_long_is_refused(folder, lines, epoch_s):
    table(folder / "n.csv", [(epoch_s * i, epoch_s, name) for i, name in enumerate((STAGES * 2)[:lines])])
    refused(folder, f"scores {lines * epoch_s} s in epochs of {epoch_s} s, the signal lasts 1800 s")
    if lines * epoch_s == 1200:
        stages, _ = read(folder, epoch_s=float(epoch_s))
        assert (stages >= 0).sum() == 40


def test_runs_of_epochs_of_any_length_are_no_reason_to_refuse(folder):
    """Runs of all different lengths over six tenths of the signal."""
    table(folder / "n.csv", [(0, 600, "W"), (600, 90, "N1"), (690, 30, "N2"), (720, 360, "N3")])
    stages, facts = read(folder)
    assert (stages[:36] >= 0).all()
    assert facts["scoring"].endswith("epochs of 30 s")


def test_a_scoring_of_the_middle_is_right_and_said(folder):
    table(folder / "n.csv", every_30_s()[10:50])
    stages, facts = read(folder)
    np.testing.assert_array_equal(stages, [*[-1] * 10, *TRUE[10:50], *[-1] * 10])
    assert facts["share_scored"] == pytest.approx(2 / 3, abs=1e-3)
    assert facts["warnings"] == ["hypnogram leaves 600 s of the signal unscored"]


@pytest.mark.parametrize("form", ["edf", "csv", "xml"])
def test_events_among_the_stages_are_counted_and_left_out(folder, form):
    events = [
        (605, 3, "Artifact"),
        (700, 3, "Arousal"),
        (60, None, "Lights off"),
        (615, 0, "255"),
        (0, 1800, "ECG bad"),
    ]
    if form == "edf":
        scoring(folder / "n-Hypnogram.edf", [SLEEP_EDF[stage] for stage in STAGES], more=[MARK(*e) for e in events])
    elif form == "csv":
        rows = [(onset, "n/a" if duration is None else duration, text) for onset, duration, text in events]
        table(folder / "n_events.csv", [*every_30_s(), *rows], "onset,duration,trial_type")
        (folder / "n_events.csv").rename(folder / "n.csv")
    else:
        made = [("Stages|Stages", stage + "|0", onset, length) for onset, length, stage in every_30_s()]
        made += [("Respiratory|Respiratory", "Obstructive apnea|OA", 605, 20), ("", "Recording Start Time", 0, 1800)]
        xml = "".join(
            f"<ScoredEvent><EventType>{kind}</EventType><EventConcept>{concept}</EventConcept>"
            f"<Start>{onset}</Start><Duration>{length}</Duration></ScoredEvent>"
            for kind, concept, onset, length in made
        )
        (folder / "n-nsrr.xml").write_text(f"<PSGAnnotation><ScoredEvents>{xml}</ScoredEvents></PSGAnnotation>")
    (note,) = right(folder)
    assert note.startswith(f"{2 if form == 'xml' else 5} annotations without a stage left out")
    assert ("Recording Start Time" if form == "xml" else "Lights off") in note


@pytest.mark.parametrize("unknown", [1, 20])
def test_epochs_of_unknown_names_in_a_list_of_clock_times(folder, unknown):
    """Domino's sleep profile: an unknown name stands for an epoch there, never for the stage before it."""
    names = [name if i < 60 - unknown else "Q" for i, name in enumerate(STAGES)]
    clocks = [f"{23 + i // 120}:{i // 2 % 60:02d}:{30 * (i % 2):02d},000" for i in range(60)]
    head = "Signal ID: SchlafProfil\\profil\nEvents list: N3,N2,N1,Rem,Wake\nRate: 30 s\n\n"
    (folder / "n.txt").write_text(head + "".join(f"{c}; {name}\n" for c, name in zip(clocks, names, strict=True)))
    if unknown > 6:
        refused(folder, "has unknown stages: 'Q'")
    else:
        stages, _ = read(folder)
        np.testing.assert_array_equal(stages, [*TRUE[:-unknown], *[UNSCORED] * unknown])


def test_a_person_s_stages_of_alice_are_read(folder):
    kinds = {"W": "Wake", "N1": "NonREM1", "N2": "NonREM2", "N3": "NonREM3", "REM": "REM"}
    made = "".join(f'<Stage Type="{kinds[name]}" Start="{onset}"/>' for onset, _, name in every_30_s())
    machine = '<MachineStaging><Stage Type="Wake" Start="0"/></MachineStaging>'
    (folder / "n.rml").write_text(
        f'<PatientStudy xmlns="x"><StagingData>{machine}<UserStaging>{made}</UserStaging></StagingData></PatientStudy>'
    )
    assert right(folder) == []


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
@pytest.mark.parametrize("stage", ["<SleepStage>{}</SleepStage>", '<SleepStage Stage="{}"/>'])
def test_xml_of_any_encoding_with_stages_as_text_or_attributes(folder, encoding, stage):
    made = "".join(stage.format(R_AND_K[name]) for name in STAGES)
    text = f'<?xml version="1.0" encoding="{encoding}"?><C><Note>M\xfcller</Note><SleepStages>{made}</SleepStages></C>'
    (folder / "n.xml").write_bytes(text.encode(encoding))
    assert right(folder) == []


@pytest.mark.parametrize("form", ["edf", "csv", "txt"])
def test_one_unknown_name_is_an_unscored_epoch(tmp_path, form):
    names = [*STAGES[:30], "Sleep stage X", *STAGES[31:]]
    recording(tmp_path / "n.edf")
    if form == "edf":
        scoring(tmp_path / "n-Hypnogram.edf", names)
    elif form == "csv":
        table(tmp_path / "n.csv", every_30_s(names))
    else:
        (tmp_path / "n.txt").write_text("\n".join(names))
    stages, facts = read(tmp_path)
    np.testing.assert_array_equal(stages, np.where(np.arange(60) == 30, -1, TRUE))
    assert facts["warnings"] == ["1 epoch with an unknown name ('Sleep stage X'): unscored"]


def test_many_unknown_names_are_refused(tmp_path):
    in_edf(tmp_path, [*STAGES[:20], *["Sleep stage X"] * 10, *STAGES[30:]])
    refused(tmp_path, "has unknown stages: 'Sleep stage X'; use W, .* source.stage_names={name: stage}")


@pytest.mark.parametrize("jitter_s", [0.004, 0.2, -0.004])
def test_overlaps_and_gaps_of_milliseconds(folder, jitter_s):
    table(folder / "n.csv", [(onset, 30 + jitter_s, name) for onset, _, name in every_30_s()])
    notes = right(folder)
    assert not notes or "overlapped the next by less than 0.5 s" in notes[0]
    table(folder / "n.csv", [(onset, 40, name) for onset, _, name in every_30_s()])
    refused(folder, "stages overlap: one lasts")


def test_lengths_that_are_absent_reach_to_the_next_stage(folder):
    for absent in ("n/a", "0", ""):
        table(folder / "n.csv", [(onset, absent, name) for onset, _, name in every_30_s()])
        assert right(folder) == []
    changes = [i for i in range(60) if i == 0 or STAGES[i] != STAGES[i - 1]]
    scoring(folder / "n-Hypnogram.edf", [], more=[MARK(30 * i, None, STAGES[i]) for i in changes])
    (folder / "n.csv").unlink()
    stages, facts = read(folder)
    np.testing.assert_array_equal(stages, [*TRUE[:56], *[-1] * 4])
    assert facts["warnings"][0] == "the last stage states no end: taken as 30 s long"
