import numpy as np
import pytest
import torch

from src.datamodules.grid_splits import split_frames
from src.datamodules.grids import GridWindows, PlaneSequences
from src.datamodules.splits import PARTS
from src.preprocess.calcium.grid_store import COO_FILE, open_grids, write_coo
from src.preprocess.calcium.grid_windows import WindowFrames
from src.signals import BadInput
from tests.forecast_data import WINDOWS, as_batch, grid_data, header_of, random_subject


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(cache):
    made = grid_data(cache)
    made.setup("fit")
    return made


def test_no_window_crosses_a_part_or_a_gap(data):
    for part in PARTS:
        for number, first in data.datasets[part].windows:
            grids, runs = data.subjects[number], data.stretches[number][part]
            assert any(run.start <= first and first + 12 <= run.stop for run in runs)
            assert (np.diff(grids.timepoints[first : first + 12]) == 1).all()
    seen = {part: {(n, f + k) for n, f in data.datasets[part].windows for k in range(12)} for part in PARTS}
    assert not (seen["train"] & seen["val"])
    assert not (seen["train"] & seen["test"])
    assert not (seen["val"] & seen["test"])


def test_batches_are_indices_and_nothing_dense(data):
    batch = next(iter(data.train_dataloader()))
    assert batch.image is None
    assert set(batch.subject.tolist()) == {0, 1}
    shipped = sum(t.numel() * t.element_size() for t in batch if t is not None)
    assert shipped < batch.counts.numel() * max(s.planes for s in data.subjects) * 256 * 128 / 100


def test_statistics_come_from_training_frames(data):
    found = data.statistics()
    for number, grids in enumerate(data.subjects):
        span = slice(*found["offsets"][number : number + 2])
        active = np.concatenate([grids.raster(r.start, r.stop) for r in data.stretches[number]["train"]])
        mean = active.mean(axis=0)
        np.testing.assert_allclose(found["rates"][span], np.where(mean > 0, mean, 0.5 / len(active)), rtol=1e-5)
        runs = [grids.raster(r.start, r.stop) - mean for r in data.stretches[number]["train"]]
        for lag in (0, 3):
            pairs = [r[: len(r) - lag] * r[lag:] for r in runs]
            # About the mean of all frames, while the pairs lack the ends of each stretch: equal but for those.
            expected = np.concatenate(pairs).mean(axis=0)
            np.testing.assert_allclose(found["autocovariance"][0, span, lag], expected, atol=2e-3)


def test_layouts_hold_the_same_frames(cache, data):
    plain = next(iter(data.val_dataloader()))
    batches = {}
    for layout in ("sparse_coo", "dense"):
        other = grid_data(cache, layout=layout)
        other.setup("fit")
        batches[layout] = next(iter(other.val_dataloader()))
        assert len(batches[layout].voxel_index) == 0
    sparse, dense = batches["sparse_coo"].image, batches["dense"].image
    assert sparse.is_sparse
    assert dense.shape == (16, 8, 4, 256, 128)
    assert torch.equal(sparse.to_dense(), dense)
    assert torch.equal(dense.flatten(2).sum(2), plain.counts)
    with pytest.raises(BadInput, match=r"datamodule.layout: is 'coo'; choose from: indices, sparse_coo, dense"):
        grid_data(cache, layout="coo")


def test_split_and_summary_speak_of_frames(data):
    assert all("[" in name for name in data.split.parts)
    assert set(data.split.parts.values()) == set(PARTS)
    assert data.summary()["train"]["windows"] == len(data.datasets["train"])
    assert data.signal.shape == (8, None, 256, 128)
    assert data.signal.window_s == 4.0
    assert data.subjects[0].simulated
    assert not data.origin().recorded


def test_the_same_seed_gives_the_same_split(data):
    for grids, stretches in zip(data.subjects, data.stretches, strict=True):
        assert split_frames(grids, data.split_options, window_frames=12, seed=3) == stretches


def test_what_makes_no_sense_is_refused(cache):
    with pytest.raises(BadInput, match="no stretch of train frames"):
        grid_data(cache, windows=WINDOWS | {"context": 500}).setup("fit")
    with pytest.raises(BadInput, match=r"datamodule.windows.gap: is -1; give 0 or more"):
        grid_data(cache, windows=WINDOWS | {"gap": -1})
    with pytest.raises(BadInput, match="no setting 'cell'"):
        grid_data(cache, simulated={"seed": 0, "positions": None, "common": {}, "subjects": [{"cell": 3}]}).setup("fit")


