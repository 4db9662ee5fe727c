"""Tables and lists of stages in which the times are easily misread."""

import datetime
import json

import numpy as np
import pytest

from tests.recordings.sleep.made_scorings import AASM, STAGES, TRUE, read, recording, refused, right, scoring, table


@pytest.mark.parametrize("first", [["Biocal"], ["Patient: X", "Scored by AB"]])
def test_first_lines_that_are_no_stages_are_a_heading_where_the_signal_says_so(tmp_path, first):
    recording(tmp_path / "n.edf")
    (tmp_path / "n.txt").write_text("\n".join([*first, "", *STAGES]))
    assert right(tmp_path) == [f"{len(first)} lines that are no stages left out ({', '.join(map(repr, first))})"]
    (tmp_path / "n.txt").write_text("\n".join([*first, *STAGES[len(first) :]]))
    stages, facts = read(tmp_path)
    np.testing.assert_array_equal(stages, [*[-1] * len(first), *TRUE[len(first) :]])
    assert facts["warnings"] == [f"{len(first)} epochs have unknown names ({', '.join(map(repr, first))}): unscored"]
    (tmp_path / "n.txt").write_text("\n".join([*STAGES[:20], *first, *STAGES[20:40], "---", *STAGES[40:]]))
    assert f"{len(first) + 1} lines that are no stages left out" in right(tmp_path)[0]
    (tmp_path / "n.txt").write_text("\n".join([*first, *STAGES[:-5]]))
    refused(tmp_path, "does not say whether they are epochs; delete them if they are a heading, write")


def test_a_blank_line_among_the_stages_is_refused(tmp_path):
    recording(tmp_path / "n.edf")
    (tmp_path / "n.txt").write_text("\n".join([*STAGES[:9], "", *STAGES[10:]]) + "\n\n")
    refused(tmp_path, "has a blank line among its stages, 10 lines after the first; write")
    (tmp_path / "n.txt").write_text("\n\n".join(STAGES))
    assert right(tmp_path) == []


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
def test_times_of_a_table_count_whatever_its_headings(tmp_path, heading, row):
    """Read as one stage a line, a scoring that starts late would be shifted."""
    recording(tmp_path / "n.edf")
    rows = [
        row.format(
            own=name, name=name, s=30 * i, end=30 * i + 30, number=i + 1, clock=f"23:{i // 2:02d}:{i % 2 * 30:02d}"
        )
        for i, name in LATE
    ]
    (tmp_path / "n.txt").write_text("\n".join([heading, *rows]), encoding="latin-1")
    np.testing.assert_array_equal(read(tmp_path)[0], [*[-1] * 12, *TRUE[12:]])


def test_minutes_and_numbers_of_epochs_are_not_taken_for_seconds(tmp_path):
    recording(tmp_path / "n.edf")
    for unit in (1, 0.5):
        table(tmp_path / "n.csv", [(unit * i, name) for i, name in enumerate(STAGES)], "onset,stage")
        refused(tmp_path, "minutes or numbers of epochs are taken for seconds so; name the column 'epoch'")


