import numpy as np
import pytest
import torch

from src.datamodules.grid_examples import GridWindows, PlaneSequences
from src.preprocess.calcium.grid_store import COO_FILE, open_grids, write_coo
from src.preprocess.calcium.grid_windows import WindowFrames
from tests.forecast_data import as_batch, header_of, random_subject

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
