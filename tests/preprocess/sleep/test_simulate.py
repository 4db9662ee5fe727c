"""A simulated night is a Sleep-EDF pair that the readers take."""

from src.preprocess.sleep.nights import discover, load
from src.preprocess.sleep.simulate import SIMULATE_NIGHTS, write_night
from src.preprocess.stage import ensure


def test_night_is_found_and_read(tmp_path):
    write_night(tmp_path, 7, 2, seed=1, hours=1.0)
    (night,) = discover("sleep_edf", tmp_path)
    assert (night.recording_id, night.subject_id) == ("SC4072", "SC407")
    recording, hypnogram = load(night, ["EEG Fpz-Cz", "Pz-Oz"], 100.0)
    assert recording.samples.shape == (2, 360_000)
    assert recording.units == ("uV", "uV")
    assert hypnogram is not None
    assert len(hypnogram.stages) == 120
    assert recording.start == hypnogram.start


def test_same_seed_same_bytes(tmp_path):
    first = [path.read_bytes() for path in write_night(tmp_path / "a", 0, 1, seed=3, hours=0.5)]
    assert first == [path.read_bytes() for path in write_night(tmp_path / "b", 0, 1, seed=3, hours=0.5)]
    assert first != [path.read_bytes() for path in write_night(tmp_path / "c", 0, 1, seed=4, hours=0.5)]


def test_stage_writes_every_subject(tmp_path):
    params = {"subjects": [0, 1], "nights": 1, "hours": 0.5}
    artifact = ensure(SIMULATE_NIGHTS, {}, params, label="nights", cache=tmp_path, seed=5)
    assert [night.subject_id for night in discover("sleep_edf", artifact.path)] == ["SC400", "SC401"]
    assert sum(artifact.manifest["facts"]["counts"].values()) == 120
    assert ensure(SIMULATE_NIGHTS, {}, params, label="nights", cache=tmp_path, seed=5).reused