@pytest.mark.parametrize("late", [10, 17])
def test_clock_times_from_midnight_may_be_elapsed_times(tmp_path, late):
    """A scoring that is shorter than the recording fits both ways."""
    recording(tmp_path / "n.edf", start=datetime.time(23, 55, late % 10))
    clocks = [(f"00:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in enumerate(STAGES[:30])]
    table(tmp_path / "n.csv", clocks, "time,stage")
    if late == 10:
        refused(tmp_path, "which may be midnight or the start of the recording; give onsets in seconds")
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


def test_numbers_as_numpy_writes_them_and_columns_that_are_no_times(tmp_path):
    recording(tmp_path / "n.edf")
    (tmp_path / "n.txt").write_text("\n".join(f"{int(AASM[name]):.18e}" for name in STAGES))
    assert right(tmp_path, coding="aasm") == []
    rows = [(30 * i, 30, "sleep_stage", AASM[name], 7680 * i) for i, name in enumerate(STAGES)]
    table(tmp_path / "n.csv", rows, "onset,duration,trial_type,value,sample")
    assert right(tmp_path, coding="aasm") == []
    table(tmp_path / "n.csv", [(i, name, f'"0,{60 + i % 7}"') for i, name in enumerate(STAGES)], ",stage,quality")
    assert right(tmp_path) == []


@pytest.mark.parametrize("duration", ["", "30"])
def test_epochs_that_a_list_leaves_out_are_not_the_stage_before_them(tmp_path, duration):
    recording(tmp_path / "n.edf")
    rows = [(30 * i, duration, name) for i, name in enumerate(STAGES) if not 25 <= i < 40]
    table(tmp_path / "n.csv", rows)
    np.testing.assert_array_equal(read(tmp_path)[0], [*TRUE[:25], *[-1] * 15, *TRUE[40:]])


@pytest.mark.parametrize("heading", [[], ["Beginn,Dauer,Stadium"], ["onset,duration,stage"]])
def test_rows_in_another_order_are_put_in_order(tmp_path, heading):
    recording(tmp_path / "n.edf")
    rows = [f"{30 * i},30,{name}" for i, name in enumerate(STAGES)]
    (tmp_path / "n.csv").write_text("\n".join([*heading, *rows[::-1]]))
    assert right(tmp_path) == []


def test_empty_cells_at_the_ends_of_rows_and_units_in_cells(tmp_path):
    recording(tmp_path / "n.edf")
    rows = [f"\t23:{i // 2:02d}:{i % 2 * 30:02d}\tStage - {name}\t" for i, name in LATE]
    rows.insert(20, "\t23:10:07\tLimb Movement\t1.2 s")
    (tmp_path / "n.txt").write_text("\n".join(["Channel\tTime\tEvent\tDuration", *rows]))
    np.testing.assert_array_equal(read(tmp_path)[0], [*[-1] * 12, *TRUE[12:]])


def test_rows_without_their_last_cells(tmp_path):
    recording(tmp_path / "n.edf")
    rows = [f"{name},{30 * i}{',1.5' if i % 5 == 0 else ''}" for i, name in LATE]
    (tmp_path / "n.csv").write_text("\n".join(["stage,onset,moved", *rows]))
    np.testing.assert_array_equal(read(tmp_path)[0], [*[-1] * 12, *TRUE[12:]])
    (tmp_path / "n.csv").write_text("\n".join(["Stadium,Beginn,Bewegung", *rows]))
    refused(tmp_path, r"starts with lines that are no stages \('Stadium'\)")


def test_a_row_without_a_stage_is_an_epoch_where_rows_have_no_times(tmp_path):
    recording(tmp_path / "n.edf")
    rows = [f"x{i};{name}" if i != 30 else "x30" for i, name in enumerate(STAGES)]
    (tmp_path / "n.csv").write_text("\n".join(["id;stage", *rows]))
    refused(tmp_path, "row 31 of its stages has too few columns")


def test_lists_of_changes(tmp_path):
    """Arousals stand on the grid too; numbers of epochs do not say how long a stage lasts."""
    recording(tmp_path / "n.edf")
    changes = [i for i in range(60) if not i or STAGES[i - 1] != STAGES[i]]
    rows = [(30 * i, STAGES[i]) for i in changes] + [(360, "Arousal"), (600, "Arousal"), (1800, "Stage - No Stage")]
    table(tmp_path / "n.csv", sorted(rows), "time,event")
    (note,) = right(tmp_path)
    assert note == "2 annotations that are not stages left out ('Arousal')"
    table(tmp_path / "n.csv", [(i + 1, STAGES[i]) for i in changes], "epoch,stage")
    refused(tmp_path, "names 6 of the epochs 1 to 56; give a row for every epoch, or onset_s,duration_s,stage")


def test_lines_that_do_not_fill_the_signal_are_said(tmp_path):
    recording(tmp_path / "n.edf")
    (tmp_path / "n.txt").write_text("\n".join(STAGES[:56]))
    assert "56 epochs do not fill 1800 s of signal: taken as epochs of 30 s" in read(tmp_path)[1]["warnings"][0]


def test_clock_times_of_twelve_hours_need_am_and_pm(tmp_path):
    recording(tmp_path / "n.edf", start=datetime.time(0, 45))
    clocks = [
        (f"{(45 + i // 2) // 60 or 12:02d}:{(45 + i // 2) % 60:02d}:{i % 2 * 30:02d}", s) for i, s in enumerate(STAGES)
    ]
    table(tmp_path / "n.csv", clocks, "time,stage")
    refused(tmp_path, "is half a day before the row above it; give 24-hour clock times, AM and PM")


def test_ends_alone_and_ends_that_may_be_starts(tmp_path):
    """Visbrain writes the end of every run."""
    recording(tmp_path / "n.edf")
    ends = [30 * (i + 1) for i in range(60) if i == 59 or STAGES[i] != STAGES[i + 1]]
    runs = "\n".join(f"{STAGES[end // 30 - 1]}\t{end}" for end in ends)
    (tmp_path / "n.txt").write_text(f"*Duration_sec\t1800\n*Datafile\tX\n{runs}\n")
    assert right(tmp_path) == []
    table(tmp_path / "n.txt", [(f"23:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in LATE], "end,stage")
    refused(tmp_path, "has ends of stages that are no ascending seconds")
    (tmp_path / "n.txt").write_text(runs)
    refused(tmp_path, "may be starts or ends .the first is 300.; name the columns: stage,onset or stage,stop")


def test_two_scorers_in_integers_are_said(tmp_path):
    recording(tmp_path / "n.edf")
    rows = [(i, AASM[name], AASM[STAGES[-i]]) for i, name in enumerate(STAGES)]
    table(tmp_path / "n.csv", rows, "epoch,scorer1,scorer2")
    assert right(tmp_path, coding="aasm") == ["columns 2 and 3 hold different stages: column 2 was read"]


@pytest.mark.parametrize("text", [json.dumps(STAGES), json.dumps({"night": STAGES}), ",".join(STAGES)])
def test_stages_in_one_list(tmp_path, text):
    recording(tmp_path / "n.edf")
    (tmp_path / "n.json").write_text(text)
    assert right(tmp_path, pattern="{stem}.json") == []


def test_events_of_embla_have_clock_times(tmp_path):
    recording(tmp_path / "n.edf")
    kinds = {"W": "SLEEP-S0", "N1": "SLEEP-S1", "N2": "SLEEP-S2", "N3": "SLEEP-S3", "REM": "SLEEP-REM"}
    clocks = [f"2020-01-01T23:{i // 2:02d}:{i % 2 * 30:02d}.000000" for i in range(60)] + ["2020-01-01T23:30:00.0"]
    events = [(clocks[i], clocks[i + 1], kinds[name]) for i, name in LATE]
    made = "".join(
        f"<Event><Type>{name}</Type><StartTime>{a}</StartTime><StopTime>{b}</StopTime></Event>" for a, b, name in events
    )
    (tmp_path / "n.xml").write_text(f"<EventExport><Events>{made}</Events></EventExport>")
    np.testing.assert_array_equal(read(tmp_path)[0], [*[-1] * 12, *TRUE[12:]])


def test_the_scoring_of_a_night_beside_an_excerpt_is_not_doubted(tmp_path):
    recording(tmp_path / "n.edf", start=datetime.time(23, 10), seconds=600)
    clocks = [(f"23:{i // 2:02d}:{i % 2 * 30:02d}", name) for i, name in enumerate(STAGES)]
    table(tmp_path / "n.csv", clocks, "time,stage")
    stages, facts = read(tmp_path)
    np.testing.assert_array_equal(stages, TRUE[20:40])
    assert facts["doubts"] == []
