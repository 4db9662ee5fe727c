import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodules.grid_splits import consecutive, shuffled, split_frames
from src.datamodules.splits import PARTS
from src.signals import BadInput
from tests.forecast_data import random_subject, subject_grids

OPTIONS = {"val": 0.2, "test": 0.2, "block_frames": 25, "gap_frames": None, "seed": 0}


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


def fish(**given):
    train = np.ones(300, bool)
    train[100:140] = False
    return random_subject(0, frames=300, is_train=train, **given)


@pytest.mark.parametrize("method", ["recorded", "blocks"])
@pytest.mark.parametrize("gap", [0, 5])
def test_parts_are_apart_by_the_gap(method, gap):
    stretches = split_frames(fish(guard_frames=gap), method=method, **OPTIONS)
    frames = {part: np.array([t for run in stretches[part] for t in run]) for part in PARTS}
    for part in ("val", "test"):
        if method == "recorded" and part == "test":  # the file's own split keeps its own distance
            continue
        nearest = np.abs(frames["train"][:, None] - frames[part]).min()
        assert nearest > gap
    assert all(len(f) for f in frames.values())
    assert len(np.unique(np.concatenate(list(frames.values())))) == sum(len(f) for f in frames.values())


def test_invalid_frames_are_in_no_part():
    grids = fish()
    grids.is_valid[:10] = False
    stretches = split_frames(grids, method="recorded", **OPTIONS)
    assert min(run.start for part in PARTS for run in stretches[part]) >= 10


def test_what_cannot_be_split_is_refused():
    for change, match in (({"method": "odd"}, "unknown method"), ({"block_frames": 250}, "blocks to train")):
        with pytest.raises(BadInput, match=match):
            split_frames(fish(), **({"method": "recorded"} | OPTIONS | change))
    with pytest.raises(BadInput, match="no frame is left for test"):
        split_frames(random_subject(0, frames=300), method="recorded", **OPTIONS)


def test_shuffling_keeps_every_voxel_s_spikes_and_makes_rates_even():
    active = np.zeros((400, 3), bool)
    active[:200, 0] = active[200:, 1] = active[::40, 2] = True
    grids = subject_grids(active, [3, 4, 9], 1, is_train=np.arange(400) < 300)
    stretches = split_frames(grids, method="recorded", **OPTIONS)
    used = np.array(sorted(t for part in PARTS for run in stretches[part] for t in run))
    before, after = (g.raster(0, 400)[used] for g in (grids, shuffled(grids, stretches, 0)))
    np.testing.assert_array_equal(before.sum(axis=0), after.sum(axis=0))
    early = after[used < 200].mean(axis=0)
    assert abs(early[0] - before[:, 0].mean()) < 0.1
    assert abs(early[1] - before[:, 1].mean()) < 0.1
