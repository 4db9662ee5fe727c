"""Trace files of every kind give the same numbers in blocks; what contradicts itself is refused."""

import h5py
import numpy as np
import pytest

from src.recordings.extracellular import traces as lfp_traces
from src.recordings.extracellular.traces import open_traces
from src.signals import BadInput

RNG = np.random.default_rng(0)


def traces_file(path, samples, **fields):
    fields = {"sampling_rate": 500.0, "channel_ids": np.arange(samples.shape[1])} | fields
    fields = {name: value for name, value in fields.items() if value is not None}
    if path.suffix == ".npz":
        np.savez(path, traces=samples, **fields)
    elif path.suffix == ".npy":
        np.save(path, samples)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("traces", data=samples, chunks=True, compression="gzip", shuffle=True)
            for name, value in fields.items():
                if name == "sampling_rate":
                    file.attrs[name] = value
                else:
                    value = np.asarray(value)
                    file[name] = value.astype(object) if value.dtype.kind == "U" else value
    return path


def read(traces):
    values = np.full((traces.n_samples, traces.n_channels), -99, dtype=traces.dtype)
    for sample, channel, block in traces.blocks():
        assert block.dtype == traces.dtype
        values[sample : sample + block.shape[0], channel : channel + block.shape[1]] = block
    return values


