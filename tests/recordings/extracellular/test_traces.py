"""Trace files written block by block are what NumPy would have written, the same bytes every time."""

import numpy as np

from src.recordings.extracellular.traces import trace_file


def test_blocks_make_one_file(tmp_path):
    samples = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    fields = {"sampling_rate": 500.0, "channel_ids": np.array(["a", "b", "c"])}
    for name in ("one", "two"):
        with trace_file(tmp_path / f"{name}.npz", samples.shape, samples.dtype, fields) as write:
            for first in range(0, 1000, 300):
                write(samples[first : first + 300])
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["traces"], samples)
        assert arrays["channel_ids"].tolist() == ["a", "b", "c"]
