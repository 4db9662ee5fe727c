"""Channel-major access gives every stretch of every channel, whatever the blocks were."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src.recordings.extracellular import channels as lfp_channels
from src.recordings.extracellular import traces as lfp_traces
from src.recordings.extracellular.channels import channel_major, rows_in_time, windows
from src.recordings.extracellular.traces import open_traces
from src.signals import BadInput


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("tile", [64, 1 << 17])
@pytest.mark.parametrize("columns", [None, [4], [1, 3]])
def test_transposition(tmp_path, monkeypatch, order, tile, columns):
    monkeypatch.setattr(lfp_traces, "BLOCK_BYTES", 500)
    monkeypatch.setattr(lfp_channels, "_TILE_BYTES", tile)
    samples = np.asarray(np.random.default_rng(0).integers(-999, 999, (1203, 5)).astype(np.int16), order=order)
    np.savez(tmp_path / "a.npz", traces=samples, sampling_rate=500, channel_ids=np.arange(5))
    traces = open_traces(tmp_path / "a.npz")
    with ThreadPoolExecutor(2) as pool, channel_major(traces, tmp_path, pool, columns) as channels:
        assert os.listdir(tmp_path) == ["a.npz"]  # the scratch file has no name
        for channel in columns or range(5):
            for stretch in (slice(0, 1203), slice(7, 8), slice(600, 1203)):
                np.testing.assert_array_equal(channels.read(channel, stretch), samples[stretch, channel])
        with pytest.raises(IndexError):
            channels.read((columns or [4])[-1], slice(1000, 1204))


@pytest.mark.parametrize("hop", [1, 40, 100])
def test_windows_pass_by(tmp_path, monkeypatch, hop):
    monkeypatch.setattr(lfp_traces, "BLOCK_BYTES", 500)
    samples = np.random.default_rng(0).integers(-999, 999, (1203, 5)).astype(np.int16)
    np.savez(tmp_path / "a.npz", traces=samples, sampling_rate=500, channel_ids=np.arange(5))
    stretches = [slice(first, first + 100) for first in range(0, 1100, hop)]
    found = windows(open_traces(tmp_path / "a.npz"), stretches)
    for stretch, window in zip(stretches, found, strict=True):
        np.testing.assert_array_equal(window, samples[stretch].T)


def test_damage_behind_the_last_window_is_seen(tmp_path):
    np.savez(tmp_path / "a.npz", traces=np.ones((5000, 2)), sampling_rate=500, channel_ids=[0, 1])
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[70_000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    traces = open_traces(tmp_path / "a.npz")
    with (
        ThreadPoolExecutor(1) as pool,
        rows_in_time(traces, tmp_path, pool, [slice(0, 100)]) as rows,
        pytest.raises(BadInput, match="checksum"),
    ):
        list(rows)
