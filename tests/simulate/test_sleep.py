"""A simulated night is a Sleep-EDF pair that the readers take."""

from pathlib import Path

import numpy as np
import pytest

from src.recordings.sleep.edf import read_annotations
from src.recordings.sleep.nights import discover
from src.recordings.sleep.scoring_files import read_hypnogram
from src.signals import BadInput
from src.simulate.sleep import SIMULATE_NIGHTS, main, write_night
from src.storage.step import ensure
from tests.nights import load, read_recording

GOLDEN_STAGES = "000112222222101122222222222000"
GOLDEN_SPREADS_UV = [[27.019, 15.189, 25.259], [16.048, 13.522, 18.994], [16.865, 17.446, 47.476]]


def test_night_is_found_and_read(tmp_path):
    write_night(tmp_path, 7, 2, seed=1, hours=1.0)
    (night,) = discover("sleep_edf", tmp_path)
    assert (night.recording_id, night.subject_id) == ("SC4072", "SC407")
    recording, hypnogram = load(night, ["EEG Fpz-Cz", "Pz-Oz"], 100.0)
    assert recording.samples.shape == (2, 360_000)
    assert recording.units == ("uV", "uV")
    assert hypnogram is not None
    assert len(hypnogram.stages) == 120 + 30
    assert recording.start == hypnogram.start


def test_same_seed_same_bytes(tmp_path):
    first = [path.read_bytes() for path in write_night(tmp_path / "a", 0, 1, seed=3, hours=0.5)]
    assert first == [path.read_bytes() for path in write_night(tmp_path / "b", 0, 1, seed=3, hours=0.5)]
    assert first != [path.read_bytes() for path in write_night(tmp_path / "c", 0, 1, seed=4, hours=0.5)]


def test_scoring_looks_like_sleep_edfs(tmp_path):
    _, scoring = write_night(tmp_path, 3, 1, seed=1, hours=4.0)
    annotations = read_annotations(scoring).marks
    texts = {text for _, _, text in annotations}
    assert {f"Sleep stage {stage}" for stage in "W1234R?"} <= texts
    assert texts <= {f"Sleep stage {stage}" for stage in "W1234R?"} | {"Movement time"}
    assert annotations[-1] == (4 * 3600.0, 900.0, "Sleep stage ?")


def test_stage_writes_every_subject(tmp_path):
    params = {"subjects": [0, 1], "nights": 1, "hours": 0.5}
    artifact = ensure(SIMULATE_NIGHTS, {}, params, label="nights", cache=tmp_path, seed=5)
    assert [night.subject_id for night in discover("sleep_edf", artifact.path)] == ["SC400", "SC401"]
    counts = artifact.manifest["facts"]["counts"]
    assert sum(counts.values()) - counts["unscored"] == pytest.approx(120, abs=2)
    assert ensure(SIMULATE_NIGHTS, {}, params, label="nights", cache=tmp_path, seed=5).reused


def test_digest_of_a_night_moves_only_with_the_version(tmp_path):
    assert SIMULATE_NIGHTS.version == 4
    psg, scoring = write_night(tmp_path, 0, 1, seed=0, hours=0.25)
    stages = read_hypnogram(scoring).stages[:30]
    assert "".join(str(max(stage, 0)) for stage in stages) == GOLDEN_STAGES
    spreads = read_recording(psg).samples.reshape(3, 3, -1).std(axis=2)
    np.testing.assert_allclose(spreads, GOLDEN_SPREADS_UV, rtol=1e-3)


@pytest.mark.parametrize(("subject", "night", "hours"), [(100, 1, 1.0), (-1, 1, 1.0), (0, 0, 1.0), (0, 10, 1.0)])
def test_names_that_do_not_exist_are_refused(tmp_path, subject, night, hours):
    with pytest.raises(BadInput, match="use subjects 0-99, nights 1-9"):
        write_night(tmp_path, subject, night, seed=0, hours=hours)


def test_command_line(tmp_path, capsys):
    assert main([str(tmp_path), "--subjects", "2", "--hours", "0.25", "--first-subject", "8"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["SC4081E0-PSG.edf", "SC4091E0-PSG.edf"]
    assert main([str(tmp_path), "--hours", "0"]) == 2
    assert "ask for 0.1 to 24 h" in capsys.readouterr().out
