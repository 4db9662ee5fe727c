import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodules.grid_splits import GridSplit, consecutive, look_ahead, shuffled, split_frames
from src.datamodules.splits import PARTS
from src.signals import BadInput
from tests.forecast_data import random_subject, subject_grids

OPTIONS = {"val": 0.2, "test": 0.2, "block_frames": 25}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=40))
def test_stretches_are_usable_consecutive_and_as_long_as_can_be(frames):
    usable = np.array([u for u, _ in frames], bool)
    timepoints = np.cumsum([s for _, s in frames]) if frames else np.zeros(0, int)
    runs = consecutive(usable, timepoints)
    assert sorted(t for run in runs for t in run) == np.flatnonzero(usable).tolist()
    for run in runs:
        assert (np.diff(timepoints[run.start : run.stop]) == 1).all()
    for a, b in itertools.pairwise(runs):
        assert a.stop < b.start or timepoints[b.start] - timepoints[a.stop - 1] != 1


def split(grids, seed=0, **changes):
    return split_frames(grids, GridSplit(**(OPTIONS | changes)), window_frames=12, seed=seed)


def fish(**given):
    train = np.ones(300, bool)
    train[100:140] = False
    return random_subject(0, frames=300, is_train=train, **given)


@pytest.mark.parametrize("method", ["recorded", "blocks"])
@pytest.mark.parametrize("gap", [0, 5])
def test_parts_are_apart_by_the_gap(method, gap):
    stretches = split(fish(guard_frames=gap), method=method)
    frames = {part: np.array([t for run in stretches[part] for t in run]) for part in PARTS}
    for part in ("val", "test"):
        nearest = np.abs(frames["train"][:, None] - frames[part]).min()
        assert nearest > gap
    assert all(len(f) for f in frames.values())
    assert len(np.unique(np.concatenate(list(frames.values())))) == sum(len(f) for f in frames.values())


def test_the_gap_is_at_least_what_a_frame_looks_ahead_and_two_windows_are_a_block():
    grids = fish(guard_frames=2, frames_after=9)
    frames = {part: np.array([t for run in runs for t in run]) for part, runs in split(grids).items()}
    for part in ("val", "test"):
        assert np.abs(frames["train"][:, None] - frames[part]).min() == 10
    assert GridSplit(gap_frames=0).gap(grids) == 0
    long = random_subject(0, frames=2000, is_train=np.arange(2000) > 300)
    runs = split_frames(long, GridSplit(val=0.1), window_frames=140, seed=0)["val"]
    assert [len(run) for run in runs] == [280]


def test_a_file_that_does_not_say_how_far_it_looks_is_asked_for():
    assert look_ahead([fish(frames_after=3), fish(frames_after=7)]) == 7
    with pytest.raises(BadInput, match=r"fish.h5: does not say .* give datamodule.windows.gap"):
        look_ahead([fish(frames_after=3), fish(frames_after=None)])


def test_a_condition_is_held_out(tmp_path):
    table = tmp_path / "conditions.csv"
    table.write_text(
        "subject,first_frame,last_frame,condition\nfish,0,99,grating\nfish,100,179,taxis\nother,0,299,taxis\n"
    )
    stretches = split(fish(guard_frames=3), method="condition", conditions=str(table), held_out="taxis")
    assert stretches["test"] == [range(100, 180)]
    rest = {t for part in ("train", "val") for run in stretches[part] for t in run}
    assert not rest & set(range(97, 183))
    assert {0, 299} < rest
    with pytest.raises(BadInput, match="needs the conditions and the one to test"):
        GridSplit(method="condition")
    with pytest.raises(BadInput, match="no frame is left for test"):
        split(fish(), method="condition", conditions=str(table), held_out="looming")
    table.write_text("subject,first_frame,last_frame,condition\nother,0,299,taxis\n")
    with pytest.raises(BadInput, match="has no condition for fish"):
        split(fish(), method="condition", conditions=str(table), held_out="taxis")
    table.write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="is no table of conditions"):
        split(fish(), method="condition", conditions=str(table), held_out="taxis")


def test_invalid_frames_are_in_no_part():
    grids = fish()
    grids.is_valid[:10] = False
    stretches = split(grids)
    assert min(run.start for part in PARTS for run in stretches[part]) >= 10


def test_what_cannot_be_split_is_refused():
    for change, match in (({"method": "odd"}, "choose from: recorded"), ({"block_frames": 250}, "1 block to train")):
        with pytest.raises(BadInput, match=match):
            split(fish(), **change)
    with pytest.raises(BadInput, match="no frame is left for test"):
        split(random_subject(0, frames=300))


def test_shuffling_keeps_every_voxel_s_spikes_and_makes_rates_even():
    active = np.zeros((400, 3), bool)
    active[:200, 0] = active[200:, 1] = active[::40, 2] = True
    grids = subject_grids(active, [3, 4, 9], 1, is_train=np.arange(400) < 300)
    stretches = split(grids)
    used = np.array(sorted(t for part in PARTS for run in stretches[part] for t in run))
    before, after = (g.raster(0, 400)[used] for g in (grids, shuffled(grids, stretches, 0)))
    np.testing.assert_array_equal(before.sum(axis=0), after.sum(axis=0))
    early = after[used < 200].mean(axis=0)
    assert abs(early[0] - before[:, 0].mean()) < 0.1
    assert abs(early[1] - before[:, 1].mean()) < 0.1
