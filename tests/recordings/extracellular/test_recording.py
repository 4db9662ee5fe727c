"""The typed recording: blocks, gaps, scaling, selection, and clocks."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from src.recordings.extracellular.recording import (
    ExtracellularRecording,
    Run,
    channel_rows,
    jumps,
    runs_on_clock,
    timestamp_jumps,
)
from src.signals import BadInput


def opener_of(values):
    return lambda: nullcontext(lambda first, last: values[first:last])


def recording_of(values, runs=None, **fields):
    opener = opener_of(values)
    runs = ((0, 0, len(values)),) if runs is None else runs
    n_channels = values.shape[1]
    fields = {"channel_ids": np.arange(n_channels), "shanks": np.arange(n_channels) // 2} | fields
    return ExtracellularRecording(
        path=Path("x"),
        source_format="test",
        fs_hz=fields.pop("fs_hz", 100.0),
        runs=tuple(Run(start, first, count, opener) for start, first, count in runs),
        dtype=values.dtype,
        **fields,
    )


def test_gaps_are_nan_of_the_right_length_in_blocks_of_any_size():
    values = np.arange(40, dtype=np.int16).reshape(10, 4)
    recording = recording_of(values, [(0, 0, 4), (9, 4, 6)], length=18)
    assert recording.gaps == [(4, 9), (15, 18)]
    expected = np.full((18, 4), np.nan, np.float32)
    expected[:4], expected[9:15] = values[:4], values[4:]
    for size in (1, 3, 100):
        blocks = list(recording.blocks(size))
        assert max(map(len, blocks)) <= size
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
    np.testing.assert_array_equal(recording.samples(), expected.T)


def test_whole_numbers_stay_whole_where_nothing_is_missing_or_scaled():
    values = np.arange(40, dtype=np.int16).reshape(10, 4)
    assert next(recording_of(values).blocks()).dtype == np.int16
    scaled = recording_of(values + 1000, gain=np.full(4, 0.5, np.float32), offset=np.full(4, -500, np.float32))
    np.testing.assert_array_equal(next(scaled.blocks()), values * 0.5)


def test_channels_and_shanks_are_selected_with_all_that_belongs_to_them():
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    gain = np.array([1, 2, 3, 4], np.float32)
    recording = recording_of(values, gain=gain, coordinates={"ycoord": gain * 10, "note": np.array("a")})
    other = recording.shank(1).select([1])
    assert other.channel_ids.tolist() == [3]
    assert other.coordinates["ycoord"].tolist() == [40]
    np.testing.assert_array_equal(next(other.blocks()), values[:, 3:] * 4)
    with pytest.raises(BadInput, match="no shank 7; it has shanks 0, 1"):
        recording.shank(7)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"channel_ids": np.array([0, 1, 1, 2])}, "name 1 more than once"),
        ({"fs_hz": np.nan}, "sampling rate of nan"),
        ({"length": 10**12}, "days"),
    ],
)
def test_what_no_recording_can_be(fields, says):
    with pytest.raises(BadInput, match=says):
        recording_of(np.zeros((10, 4)), **fields)


def test_a_clock_places_pieces_and_says_what_is_missing():
    opener = opener_of(np.zeros((30, 1)))
    runs, (lost, back) = runs_on_clock(
        [(0, 10, opener), (10, 10, opener), (20, 10, opener)], [5, 115, 60], 100.0, "packets"
    )
    assert [(run.start, run.first, run.count) for run in runs] == [(0, 0, 10), (110, 10, 10), (120, 20, 10)]
    assert "packets are missing for 1.000 s from 0.100 s on" in lost
    assert "goes back at 1.200 s" in back
    _, many = runs_on_clock([(0, 1, opener)] * 9, list(range(0, 90, 10)), 10.0, "packets")
    assert len(many) == 4
    assert "7.200 s of packets are missing in all" in many[-1]


def test_jumps_of_a_clock_are_found_with_few_readings():
    clock = np.arange(100_000, dtype=np.uint64) + 2**32 - 500  # wraps after 500 samples
    clock[30_000:] += 7
    clock[30_001:] += 1
    clock[99_999:] += 3
    read = []

    def at(sample):
        read.append(sample)
        return int(clock[sample] % 2**32)

    assert jumps(at, len(clock)) == [30_000, 30_001, 99_999]
    assert len(read) < 300
    assert jumps(at, 1) == []


def test_times_in_seconds_may_drift_but_not_jump():
    times = np.arange(3000) / 1000.0003
    times[2000:] += 0.5
    assert timestamp_jumps(times, 1000.0) == [2000]


def test_stretches_of_channels(tmp_path):
    samples = np.random.default_rng(0).standard_normal((5000, 6)).astype(np.float32)
    recording = recording_of(samples)
    with ThreadPoolExecutor(2) as pool:
        for kept in (None, [4, 1]):
            with channel_rows(recording, tmp_path, pool, kept) as read:
                for channel in kept or range(6):
                    np.testing.assert_array_equal(read(channel, slice(0, 5000)), samples[:, channel])
                    np.testing.assert_array_equal(read(channel, slice(123, 456)), samples[123:456, channel])
    assert list(tmp_path.iterdir()) == []