def test_the_gap_is_what_the_files_state(cache, capsys):
    data = grid_data(cache)
    data.subjects = [random_subject(n, frames=700, frames_after=n, is_train=np.arange(700) < 500) for n in (5, 9)]
    data.setup("fit")
    assert data.frames == (8, 9, 4)
    assert capsys.readouterr().err == ""
    first = data.datasets["train"].windows[0]
    batch = data.datasets["train"][0]
    expected = data.subjects[first[0]].raster(first[1] + 17, first[1] + 21)
    np.testing.assert_array_equal(np.nonzero(expected)[1], batch.target_voxel_index)


def test_a_file_that_does_not_say_how_far_it_looks_takes_the_given_gap(tmp_path):
    fish = random_subject(0, frames=700, frames_after=None, is_train=np.arange(700) < 500)
    (tmp_path / "fish").mkdir()
    write_coo(tmp_path / "fish" / COO_FILE, [as_batch(fish)], header_of(fish))
    with pytest.raises(BadInput, match="does not say"):
        grid_data(tmp_path, root=str(tmp_path / "fish")).setup("fit")
    data = grid_data(tmp_path, root=str(tmp_path / "fish"), windows=WINDOWS | {"gap": 30})
    data.setup("fit")
    assert data.frames.gap == 30
    assert max(run.stop for run in data.stretches[0]["train"]) == 470


def test_a_smaller_gap_is_possible_and_called_leaky(cache, capsys):
    data = grid_data(cache, windows=WINDOWS | {"gap": 0})
    data.subjects = [random_subject(0, frames=700, frames_after=9, is_train=np.arange(700) < 500)]
    data.setup("fit")
    assert data.frames.gap == 0
    assert "leaky: datamodule.windows.gap is 0, and fish.h5 was inferred from 9 later frames" in capsys.readouterr().err


SUBJECTS = [random_subject(i, frames=60, planes=2 + i, voxels=20) for i in range(2)]
STRETCHES = [[range(20), range(25, 30)], [range(10, 40)]]


def test_windows_lie_inside_one_stretch():
    windows = GridWindows(SUBJECTS, STRETCHES, WindowFrames(4, 1, 3), 2).windows
    for number, first in windows:
        assert any(run.start <= first and first + 8 <= run.stop for run in STRETCHES[number])
    assert len(windows) == 7 + 0 + 12


def test_a_sequence_is_the_stretch_of_plane_frames_with_or_without_markers(tmp_path):
    sequences = PlaneSequences(SUBJECTS, STRETCHES, length=14, stride=7)
    for subject in (0, 1):
        path = tmp_path / str(subject) / COO_FILE
        path.parent.mkdir()
        write_coo(path, [as_batch(SUBJECTS[subject])], header_of(SUBJECTS[subject]))
        for markers in (False, True):
            grid = open_grids(path).read(0, 60, markers=markers).dense().reshape(-1, 256, 128)
            for index in np.flatnonzero(sequences.sequences[:, 0] == subject)[:2]:
                first = sequences.sequences[index, 1]
                dense = sequences.dense(int(index), markers=markers)
                np.testing.assert_array_equal(dense.numpy(), grid[first : first + 14])


@pytest.mark.parametrize("length", [330, 6])
def test_sequences_begin_and_end_in_one_stretch(length):
    sequences = PlaneSequences(SUBJECTS, STRETCHES, length=length, stride=1)
    for number, first in sequences.sequences:
        planes = SUBJECTS[number].planes
        assert any(run.start * planes <= first and first + length <= run.stop * planes for run in STRETCHES[number])
    assert (len(sequences) > 0) == (length == 6)


def test_a_sequence_fills_the_buffer_it_is_given():
    sequences = PlaneSequences(SUBJECTS, STRETCHES, length=6)
    out = torch.full((6, 256, 128), 9, dtype=torch.uint8)
    assert sequences.dense(0, markers=False, out=out) is out
    assert int(out.max()) <= 1
