"""Arrays in npy and npz files, streamed: what NumPy wrote comes back, what is damaged or pickled does not."""

import pickle
import zipfile

import numpy as np
import pytest

from src.recordings.extracellular.npy_stream import npz_names, open_npy, open_npz_member, read_npz_member
from src.signals import BadInput


def whole(stream, n_values):
    values = np.concatenate([*stream.chunks(n_values), np.empty(0, stream.dtype.newbyteorder("="))])
    return values.reshape(stream.shape, order="F" if stream.fortran else "C")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", ">i2", "f8", "u1", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_members_come_back_as_they_were(tmp_path, save, dtype, order):
    values = np.asarray(np.random.default_rng(1).integers(0, 200, (1001, 7)).astype(dtype), order=order)
    save(tmp_path / "a.npz", first=np.arange(3), traces=values)
    stream = open_npz_member(tmp_path / "a.npz", "traces")
    assert stream.shape == values.shape
    for n_values in (1, 13, 10_000) if dtype == "<i2" else (1000,):
        np.testing.assert_array_equal(whole(stream, n_values), values)
    assert next(stream.chunks(5)).dtype.isnative
    assert npz_names(tmp_path / "a.npz") == ["first", "traces"]
    np.testing.assert_array_equal(read_npz_member(tmp_path / "a.npz", "traces"), values)


@pytest.mark.parametrize("values", [np.arange(10.0), np.zeros((0, 4)), np.float64(3.0), np.array("text"), np.eye(3).T])
def test_npy_of_any_shape(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    stream = open_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(whole(stream, 4), values)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_noticed(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, traces=np.random.default_rng(2).integers(0, 9, 50_000).astype(np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        whole(open_npz_member(path, "traces"), 1000)


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_file_cut_short_is_noticed(tmp_path, share):
    np.savez(tmp_path / "a.npz", traces=np.arange(9999))
    np.save(tmp_path / "a.npy", np.arange(9999))
    for name in ("a.npz", "a.npy"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadInput, match="damaged"):
        open_npz_member(tmp_path / "a.npz", "traces")
    with pytest.raises(BadInput, match="damaged"):
        whole(open_npy(tmp_path / "a.npy"), 1000)


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", traces=np.array([{}], dtype=object))
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps({"traces": 1}))
    for attempt in (
        lambda: open_npz_member(tmp_path / "a.npz", "traces"),
        lambda: read_npz_member(tmp_path / "a.npz", "traces"),
        lambda: open_npy(tmp_path / "a.npy"),
        lambda: npz_names(tmp_path / "b.npz"),
    ):
        with pytest.raises(BadInput, match="pickled"):
            attempt()


def test_what_is_not_there(tmp_path):
    np.savez(tmp_path / "a.npz", other=1)
    with pytest.raises(BadInput, match="other"):
        open_npz_member(tmp_path / "a.npz", "traces")
    with pytest.raises(BadInput, match="cannot be read"):
        npz_names(tmp_path / "absent.npz")
    with pytest.raises(BadInput, match="cannot be read"):
        open_npy(tmp_path / "absent.npy")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(BadInput, match="damaged"):
        npz_names(tmp_path / "text.npz")
    with zipfile.ZipFile(tmp_path / "odd.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("traces.npy", b"x" * 100)
    with pytest.raises(BadInput, match="NumPy does not write"):
        open_npz_member(tmp_path / "odd.npz", "traces")
