"""Sources of every kind become epochs; what is to be known of each recording stands in one table."""

import numpy as np
import pytest

from src.preprocess.sleep.epochs import EpochSettings
from src.preprocess.sleep.features import FeatureSettings
from src.preprocess.sleep.prepare import EpochArtifact, prepare_nights, recordings_table
from src.signals import BadInput
from tests.composed import composed
from tests.recordings.sleep.test_scoring_kinds import STAGES, TRUE, every_30_s, recording, scoring, table
from tests.tables import printed

SETTINGS = EpochSettings(("Fpz-Cz",), features=FeatureSettings(fs_hz=10.0, max_hz=5.0), margin_s=None)


def prepare(tmp_path, **source):
    return prepare_nights(source, SETTINGS, cache=tmp_path / "cache", workers=1)


def test_the_table_says_how_every_recording_was_read(tmp_path):
    recording(tmp_path / "in" / "a.edf")
    (tmp_path / "in" / "a.txt").write_text("\n".join(STAGES[i * 2 // 3] for i in range(90)))
    recording(tmp_path / "in" / "b.edf")
    scoring(tmp_path / "in" / "b-Hypnogram.edf", ["Quiet" if name == "N2" else name for name in STAGES])
    recording(tmp_path / "in" / "c.edf")
    artifacts, summary = prepare(
        tmp_path, kind="edf_folder", root=tmp_path / "in", stage_names={"Quiet": "N2"}, scoring=None, licence="CC0"
    )
    (failure,) = summary.failures
    assert (failure.name, "has no hypnogram; put one beside it" in failure.reason) == ("c", True)
    assert [artifact.facts["counts"]["N2"] for artifact in artifacts] == [20, 20]
    lines = printed(recordings_table(artifacts), 200)
    for text in ("Fpz-Cz (uV, 10 Hz)", "a.txt: one stage a line, epochs of 20 s", "90 epochs over 1800 s", "100%",
                 "b-Hypnogram.edf: EDF+", "annotations"):  # fmt: skip
        assert text in lines


def test_integers_of_a_source_mean_what_it_says(tmp_path):
    recording(tmp_path / "in" / "a.edf")
    table(tmp_path / "in" / "a.csv", every_30_s([5 if code == 4 else code for code in TRUE]))
    source = {"kind": "edf_folder", "root": tmp_path / "in"}
    assert "stage_coding=" in prepare(tmp_path, **source)[1].failures[0].reason
    rows = [(*row, "A") for row in every_30_s([5 if code == 4 else code for code in TRUE])]
    others = [(onset, duration, 0, "B") for onset, duration, _, _ in rows]
    table(tmp_path / "in" / "a.csv", [*rows, *others], "onset,duration,stage,scorer")
    assert "name one: source.scorer=A" in prepare(tmp_path, **source, stage_coding="edf")[1].failures[0].reason
    (artifact,), _ = prepare(tmp_path, **source, stage_coding="edf", scorer="A")
    assert artifact.facts["counts"]["REM"] == 10
    assert artifact.facts["scoring"] == "a.csv: table of onsets, integers as edf, epochs of 30 s"


def test_findings_of_the_signal_check_stand_in_the_table(tmp_path):
    facts = {
        "signals": [{"channel": "[b]C3", "units": "uV", "fs_hz": 100.0, "findings": ["mains hum stands 20 dB above"]}],
        "epochs": 10,
        "counts": {"W": 5, "unscored": 5},
        "warnings": ["hypnogram leaves 60 s of the signal unscored"],
    }
    lines = printed(
        recordings_table([EpochArtifact("n", "s", tmp_path, facts), EpochArtifact("m", "s", tmp_path, {})]), 200
    )
    for text in ("[b]C3 (uV, 100 Hz)", "mains hum", "50%", "leaves 60 s"):
        assert text in lines


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"kind": "edfs"}, "source.kind: 'edfs' is not known; choose from: several, sleep_edf, edf_folder"),
        ({"kind": "edf_folder"}, "missing 1 required keyword-only argument: 'root'; see conf/source"),
        ({"kind": "simulated", "persons": 3}, "got an unexpected keyword argument 'persons'; see conf/source"),
    ],
)
def test_sources_that_are_none(tmp_path, source, problem):
    with pytest.raises(BadInput) as caught:
        prepare(tmp_path, **source)
    assert problem in str(caught.value)


def test_finished_epochs_bring_their_facts(tmp_path):
    recording(tmp_path / "in" / "sub-7_a.edf")
    table(tmp_path / "in" / "sub-7_a.csv", every_30_s())
    prepare(tmp_path, kind="edf_folder", root=tmp_path / "in")
    (artifact,), _ = prepare(tmp_path, kind="prepared", root=tmp_path / "cache", subject_pattern="(sub-[0-9])")
    assert (artifact.subject_id, artifact.facts["epochs"]) == ("sub-7", 60)
    np.testing.assert_array_equal(artifact.facts["share_scored"], 1.0)


def test_what_the_hints_say_to_type_composes():
    typed = ["source.stage_names={Quiet: N2}", "source.stage_coding=edf", "source.scorer=A"]
    typed.append("source.scoring='{stem}.txt'")
    source = composed("train", "experiment=sleep_cnn", "source=edf_folder", "source.root=x", *typed).source
    assert (source.stage_names, source.stage_coding, source.scoring) == ({"Quiet": "N2"}, "edf", "{stem}.txt")
    assert source.scorer == "A"


@pytest.mark.parametrize("cohort", [{"subjects": 0}, {"nights": -1}, {"hours": -1.0}])
def test_a_cohort_of_nothing_is_refused_before_it_is_simulated(tmp_path, cohort):
    (name,) = cohort
    with pytest.raises(BadInput, match=f"source.{name}: is {cohort[name]}; give"):
        prepare_nights({"kind": "simulated", **cohort}, EpochSettings(), cache=tmp_path, workers=1)
    assert not any(tmp_path.iterdir())