@pytest.mark.parametrize("kind", ["npz", "npy", "h5", "hdf5"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", "<f8", "|i1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_kind_of_file_block_by_block(tmp_path, monkeypatch, kind, dtype, order):
    monkeypatch.setattr(lfp_traces, "BLOCK_BYTES", 1000)
    samples = np.asarray((RNG.standard_normal((999, 7)) * 40).astype(dtype), order=order)
    traces = open_traces(traces_file(tmp_path / f"a.{kind}", samples), 500.0)
    assert (traces.n_samples, traces.n_channels, traces.fs_hz, traces.start_s) == (999, 7, 500.0, None)
    assert traces.dtype.isnative
    np.testing.assert_array_equal(read(traces), samples)
    assert max(block.nbytes for *_, block in traces.blocks()) <= 8 * 1000 or kind.startswith("h")


@pytest.mark.parametrize("kind", ["npz", "npy", "h5"])
def test_a_single_channel_may_be_flat(tmp_path, kind):
    samples = RNG.standard_normal(500)
    traces = open_traces(traces_file(tmp_path / f"a.{kind}", samples[:, None][:, 0:1].ravel()[:, None]), 500.0)
    assert (traces.n_samples, traces.n_channels) == (500, 1)
    path = tmp_path / f"flat.{kind}"
    if kind == "npz":
        np.savez(path, traces=samples, sampling_rate=500, channel_ids=3)
    elif kind == "npy":
        np.save(path, samples)
    else:
        with h5py.File(path, "w") as file:
            file["traces"], file["sampling_rate"], file["channel_ids"] = samples, 500, [3]
    np.testing.assert_array_equal(read(open_traces(path, 500.0))[:, 0], samples)


def test_hdf5_chunks_too_deep_for_all_channels(tmp_path, monkeypatch):
    monkeypatch.setattr(lfp_traces, "BLOCK_BYTES", 1000)
    samples = RNG.standard_normal((4000, 6)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("traces", data=samples, chunks=(4000, 2))
        file["sampling_rate"], file["channel_ids"] = 500.0, np.arange(6)
    traces = open_traces(tmp_path / "a.h5")
    assert [block.shape for *_, block in traces.blocks()] == [(4000, 2)] * 3
    np.testing.assert_array_equal(read(traces), samples)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_what_the_file_states_is_carried(tmp_path, kind):
    samples = np.zeros((1000, 2), np.float32)
    fields = {"channel_ids": np.array(["CA1", "S1"]), "time_range": [30.5, 34.5], "units": "uV", "ycoord": [10.0, 30.0]}
    traces = open_traces(traces_file(tmp_path / f"a.{kind}", samples, sampling_rate=250.0, **fields))
    assert (traces.fs_hz, traces.start_s, traces.units) == (250.0, 30.5, "uV")
    assert traces.channel_ids.tolist() == ["CA1", "S1"]
    assert traces.coordinates["ycoord"].tolist() == [10.0, 30.0]
    assert traces.warnings == ()


def test_contradictions_that_are_not_in_the_way(tmp_path):
    path = traces_file(tmp_path / "a.npz", np.zeros((1000, 2)), n_channels=3, n_timepoints=1000, time_range=[0, 99.0])
    assert [w.split()[0] for w in open_traces(path).warnings] == ["n_channels", "time_range"]


def test_rates_need_not_be_whole(tmp_path):
    assert open_traces(traces_file(tmp_path / "a.npz", np.zeros((9, 2)), sampling_rate=498.75)).fs_hz == 498.75
    assert open_traces(traces_file(tmp_path / "b.npz", np.zeros((9, 2)), sampling_rate=np.array([500]))).fs_hz == 500.0


@pytest.mark.parametrize("kind", ["npz", "h5"])
@pytest.mark.parametrize(
    ("samples", "fields", "says"),
    [
        (np.zeros((4, 1000)), {"channel_ids": np.arange(4)}, "time along the second axis"),
        (np.zeros((1000, 4)), {"channel_ids": np.arange(5)}, "5 channel_ids for 4 channels"),
        (np.zeros((1000, 4)), {"channel_ids": [0, 1, 1, 2]}, "name 1 more than once"),
        (np.zeros((1000, 2)), {"channel_ids": [0.5, 1.0]}, "whole number or name"),
        (np.zeros((1000, 2)), {"channel_ids": None}, "has no channel_ids"),
        (np.zeros((1000, 2)), {"sampling_rate": None}, "has no sampling_rate"),
        (np.zeros((1000, 2)), {"sampling_rate": 0}, "sampling_rate is 0"),
        (np.zeros((1000, 2)), {"sampling_rate": np.nan}, "sampling_rate is nan"),
        (np.zeros((1000, 2)), {"sampling_rate": [500.0, 500.0]}, r"sampling_rate is of shape \(2,\)"),
        (np.zeros((1000, 2)), {"time_range": [np.nan, 3]}, "time_range"),
        (np.zeros((1000, 2), complex), {}, "complex128"),
        (np.zeros((1000, 2), bool), {}, "type bool"),
        (np.zeros((1000, 2, 2)), {"channel_ids": [0, 1]}, "shape"),
        (np.zeros((0, 2)), {}, "shape"),
    ],
)
def test_what_is_refused(tmp_path, kind, samples, fields, says):
    if kind == "h5" and samples.size == 0:
        pytest.skip("HDF5 cannot chunk an empty dataset")
    with pytest.raises(BadInput, match=says):
        open_traces(traces_file(tmp_path / f"a.{kind}", samples, **fields))


def test_what_else_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", sampling_rate=500.0, channel_ids=[1])
    np.savez(tmp_path / "b.npz", traces=np.zeros((9, 1)), sampling_rate=500.0, channel_ids=np.array([{}], dtype=object))
    np.save(tmp_path / "c.npy", np.zeros((9, 1)))
    (tmp_path / "d.h5").write_bytes(b"not HDF5")
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_group("traces")
        file["sampling_rate"], file["channel_ids"] = 500.0, [0]
    traces_file(tmp_path / "f.npz", np.zeros((9, 1)))
    for name, fs_hz, says in (
        ("a.npz", None, "has no traces"),
        ("b.npz", None, "pickled"),
        ("c.npy", None, "sampling_rate_hz"),
        ("d.h5", None, "damaged"),
        ("e.h5", None, "not a dataset"),
        ("f.npz", 250.0, "states a sampling rate of 500 Hz"),
    ):
        with pytest.raises(BadInput, match=says):
            open_traces(tmp_path / name, fs_hz)
