from pathlib import Path

import h5py
import numpy as np
import pytest

from src.preprocess.cascade.keras_file import member_name, read_network, write_network
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, random_network


def test_weights_come_back_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    network = random_network(TINY, 5)
    for name in ("a.h5", "b.h5"):
        write_network(tmp_path / name, network, TINY)
    for ours, theirs in zip(read_network(tmp_path / "a.h5", TINY), network, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert member_name(4, 2) == "Model_NoiseLevel_4_Ensemble_2.h5"


def test_the_layout_is_that_of_published_packages(tmp_path: Path, shared_data: Path) -> None:
    write_network(tmp_path / "a.h5", random_network(TINY, 0), TINY)
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (1 << 20, 1, 8), "chunks": (1 << 20, 1, 8)}, "more than 16,777,216 bytes"),
        ({"shape": (3, 1, 4), "maxshape": (None, 1, 4), "chunks": (1 << 26, 1, 4)}, "more than 16,777,216 bytes"),
        ({"shape": (3, 1, 4), "external": [("secret", 0, 48)]}, "in another file"),
    ],
)
def test_a_file_that_claims_too_much_or_points_elsewhere_is_refused(tmp_path: Path, change, message: str) -> None:
    write_network(path := tmp_path / "a.h5", random_network(TINY, 0), TINY)
    (tmp_path / "secret").write_bytes(b"x" * 48)
    with h5py.File(path, "r+") as file:
        del file["model_weights/conv1d_1/conv1d_1/kernel:0"]
        file["model_weights/conv1d_1/conv1d_1"].create_dataset("kernel:0", dtype="f4", **change)
    with pytest.raises(BadInput, match=message):
        read_network(path, TINY)
