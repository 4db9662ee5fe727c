from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from src.preprocess.cascade.package import read_network
from src.preprocess.cascade.write import member_name, write_member
from tests.preprocess.cascade.cascade_packages import TINY, random_network


def test_weights_come_back_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    network = random_network(TINY, 5)
    for name in ("a.h5", "b.h5"):
        write_member(tmp_path / name, network, TINY)
    for ours, theirs in zip(read_network(tmp_path / "a.h5", TINY).arrays(), network.arrays(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert member_name(4, 2) == "Model_NoiseLevel_4_Ensemble_2.h5"


def test_keras_can_load_the_file(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorflow import keras

        write_member(tmp_path / "a.h5", random_network(TINY, 5), TINY)
        model = keras.models.load_model(tmp_path / "a.h5", compile=False)
        arrays = model.get_weights()
    for ours, theirs in zip(arrays, random_network(TINY, 5).arrays(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.input_shape == (None, 16, 1)


def test_the_layout_is_that_of_published_packages(tmp_path: Path, shared_data: Path) -> None:
    write_member(tmp_path / "a.h5", random_network(TINY, 0), TINY)
    published = (
        shared_data / "cascade_models/Global_EXC_30Hz_smoothing50ms_causalkernel/Model_NoiseLevel_2_Ensemble_0.h5"
    )
    names: list[set[str]] = []
    for path in (tmp_path / "a.h5", published):
        with h5py.File(path) as file:
            found: list[str] = []
            file["model_weights"].visit(found.append)
            names.append(set(found))
            assert file.attrs["keras_version"] == "2.1.6"
    assert names[0] == names[1]
