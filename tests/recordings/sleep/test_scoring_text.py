"""Text scorings of many programs come out as the same rows."""

from pathlib import Path

import pytest

from src.recordings.sleep.scoring_text import parse_text, read_text
from src.signals import BadInput

REMLOGIC = """RemLogic Event Export
Patient:\tCAP
Recording Date:\t01/01/2009

Events Included:
SLEEP-MT
SLEEP-S0

Sleep Stage\tPosition\tTime [hh:mm:ss]\tEvent\tDuration[s]\tLocation
W\tUnknown Position\t23:59:30\tSLEEP-S0\t30\tROC-LOC
S1\tUnknown Position\t00:00:00\tSLEEP-S1\t30\tROC-LOC
S1\tUnknown Position\t00:00:07\tMCAP-A1\t5\tC4-A1
S2\tUnknown Position\t00:00:30\tSLEEP-S2\t30\tROC-LOC
"""
TABLE = [(0.0, 30.0, "W"), (30.0, 30.0, "N1"), (60.0, 30.0, "N2")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("onset;duration;stage\n0,0;30,0;W\n30,0;30,0;N1\n60,0;30,0;N2\n", "n.csv"),
        ('onset,duration,stage\n"0,0","30,0",W\n"30,0","30,0",N1\n"60,0","30,0",N2\n', "n.csv"),
        ("0 30 W\n30 30 N1\n60 30 N2\n", "n.txt"),
        ("# made by hand\n0\t30\tW\n30\t30\tN1\n60\t30\tN2\n", "n.txt"),
        ("start,end,label\n0,30,W\n30,60,N1\n60,90,N2\n", "n.csv"),
        ("class\tinstance\tchannel\tstart\tstop\tmeta\n"
         "W\t.\t.\t0\t30\t.\nN1\t.\t.\t30\t60\t.\nN2\t.\t.\t60\t+30\t.\n", "n.annot"),
        ("W\t.\t.\t0\t30\t.\nN1\t.\t.\t30\t60\t.\nN2\t.\t.\t60\t90\t.\n", "n.annot"),
        ("W\t.\t.\t0+00:00:00\t0+00:00:30\t.\nN1\t.\t.\t0+00:00:30\t+30\t.\n"
         "N2\t.\t.\t0+00:01:00\t0+00:01:30\t.\n", "n.annot"),
        ("W . . 0 30 .\nN1 . . 30 60 .\nN2 . . 60 90 .\n", "n.annot"),
        ("W\t.\te:1\te:1\nN1\t.\te:2\te:2\nN2\t.\te:3\te:3\n", "n.annot"),
        ("W\t.\te:30:1\te:30:1\nN1\t.\te:30:2\te:30:2\nN2\t.\te:30:3\te:30:3\n", "n.annot"),
        ("Date,Time,Recording onset, Duration, Annotation, Linked channel\n2018-01-01,23:00:00,0,30,W,\n"
         "2018-01-01,23:00:30,30,30,N1,\n2018-01-01,23:01:00,60,30,N2,\n", "n_sleepscoring.txt"),
    ],
)  # fmt: skip
def test_tables_of_onsets(text, name):
    found = parse_text(Path(name), text)
    assert (found.rows, found.start) == (TABLE, None)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (REMLOGIC, [(0, 30, "SLEEP-S0"), (30, 30, "SLEEP-S1"), (37, 5, "MCAP-A1"), (60, 30, "SLEEP-S2")]),
        ("Time,Event\n11:59:30 PM,Stage - W\n12:00:00 AM,Stage - N1\n",
         [(0, None, "Stage - W"), (30, None, "Stage - N1")]),
        ("2020-01-01 23.59.30\tW\n2020-01-02 00.00.00\tN1\n", [(0, None, "W"), (30, None, "N1")]),
        ("W\t31-Dec-19-23:59:30\nN1\t01-Jan-20-00:00:00\n", [(0, None, "W"), (30, None, "N1")]),
        ("23:59:30 00:00:00 W\n00:00:00 00:00:30 R\n00:00:30 00:01:00 W\n00:01:00 00:02:00 R\n",
         [(0, 30, "W"), (30, 30, "R"), (60, 30, "W"), (90, 60, "R")]),
        ("1\t23:59:30\tW\n2\t00:00:00\tR\n4\t00:01:00\tW\n", [(0, None, "W"), (30, None, "R"), (90, None, "W")]),
        ("time,stage\n23:59,W\n00:00,N1\n00:00,N2\n00:01,R\n",
         [(0, None, "W"), (30, None, "N1"), (60, None, "N2"), (90, None, "R")]),
        ("start,end,stage\n23:59:30,00:00:00,W\n00:00:00,00:00:30,R\n", [(0, 30, "W"), (30, 30, "R")]),
    ],
)  # fmt: skip
def test_clock_times_count_from_the_first_row(text, rows):
    found = parse_text(Path("n.txt"), text)
    assert [tuple(row) for row in found.rows] == rows
    assert (found.start.hour, found.start.minute, found.start.second) == (23, 59, 30)
    assert found.dated == any(year in text for year in ("2020", "-Jan-20-"))


@pytest.mark.parametrize(
    "text",
    ["Epoch,Stage\n0,WAKE\n1,N1\n3,ART\n", "Epoch,Stage\n1,WAKE\n2,N1\n4,ART\n", "nr;stage\n0;WAKE\n1;N1\n3;ART\n"],
)
def test_numbered_epochs_that_are_left_out_are_unscored(text):
    assert [row[2] for row in parse_text(Path("n.csv"), text).rows] == ["WAKE", "N1", "?", "ART"]


def test_other_encodings_and_files_that_are_no_text(tmp_path):
    for name, raw in (("a", "W\nN1 \u00fc".encode("latin-1")), ("b", "W\nN1 \u00fc".encode("utf-16"))):
        (tmp_path / name).write_bytes(raw)
        assert read_text(tmp_path / name) == "W\nN1 \u00fc"
    for text, encoding in (("覚醒\nレム", "cp932"), ("清醒\nN1期", "gb18030")):
        (tmp_path / "a").write_bytes(text.encode(encoding))
        assert read_text(tmp_path / "a") == text
    with (tmp_path / "large").open("wb") as handle:
        handle.truncate(1 << 27)
    with pytest.raises(BadInput, match="is too large for a scoring"):
        read_text(tmp_path / "large")
    with pytest.raises(BadInput, match="is a folder"):
        read_text(tmp_path)
