"""Files that point elsewhere or carry code: archives, manifests, pickles under every reader's name."""

import json
import pickle
from contextlib import suppress

import numpy as np
import pytest

from src.signals import BadInput
from src.storage.manifest import MANIFEST
from src.storage.step import CachedStep, ensure, read_artifact
from tests.faults.readers import READERS

RAN: list = []
LEFT_UNREAD = ("sampling_rate", "n_channels", "n_freqs", "n_times")
"""Of a spectrogram file, which states them twice."""


class Bomb:
    """What a hostile file would do on being unpickled."""

    def __reduce__(self):
        return RAN.append, ("code of the file ran",)


def hostile(folder, reader):
    """The reader's file with a pickle in it, in the ways that NumPy, torch and Python write them."""
    path = reader.make(folder)
    arrays = {}
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
    yield path, pickle.dumps(Bomb()), False
    np.save(folder / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    yield path, (folder / "bomb.npy").read_bytes(), False
    for name, array in arrays.items():
        np.savez(folder / "bomb.npz", **arrays | {name: np.array([Bomb()] * array.size, object)})
        yield path, (folder / "bomb.npz").read_bytes(), reader is READERS["spectrogram_npz"] and name in LEFT_UNREAD


@pytest.mark.parametrize("name", READERS)
def test_no_reader_unpickles(name, tmp_path):
    for path, content, unread in hostile(tmp_path, READERS[name]):
        path.write_bytes(content)
        # A manifest that cannot be read is one that is not there.
        with suppress(BadInput) if unread or name == "manifest" else pytest.raises(BadInput):
            READERS[name].read(path)
    assert RAN == []


def write(inputs, params, out_dir, seed):
    (out_dir / "a.txt").write_text("ours")


def made(folder):
    (folder / "in.txt").write_text("in")
    return ensure(CachedStep("write", 1, write), {"in": folder / "in.txt"}, {}, label="x", cache=folder / "cache")


@pytest.mark.parametrize("name", ["../../../secret.txt", "{root}/secret.txt", "link.txt", "folder/secret.txt", "\0"])
def test_a_manifest_that_names_files_elsewhere_is_not_believed(tmp_path, name):
    (tmp_path / "secret.txt").write_text("ours")
    artifact = made(tmp_path)
    (artifact.path / "link.txt").symlink_to(tmp_path / "secret.txt")
    (artifact.path / "folder").symlink_to(tmp_path)
    manifest = json.loads((artifact.path / MANIFEST).read_text())
    manifest["outputs"] = {name.format(root=tmp_path): manifest["outputs"]["a.txt"]}
    (artifact.path / MANIFEST).write_text(json.dumps(manifest))
    assert read_artifact(artifact.path) is None
    again = made(tmp_path)
    assert not again.reused
    assert (again.path / "a.txt").read_text() == "ours"
    assert (again.path / "link.txt").is_symlink()  # nobody knows whose it is
    assert (tmp_path / "secret.txt").read_text() == "ours"


@pytest.mark.parametrize("outputs", [[], 7, None, {"a.txt": 3}, {"a.txt": {}}])
def test_a_manifest_of_another_shape_is_not_believed(tmp_path, outputs):
    artifact = made(tmp_path)
    manifest = json.loads((artifact.path / MANIFEST).read_text()) | {"outputs": outputs}
    (artifact.path / MANIFEST).write_text(json.dumps(manifest))
    assert read_artifact(artifact.path) is None
    assert not made(tmp_path).reused


def test_a_result_behind_a_link_is_a_result(tmp_path):
    artifact = made(tmp_path)
    elsewhere = artifact.path.rename(tmp_path / "other_disk")
    artifact.path.symlink_to(elsewhere)
    assert made(tmp_path).reused
