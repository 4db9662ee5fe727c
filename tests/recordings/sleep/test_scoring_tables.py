"""Tables and lists of stages in which the times are easily misread."""

import datetime

import numpy as np
import pytest

from src.signals import RODENT_STAGES
from tests.recordings.sleep.made_scorings import (
    AASM,
    STAGES,
    TRUE,
    every_30_s,
    read,
    recording,
    refused,
    right,
    scoring,
    table,
)


@pytest.mark.parametrize("first", [["Biocal"], ["Patient: X", "Scored by AB"]])
def test_first_lines_that_are_no_stages_are_a_heading_where_the_signal_says_so(folder, first):
    n = "1 line" if len(first) == 1 else "2 lines"
    (folder / "n.txt").write_text("\n".join([*first, "", *STAGES]))
    assert right(folder) == [f"{n} without a stage left out ({', '.join(map(repr, first))})"]
    (folder / "n.txt").write_text("\n".join([*first, *STAGES[len(first) :]]))
    stages, facts = read(folder)
    np.testing.assert_array_equal(stages, [*[-1] * len(first), *TRUE[len(first) :]])
    n = n.replace("line", "epoch")
    assert facts["warnings"] == [f"{n} with an unknown name ({', '.join(map(repr, first))}): unscored"]
    (folder / "n.txt").write_text("\n".join([*STAGES[:20], *first, *STAGES[20:40], "---", *STAGES[40:]]))
    assert f"{len(first) + 1} lines without a stage left out" in right(folder)[0]
    (folder / "n.txt").write_text("\n".join([*first, *STAGES[:-5]]))
    refused(folder, "does not say whether they are epochs; delete them if they are a heading, write")


def test_a_blank_line_among_the_stages_is_refused(folder):
    (folder / "n.txt").write_text("\n".join([*STAGES[:9], "", *STAGES[10:]]) + "\n\n")
    refused(folder, "has a blank line among its stages, 10 lines after the first; write")
    (folder / "n.txt").write_text("\n\n".join(STAGES))
    assert right(folder) == []


LATE = [(12 + i, name) for i, name in enumerate(STAGES[12:])]


@pytest.mark.parametrize(
    ("heading", "row"),
    [
        ("Schlafstadium\tZeit [hh:mm:ss]\tEreignis\tDauer[s]", "{own}\t{clock}\t{name}\t30"),
        ("Stade;D\xe9but;Dur\xe9e", "{name};{s},0;30,0"),
        ("Inicio;Fin;Fase", "{s};{end};{name}"),
        ("Epoche;Schlafstadium", "{number};{name}"),
        ("Epoche;Uhrzeit;HF;Stadium", "{number};{clock};61;{name}"),
        ("Zeitstempel,Stadium", "2020-01-01T{clock}+01:00,{name}"),
        ("Onset Duration Stage", "{s} 30 {name}"),
        ("Beginn,duration,Stadium", "{s},30,{name}"),
        ("Stadium,ende,Beginn", "{name},{end},{s}"),
        ("Uhrzeit;Arousals;Stadium", "{clock};1;{name}"),
        ("class instance channel start stop meta", "{name} . . {s} {end} ."),
    ],
)
def test_times_of_a_table_count_whatever_its_headings(folder, heading, row):
    """Read as one stage a line, a scoring that starts late would be shifted."""
    rows = [
        row.format(
            own=name, name=name, s=30 * i, end=30 * i + 30, number=i + 1, clock=f"23:{i // 2:02d}:{i % 2 * 30:02d}"
        )
        for i, name in LATE
    ]
    (folder / "n.txt").write_text("\n".join([heading, *rows]), encoding="latin-1")
    np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])


def test_minutes_and_numbers_of_epochs_are_not_taken_for_seconds(folder):
    for unit in (1, 0.5):
        table(folder / "n.csv", [(unit * i, name) for i, name in enumerate(STAGES)], "onset,stage")
        refused(folder, "minutes or numbers of epochs are taken for seconds so; name the column 'epoch'")


