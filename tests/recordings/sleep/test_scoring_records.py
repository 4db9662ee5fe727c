"""Scorings in JSON and XML, however their epochs are nested."""

import json

import numpy as np
import pytest

from src.recordings.sleep.nights import discover
from tests.recordings.sleep.made_scorings import AASM, MARK, R_AND_K, STAGES, TRUE, read, refused, right, scoring
from tests.recordings.sleep.test_scoring_tables import LATE

EPOCHS = [{"epoch": i + 1, "start": 30 * i, "end": 30 * i + 30, "stage": name, "by": []} for i, name in LATE]


@pytest.mark.parametrize(
    "found",
    [
        STAGES,
        {"night": STAGES},
        {"epochs": STAGES, "scorer": "AB", "channels": ["C3", "C4"]},
        {"onset": [30 * i for i in range(60)], "duration": [30] * 60, "description": STAGES},
        [[30 * i, 30, name] for i, name in enumerate(STAGES)],
    ],
)
def test_lists_and_columns_in_json(folder, found):
    (folder / "n.json").write_text(json.dumps(found))
    assert right(folder) == []
    (folder / "n.json").write_text(json.dumps({"SamplingFrequency": 256, "EEGReference": "M1", "bad": [1, 2]}))
    assert discover("edf_folder", folder)[0].hypnogram is None


@pytest.mark.parametrize(
    "found", [EPOCHS, [EPOCHS, []], {"patient": "X", "epoch_length": 30, "night": {"epochs": EPOCHS}}]
)
def test_records_in_json(folder, found):
    (folder / "n.json").write_text(json.dumps(found))
    np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])


def test_integers_and_scorers_in_json(folder):
    (folder / "n.json").write_text(json.dumps([int(AASM[name]) for name in STAGES]))
    assert right(folder, coding="aasm") == []
    refused(folder, "has bare integers for stages")
    (folder / "n.json").write_text(json.dumps({"scorer_1": STAGES[::-1], "scorer_2": STAGES}))
    assert "source.scorer=scorer_2 reads the other" in read(folder)[1]["warnings"][0]
    np.testing.assert_array_equal(read(folder, scorer="scorer_2")[0], TRUE)


@pytest.mark.parametrize(("one", "other"), [("night1.stages", "night2.stages"), ("AB", "CD")])
def test_several_lists_in_json_of_which_one_has_to_be_named(folder, one, other):
    found: dict = {"night1": {"stages": STAGES[::-1]}, "night2": {"stages": STAGES}}
    if one == "AB":
        found = {"all": [{"scorer": "AB", "of": STAGES[::-1]}, {"scorer": "CD", "of": STAGES}]}
    (folder / "n.json").write_text(json.dumps(found))
    refused(folder, f"holds the stages of 2 scorers .{one}, {other}.; name one: source.scorer={one}")
    assert right(folder, scorer=other) == []


def wonambi(who, names):
    epochs = "".join(
        f"<epoch><epoch_start>{30 * i}</epoch_start><epoch_end>{30 * i + 30}</epoch_end><stage>{name}</stage></epoch>"
        for i, name in names
    )
    return f'<rater name="{who}"><events/><stages>{epochs}</stages></rater>'


@pytest.mark.parametrize(
    "made",
    [
        wonambi("AB", LATE),
        "".join(
            f"<annotation><onset>2020-01-01T23:{i // 2:02d}:{i % 2 * 30:02d}.0</onset><duration>30</duration>"
            f"<description>Sleep stage {name}</description></annotation>"
            for i, name in LATE
        ),
        "".join(f'<Epoch Number="{i + 1}" Stage="{name}"/>' for i, name in LATE),
    ],
)
def test_elements_of_other_programs(folder, made):
    """Wonambi, EDFbrowser and one that nobody knows."""
    (folder / "n.xml").write_text(f"<root><Note>W</Note>{made}</root>")
    np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])


def test_two_scorers_in_xml(folder):
    others = list(enumerate(STAGES[::-1]))
    (folder / "n.xml").write_text(f"<a>{wonambi('AB', others)}{wonambi('CD', list(enumerate(STAGES)))}</a>")
    refused(folder, r"holds the stages of 2 scorers \(AB, CD\); name one: source.scorer=AB")
    refused(folder, "holds the stages of 2 scorers", scorer="EF")
    assert right(folder, scorer="CD") == []


@pytest.mark.parametrize("form", ["{who}: Sleep stage {name}", "Sleep stage {name} ({who})", "{name}@@{who}"])
def test_two_scorers_in_annotations(folder, form):
    more = [MARK(30 * i, 30, form.format(who="Scorer 2", name=name)) for i, name in enumerate(STAGES[::-1])]
    names = [form.format(who="Scorer 1", name=name) for name in STAGES]
    scoring(folder / "n-Hypnogram.edf", names)
    assert right(folder) == []
    scoring(folder / "n-Hypnogram.edf", names, more=[*more, MARK(70, 3, "Arousal (N2)")])
    refused(folder, r"holds the stages of 2 scorers \(Scorer 1, Scorer 2\); name one: source.scorer=Scorer 1")
    assert right(folder, scorer="scorer 1") == ["1 annotation without a stage left out ('Arousal (N2)')"]


@pytest.mark.parametrize("form", ["{0} (remark on {0})", "Light sleep ({0})"])
def test_remarks_on_stages_are_no_scorers(folder, form):
    scoring(folder / "n-Hypnogram.edf", [form.format(name) if name != "REM" else name for name in STAGES])
    assert right(folder) == []


@pytest.mark.parametrize("name", ["n.edf.XML", "n-profusion.xml"])
def test_profusion_s_integers_are_stages_and_its_events_are_not(folder, name):
    stages = "".join(f"<SleepStage>{R_AND_K[name]}</SleepStage>" for name in STAGES)
    event = "<ScoredEvent><Name>Hypopnea</Name><Start>305</Start><Duration>20</Duration></ScoredEvent>"
    (folder / name).write_text(f"<C><EpochLength>30</EpochLength>{event * 90}<S>{stages}</S></C>")
    assert right(folder) == []


def test_events_of_embla_have_clock_times(folder):
    kinds = {"W": "SLEEP-S0", "N1": "SLEEP-S1", "N2": "SLEEP-S2", "N3": "SLEEP-S3", "REM": "SLEEP-REM"}
    clocks = [f"2020-01-01T23:{i // 2:02d}:{i % 2 * 30:02d}.000000" for i in range(60)] + ["2020-01-01T23:30:00.0"]
    events = [(clocks[i], clocks[i + 1], kinds[name]) for i, name in LATE]
    made = "".join(
        f"<Event><Type>{name}</Type><StartTime>{a}</StartTime><StopTime>{b}</StopTime></Event>" for a, b, name in events
    )
    (folder / "n.xml").write_text(f"<EventExport><Events>{made}</Events></EventExport>")
    np.testing.assert_array_equal(read(folder)[0], [*[-1] * 12, *TRUE[12:]])
