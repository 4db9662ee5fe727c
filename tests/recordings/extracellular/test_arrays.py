"""Arrays of every kind of file give the same samples in blocks; what cannot be one is refused in a line."""

import h5py
import numpy as np
import pytest

from src.recordings.extracellular import arrays
from src.recordings.extracellular.arrays import open_array, trace_file
from src.recordings.extracellular.reader import open_recording
from src.signals import BadInput, SourceOptions

RNG = np.random.default_rng(0)
GIVEN = SourceOptions(fs_hz=500.0)


def write(path, samples, *, packed=False, chunks=True, **fields):
    fields = {"channel_ids": np.arange(samples.shape[-1])} | fields
    fields = {name: value for name, value in fields.items() if value is not None}
    if path.suffix == ".npz":
        (np.savez_compressed if packed else np.savez)(path, traces=samples, **fields)
    elif path.suffix == ".npy":
        np.save(path, samples)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("traces", data=samples, chunks=chunks, compression="gzip" if packed else None)
            for name, value in fields.items():
                value = np.asarray(value)
                file[name] = value.astype(object) if value.dtype.kind == "U" else value
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "h5", "hdf5"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", "<f8", "|i1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_file_block_by_block(tmp_path, kind, dtype, order, packed):
    samples = np.asarray((RNG.standard_normal((999, 7)) * 40).astype(dtype), order=order)
    recording = open_recording(write(tmp_path / f"a.{kind}", samples, packed=packed), GIVEN)
    assert (recording.n_samples, recording.n_channels, recording.fs_hz) == (999, 7, 500.0)
    blocks = list(recording.blocks(100))
    assert all(block.dtype == recording.dtype and block.dtype.isnative for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), samples)


@pytest.mark.parametrize("kind", ["npz", "npy", "h5"])
def test_one_channel_may_be_flat_or_lie_across(tmp_path, kind):
    samples = RNG.standard_normal(500)
    for number, shape in enumerate([(500,), (500, 1), (1, 500)]):
        path = write(tmp_path / f"{number}.{kind}", samples.reshape(shape), channel_ids=[3])
        recording = open_recording(path, GIVEN)
        assert (recording.n_samples, recording.n_channels) == (500, 1)
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks(99)))[:, 0], samples)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_channels_may_come_first_where_the_ids_say_so(tmp_path, kind):
    samples = RNG.standard_normal((4, 1000))
    recording = open_recording(write(tmp_path / f"a.{kind}", samples, channel_ids=np.arange(4)), GIVEN)
    np.testing.assert_array_equal(np.concatenate(list(recording.blocks(99))), samples.T)
    assert "read as (channel, time)" in recording.warnings[0]


def test_chunks_that_are_long_in_time_are_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1000)
    samples = RNG.standard_normal((4000, 6)).astype(np.float32)
    recording = open_recording(write(tmp_path / "a.h5", samples, chunks=(4000, 2)), GIVEN)
    np.testing.assert_array_equal(np.concatenate(list(recording.blocks(99))), samples)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_what_the_file_states_is_carried(tmp_path, kind):
    fields = {"channel_ids": np.array(["CA1", "S1"]), "time_range": [30.5, 34.5], "units": "uV", "ycoord": [10.0, 30.0]}
    path = write(tmp_path / f"a.{kind}", np.zeros((1000, 2), np.float32), sampling_rate=250.0, **fields)
    recording = open_recording(path)
    assert (recording.fs_hz, recording.start_s, recording.units) == (250.0, 30.5, "uV")
    assert recording.channel_ids.tolist() == ["CA1", "S1"]
    assert recording.coordinates["ycoord"].tolist() == [10.0, 30.0]
    assert recording.warnings == ()


@pytest.mark.parametrize("kind", ["npz", "h5"])
@pytest.mark.parametrize(
    ("samples", "fields", "says"),
    [
        (np.zeros((1000, 4)), {"channel_ids": np.arange(5)}, "5 channel_ids for 4 channels"),
        (np.zeros((1000, 4)), {"channel_ids": [0, 1, 1, 2]}, "name 1 more than once"),
        (np.zeros((1000, 2)), {"channel_ids": [0.5, 1.0]}, "whole number or name"),
        (np.zeros((1000, 2)), {"sampling_rate": 0}, "sampling_rate is 0"),
        (np.zeros((1000, 2)), {"sampling_rate": np.nan}, "sampling_rate is nan"),
        (np.zeros((1000, 2)), {"sampling_rate": [500.0, 500.0]}, r"sampling_rate is of shape \(2,\)"),
        (np.zeros((1000, 2)), {"time_range": [np.nan, 3]}, "time_range"),
        (np.zeros((1000, 2), complex), {}, "type complex128"),
        (np.zeros((1000, 2, 2)), {"channel_ids": [0, 1]}, "shape"),
        (np.zeros((0, 2)), {}, "shape"),
    ],
)
def test_what_is_refused(tmp_path, kind, samples, fields, says):
    with pytest.raises(BadInput, match=says):
        open_recording(write(tmp_path / f"a.{kind}", samples, chunks=samples.size > 0 or None, **fields), GIVEN)


def test_what_else_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", sampling_rate=500.0, channel_ids=[1])
    np.savez(tmp_path / "b.npz", traces=np.zeros((9, 1)), channel_ids=np.array([{}], dtype=object))
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object))
    (tmp_path / "d.h5").write_bytes(b"not HDF5")
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_group("traces")
    (tmp_path / "f.npz").write_bytes(b"not a zip archive")
    for name, says in (
        ("a.npz", "no variable 'traces'"),
        ("b.npz", "pickled"),
        ("c.npy", "pickled"),
        ("d.h5", "damaged"),
        ("e.h5", "no variable 'traces'"),
        ("f.npz", "damaged|pickled"),
    ):
        with pytest.raises(BadInput, match=says):
            open_recording(tmp_path / name, GIVEN)


@pytest.mark.parametrize("packed", [False, True])
def test_a_changed_byte_in_an_archive_is_found(tmp_path, packed):
    path = write(tmp_path / "a.npz", RNG.standard_normal((5000, 2)), packed=packed)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        list(open_recording(path, GIVEN).blocks(1000))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match="damaged"):
        open_recording(path, GIVEN)


def test_the_only_array_of_numbers_needs_no_name(tmp_path):
    np.savez(tmp_path / "a.npz", voltage=np.zeros((2000, 2)), fs=500.0)
    assert open_array(tmp_path / "a.npz", None, ("traces",)).name == "voltage"
    np.savez(tmp_path / "b.npz", one=np.zeros((2000, 2)), two=np.zeros((2000, 2)))
    with pytest.raises(BadInput, match=r"it holds one, two"):
        open_array(tmp_path / "b.npz", None, ("traces",))


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
