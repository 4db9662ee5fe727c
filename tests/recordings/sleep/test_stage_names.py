"""One table of stage names for every format."""

import pytest

from src.recordings.sleep.stage_names import integer_of, says_stage, stage_code
from src.signals import RODENT_STAGES, UNSCORED, BadInput


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("W", "Sleep stage W", "wake", "Stage W", "Awake", "SLEEP-S0", "Stage - W", "Wake|0", "WK", "WAKE"), 0),
        (("1", "N1", "S1", "Sleep stage 1", "Sleep stage N1", "NREM1", "stage_1", "SLEEP-S1", "Stage1"), 1),
        (("Stage 1 sleep|1", "NREM 1", "Stage - N1", "NREM stage 1", "Sleep stage N1@@EEG C3"), 1),
        (
            (
                "Light sleep (N2)",
                "Leichtschlaf (N2)",
                "St.2",
                "STG2",
                "Fase 2",
                "Estadio N2",
                "Leichtschlaf N2",
                "Slaapstadium 2",
            ),
            2,
        ),
        (("Sleep stage 2", "N2", "Stage - N2", "Stage 2 sleep|2", "STAGE2", "nonREM2"), 2),
        (("Sleep stage 3", "Sleep stage 4", "N3", "N4", "S4", "SWS", "Stage 3/4 sleep|3", "Slow wave sleep"), 3),
        (("R", "REM", "Sleep stage R", "sleep  stage rem", "SLEEP-REM", "REM sleep|5", "Stage - R", "RE"), 4),
        (("SDO:RapidEyeMovementSleep", "REM sleep (R)", "Stage R (REM)", "REM-Schlaf", "SP", "Sommeil paradoxal"), 4),
        (("N3 (SWS)", "Stage N3 (SWS)", "Stage N3 [S4]", "Stade 3", "Stadium 3", "NREM stage N3", "N3 (scorer 2)"), 3),
        (("Wake (W)", "Wach", "\u00c9veil", "Veille", "Wachzustand", "Despierto", "Waak", "覚醒", "清醒期"), 0),
        (("レム睡眠", "快速眼动期", "MOR", "STAGE=R", "Stage \u2013 R"), 4),
        (("段階2", "N2期", "第2期"), 2),
        (("ノンレム", "運動 3"), None),
        (("Tiefschlaf", "Deep sleep (N3)", "Sommeil lent profond"), 3),
        (("N2 (REM)", "W (artefact)", "Arousal (N2)", "Spindle (N2)", "Light sleep", "Leichtschlaf", "()"), None),
        (("SDO:NonRapidEyeMovementSleep-N2",), 2),
        (("?", "Sleep stage ?", "Movement time", "MT", "Artefact", "unscored", "SLEEP-MT", "Unscored|9"), UNSCORED),
        (("n/a", "Stage - No Stage", "UNS", "ART", "Sleep stage U", "SLEEP-UNSCORED", "L"), UNSCORED),
        (("5", "dream", "Lights off", "Sleep", "sleep stage", "Epoch 2", "Sleep stage 7", "Sleep apnea"), None),
        (("MCAP-A1", "Arousal", "SLEEP-S9", "Stage - X"), None),
    ],
)
def test_names_in_any_usual_spelling(names, code):
    assert [stage_code(name) for name in names] == [code] * len(names)


def test_rodent_names():
    names = ("Wake", "NREM", "SWS", "rem", "PS", "N2")
    assert [stage_code(name, RODENT_STAGES) for name in names] == [0, 1, 1, 2, 2, None]


def test_names_of_the_user_go_first():
    own = {"Quiet": "N2", "W": "REM", "noise": "?"}
    assert [stage_code(name, more=own) for name in ("quiet", "W", "noise", "N1")] == [2, 4, UNSCORED, 1]
    with pytest.raises(BadInput, match=r"source\.stage_names\.x: 'N9' is no stage"):
        stage_code("x", more={"x": "N9"})


def test_what_calls_itself_a_stage_and_what_is_a_number():
    assert [says_stage(name) for name in ("Sleep stage 7", "Stage - X", "SLEEP-S9", "stage_7", "N2", "Staged")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    assert [integer_of(name) for name in ("2", "2.0", "2,0", "-1", "2.5", "N2")] == [2, 2, 2, -1, None, None]