@pytest.mark.parametrize("late", [10, 17])
def test_clock_times_from_midnight_may_be_elapsed_times(tmp_path, late):
    """A scoring that is shorter than the recording fits both ways."""
    recording(tmp_path / "n.edf", start=datetime.time(23, 55, late % 10))
    clocks = [(f"00:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in enumerate(STAGES[:30])]
    table(tmp_path / "n.csv", clocks, "time,stage")
    if late == 10:
        refused(tmp_path, "which may be times of day or times from the start of the recording; give onsets in seconds")
    else:
        np.testing.assert_array_equal(read(tmp_path)[0][:30], TRUE[:30])


def test_a_recording_without_a_clock_takes_no_clock_times(tmp_path):
    recording(tmp_path / "n.edf", start=datetime.time(0, 0))
    table(tmp_path / "n.csv", [(f"23:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in LATE], "time,stage")
    refused(tmp_path, "the recording states 00:00:00, which stands for no clock; give onsets in seconds")


def test_an_anonymised_scoring_starts_with_the_recording(tmp_path):
    """Shorter than the recording, it would fit an hour later too."""
    recording(tmp_path / "n.edf", start=datetime.time(23, 55), day=5)
    scoring(tmp_path / "n-Hypnogram.edf", STAGES[:30], start=datetime.time(0, 0))
    np.testing.assert_array_equal(read(tmp_path)[0][:30], TRUE[:30])


def test_numbers_as_numpy_writes_them_and_columns_that_are_no_times(folder):
    (folder / "n.txt").write_text("\n".join(f"{int(AASM[name]):.18e}" for name in STAGES))
    assert right(folder, coding="aasm") == []
    rows = [(30 * i, 30, "sleep_stage", AASM[name], 7680 * i) for i, name in enumerate(STAGES)]
    table(folder / "n.csv", rows, "onset,duration,trial_type,value,sample")
    assert right(folder, coding="aasm") == []
    table(folder / "n.csv", [(i, name, f'"0,{60 + i % 7}"') for i, name in enumerate(STAGES)], ",stage,quality")
    assert right(folder) == []


@pytest.mark.parametrize("duration", ["", "30"])
def test_epochs_that_a_list_leaves_out_are_not_the_stage_before_them(folder, duration):
    rows = [(30 * i, duration, name) for i, name in enumerate(STAGES) if not 25 <= i < 40]
    table(folder / "n.csv", rows)
    np.testing.assert_array_equal(read(folder)[0], [*TRUE[:25], *[-1] * 15, *TRUE[40:]])


@pytest.mark.parametrize("heading", [[], ["Beginn,Dauer,Stadium"], ["onset,duration,stage"]])
def test_rows_in_another_order_are_put_in_order(folder, heading):
    rows = [f"{30 * i},30,{name}" for i, name in enumerate(STAGES)]
    (folder / "n.csv").write_text("\n".join([*heading, *rows[::-1]]))
    assert right(folder) == []


def test_empty_cells_at_the_ends_of_rows_and_units_in_cells(folder):
    rows = [f"\t23:{i // 2:02d}:{i % 2 * 30:02d}\tStage - {name}\t" for i, name in LATE]
    rows.insert(20, "\t23:10:07\tLimb Movement\t1.2 s")
    (folder / "n.txt").write_text("\n".join(["Channel\tTime\tEvent\tDuration", *rows]))
    np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])


def test_rows_without_their_last_cells(folder):
    rows = [f"{name},{30 * i}{',1.5' if i % 5 == 0 else ''}" for i, name in LATE]
    (folder / "n.csv").write_text("\n".join(["stage,onset,moved", *rows]))
    np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])
    (folder / "n.csv").write_text("\n".join(["Stadium,Beginn,Bewegung", *rows]))
    refused(folder, "has 49 rows without times that are understood, .*; name the column of times 'onset'")


def test_a_row_without_a_stage_is_an_epoch_where_rows_have_no_times(folder):
    rows = [f"x{i};{name}" if i != 30 else "x30" for i, name in enumerate(STAGES)]
    (folder / "n.csv").write_text("\n".join(["id;stage", *rows]))
    refused(folder, "row 31 of its stages has too few columns")


def test_lists_of_changes(folder):
    """Arousals stand on the grid too; numbers of epochs do not say how long a stage lasts."""
    changes = [i for i in range(60) if not i or STAGES[i - 1] != STAGES[i]]
    rows = [(30 * i, STAGES[i]) for i in changes] + [(360, "Arousal"), (600, "Arousal"), (1800, "Stage - No Stage")]
    table(folder / "n.csv", sorted(rows), "time,event")
    (note,) = right(folder)
    assert note == "2 annotations without a stage left out ('Arousal')"
    table(folder / "n.csv", [(i + 1, STAGES[i]) for i in changes], "epoch,stage")
    refused(folder, "names 6 of the epochs 1 to 56; give a row for every epoch, or onset_s,duration_s,stage")


def test_lines_that_do_not_fill_the_signal_are_said(folder):
    (folder / "n.txt").write_text("\n".join(STAGES[:56]))
    assert "56 epochs do not fill 1800 s of signal: taken as epochs of 30 s" in read(folder)[1]["warnings"][0]


@pytest.mark.parametrize("day", ["", "2020-01-01 "])
def test_clock_times_of_twelve_hours_need_am_and_pm(tmp_path, day):
    recording(tmp_path / "n.edf", start=datetime.time(0, 45))
    minutes = [45 + i // 2 for i in range(60)]
    clocks = [
        (f"{day}{minute // 60 or 12:02d}:{minute % 60:02d}:{i % 2 * 30:02d}", STAGES[i])
        for i, minute in enumerate(minutes)
    ]
    table(tmp_path / "n.csv", clocks, "time,stage")
    refused(tmp_path, "is half a day before the row above it; give 24-hour clock times, AM and PM")
    recording(tmp_path / "n.edf")
    table(tmp_path / "n.csv", [(f"11:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in LATE], "time,stage")
    refused(tmp_path, "they share no time")


def test_ends_alone_and_ends_that_may_be_starts(folder):
    """Visbrain writes the end of every run."""
    ends = [30 * (i + 1) for i in range(60) if i == 59 or STAGES[i] != STAGES[i + 1]]
    runs = "\n".join(f"{STAGES[end // 30 - 1]}\t{end}" for end in ends)
    (folder / "n.txt").write_text(f"*Duration_sec\t1800\n*Datafile\tX\n{runs}\n")
    assert right(folder) == []
    table(folder / "n.txt", [(f"23:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in LATE], "end,stage")
    refused(folder, "has ends of stages that are no ascending seconds")
    (folder / "n.txt").write_text(runs)
    refused(folder, "may be starts or ends .the first is 300.; name the columns: stage,onset or stage,stop")


def test_two_scorers_in_integers_are_said(folder):
    rows = [(i, AASM[name], AASM[STAGES[-i]]) for i, name in enumerate(STAGES)]
    table(folder / "n.csv", rows, "epoch,scorer1,scorer2")
    assert right(folder, coding="aasm") == [
        "columns 2 and 3 hold different stages: column 2 was read (source.scorer=scorer2 reads the other)"
    ]
    assert right(folder, coding="aasm", scorer="scorer1") != []


def test_columns_of_stages_between_which_no_heading_decides(folder):
    moved = [(i + 1, "0121"[i % 4], AASM[name]) for i, name in enumerate(STAGES)]
    people = [(i + 1, STAGES[-i], name) for i, name in enumerate(STAGES)]
    for heading, rows in (("epoch,moved,st", moved), ("epoch,P1,P2", people)):
        table(folder / "n.csv", rows, heading)
        refused(folder, "its columns 2 and 3 hold different stages; name one: source.scorer=", coding="aasm")
        assert right(folder, coding="aasm", scorer=heading.split(",")[2]) != []
    table(folder / "n.csv", people[1:], ",".join(map(str, people[0])))
    refused(folder, "write a heading, with 'stage' over the one to read")
    table(folder / "n.csv", [(i, "RL"[i // 30], name) for i, name in enumerate(STAGES)], "Epoche,Lage,Stadium")
    assert right(folder) == []  # R and L are sides of the body
    (folder / "n.csv").write_text("\n".join(",".join(STAGES * 2) for _ in "AB"))
    refused(folder, "has 2 lines of 120 stages, which may be of several scorers; give one stage a line")


def clocks(pattern, late=0, n=60, days=0):
    first = datetime.datetime(2020, 1, 1 + days, 23) + datetime.timedelta(seconds=30 * late)
    return [(first + datetime.timedelta(seconds=30 * i)).strftime(pattern) for i in range(n)]


@pytest.mark.parametrize(
    ("pattern", "mark"),
    [("%Y-%m-%d %H:%M:%S", ","), ("%d.%m.%Y;%H:%M:%S", ";"), ("%m/%d/%Y,%H:%M:%S", ","), ("%d-%b-%Y %H:%M:%S", "\t")],
)
def test_dates_say_in_which_night_a_scoring_lies(tmp_path, pattern, mark):
    heading = mark.join(["day", "time", "stage"][1 - pattern.count(mark) :])

    def write(days, first=0):
        lines = [f"{c}{mark}{s}" for c, s in zip(clocks(pattern, first, days=days), STAGES, strict=True)]
        (tmp_path / "n.txt").write_text(
            "\n".join(["Name:" + mark + "X", "Start:" + mark + "22:50:00", heading, *lines])
        )

    recording(tmp_path / "n.edf", start=datetime.time(22, 50), seconds=90_000)
    write(1)
    stages, facts = read(tmp_path)
    np.testing.assert_array_equal(stages[2900:2960], TRUE)
    write(5)
    doubts = read(tmp_path)[1]["doubts"]
    assert "by days: times of day taken, dates ignored" in doubts[0]
    recording(tmp_path / "n.edf")
    write(0, -10)
    stages, facts = read(tmp_path)
    np.testing.assert_array_equal(stages, [*TRUE[10:], *[-1] * 10])
    assert facts["doubts"] == ["5 min of it lie outside the recording"]


def test_one_date_for_the_whole_night(tmp_path):
    recording(tmp_path / "n.edf", start=datetime.time(23, 50))
    rows = [f"01.01.2020;{clock};{name}" for clock, name in zip(clocks("%H:%M:%S", 100), STAGES, strict=True)]
    (tmp_path / "n.csv").write_text("\n".join(["Datum;Zeit;Stadium", *rows]))
    assert right(tmp_path) == []


@pytest.mark.parametrize(
    ("heading", "clock"),
    [("elapsed,stage", "%H:%M:%S"), ("onset,stage", "1970-01-01 %H:%M:%S"), ("time,stage", "%H:%M:%S")],
)
def test_elapsed_times_as_clock_times(folder, heading, clock):
    """MNE writes 1970-01-01 where it knows no date."""
    times = [(datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=30 * i)).strftime(clock) for i, _ in LATE]
    table(folder / "n.csv", [(time, name) for time, (_, name) in zip(times, LATE, strict=True)], heading)
    if heading.startswith("time"):
        refused(folder, "has clock times from 00:06:00 on, which may be times of day or times from the start")
    else:
        np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])


@pytest.mark.parametrize(
    "line",
    ["Epoch {n}: {name}", "{n}: {name}", "EPOCH={n} STAGE={name}", "{n}. {name}", "{h} {name}", "1/1/2020 {h} {name}",
     "{n}   {am}   {name}", "{dots};{name}", "{t}:000,{name}", '{s};"0";"{name}"'],
)  # fmt: skip
def test_lines_with_a_number_or_a_time_before_the_stage(folder, line):
    times = zip(clocks("%H:%M:%S", 12), clocks("%Hh%Mm%Ss", 12), clocks("%I:%M:%S %p", 12), LATE, strict=False)
    rows = [
        line.format(n=i + 1, s=30 * i, name=name, h=h, t=t, am=am, dots=am.replace("M", ". m."))
        for t, h, am, (i, name) in times
    ]
    (folder / "n.txt").write_text("Hypnogram of X\n" + "\n".join(rows) + "\n\n")
    np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])


@pytest.mark.parametrize("per_line", [10, 60])
def test_several_stages_a_line(folder, per_line):
    for mark in (" ", ",", "\t"):
        lines = [mark.join(STAGES[i : i + per_line]) for i in range(0, 60, per_line)]
        (folder / "n.txt").write_text("\n".join(lines))
        assert right(folder) == []


def test_lines_before_and_after_a_table(folder):
    table(folder / "n.csv", [(f'"{i}"', *row) for i, row in enumerate(every_30_s(), 1)], "onset,duration,stage")
    assert right(folder) == []  # as R writes it
    rows = [f"{i + 1},{name}" for i, name in enumerate(STAGES)]
    (folder / "n.csv").write_text("\n".join(["Epoch,Stage", *rows, "", "Sleep time,25 min", "Efficiency,83 %"]))
    assert right(folder) == ["2 lines after the table left out ('Efficiency, 83 %')"]
    lines = [f"{30 * i}\t0\t0\t0\t{name}" for i, name in enumerate(STAGES)]
    (folder / "n.csv").write_text("\n".join(['"INFORMATION"', '"n"', '"30"\t"Mark"', *lines]))
    assert right(folder) == ["3 rows with too few columns left out"]
    recording(folder / "n.edf")
    changes = [i for i in range(60) if not i or STAGES[i - 1] != STAGES[i]]
    table(folder / "n.csv", [*((30 * i, STAGES[i]) for i in changes), (1800, "Stop Recording")], "time,event")
    assert right(folder) == ["1 annotation without a stage left out ('Stop Recording')"]


@pytest.mark.parametrize(
    "legend",
    ["# 1=Wake 2=REM 3=N1 4=N2 5=N3", "1: Wake, 2: REM, 3: N1, 4: N2, 5: N3", "# Wake=1, REM=2, N1=3, N2=4, N3=5"],
)
def test_a_legend_says_what_integers_mean(folder, legend):
    numbers = {"W": 1, "REM": 2, "N1": 3, "N2": 4, "N3": 5}
    (folder / "n.txt").write_text("\n".join([legend, *(str(numbers[name]) for name in STAGES)]))
    assert right(folder) == []
    refused(folder, "says itself what integers mean, and 1 is not what stage_coding=edf says", coding="edf")


def test_integers_without_wake_and_codings_of_rodents(folder):
    (folder / "n.txt").write_text("\n".join(str(1 + int(AASM[name])) for name in STAGES))
    assert read(folder, coding="edf")[1]["warnings"] == ["no integer stands for wake: is another stage_coding meant?"]
    refused(folder, "has integers in the coding 'rodent', which is for rodents", coding="rodent")
    states = np.array([2, 3, 1])[np.arange(60) // 20]
    (folder / "n.txt").write_text(
        "\n".join(["brain_state,confidence_score", *(f"{s},0.9{i}" for i, s in enumerate(states))])
    )
    stages, facts = read(folder, stage_names=RODENT_STAGES)
    np.testing.assert_array_equal(stages, np.arange(60) // 20)
    assert facts["warnings"] == ["was scored by a program, not by a person (it holds probabilities)"]
    refused(folder, "says itself what integers mean", stage_names=RODENT_STAGES, coding="rodent")


def test_a_person_s_stages_before_a_program_s_and_the_scorer_that_is_named(folder):
    rows = [(30 * i, 30, AASM[STAGES[-i]], AASM[name]) for i, name in enumerate(STAGES)]
    table(folder / "n.csv", rows, "onset,duration,stage_ai,stage_hum")
    (note,) = right(folder, coding="aasm")
    assert "column 4 was read (source.scorer=stage_ai reads the other)" in note
    stages, _ = read(folder, coding="aasm", scorer="stage_ai")
    np.testing.assert_array_equal(stages[1:], TRUE[:0:-1])
    rows = [(30 * i, 30, name, who) for who in "AB" for i, name in enumerate(STAGES)]
    table(folder / "n.csv", rows, "onset,duration,stage,scorer")
    refused(folder, r"holds the stages of 2 scorers \(A, B\); name one: source.scorer=A")
    assert right(folder, scorer="b") == []
    for name, other in (("Manual", "Automatic"), ("true", "pred"), ("Stage Tech", "Stage Auto")):
        table(folder / "n.csv", [(i, STAGES[-i], stage) for i, stage in enumerate(STAGES)], f"Epoch,{other},{name}")
        assert "column 3 was read" in right(folder)[0]
        np.testing.assert_array_equal(read(folder, scorer=other)[0][1:], TRUE[:0:-1])
    assert right(folder, scorer="AB")[-1] == "names no scorer 'AB': its only or first stages are read"


def test_several_recordings_in_one_table_are_refused(folder):
    rows = [(who, i + 1, name) for who in "AB" for i, name in enumerate(STAGES)]
    table(folder / "n.csv", rows, "subject,epoch,stage")
    refused(folder, "holds the rows of 2 recordings .column 'subject'.; give a file for each recording")
    table(folder / "n.csv", [("2", *row) for row in rows[:60]], "night,subject,epoch,stage")
    assert right(folder) == []


def test_the_scoring_of_a_night_beside_an_excerpt_is_not_doubted(tmp_path):
    recording(tmp_path / "n.edf", start=datetime.time(23, 10), seconds=600)
    clocks = [(f"23:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in enumerate(STAGES)]
    table(tmp_path / "n.csv", clocks, "time,stage")
    stages, facts = read(tmp_path)
    np.testing.assert_array_equal(stages, TRUE[20:40])
    assert facts["doubts"] == []
