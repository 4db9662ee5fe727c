"""Any stretch of any channel, whatever the blocks of the recording."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src.preprocess.lfp import channel_rows as module
from src.preprocess.lfp.channel_rows import channel_rows
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.source import SourceOptions


def test_stretches_of_channels(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TILE_BYTES", 64)
    samples = np.random.default_rng(0).standard_normal((5000, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", traces=samples)
    recording = open_recording(tmp_path / "a.npz", SourceOptions(fs_hz=500.0))
    with ThreadPoolExecutor(2) as pool:
        for kept in (None, [4, 1]):
            with channel_rows(recording, tmp_path, pool, kept) as read:
                for channel in kept or range(6):
                    np.testing.assert_array_equal(read(channel, slice(0, 5000)), samples[:, channel])
                    np.testing.assert_array_equal(read(channel, slice(123, 456)), samples[123:456, channel])
                with pytest.raises(IndexError, match="beyond"):
                    read(4, slice(0, 40_000))
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
