from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from src.preprocess.cascade.package import kernel_shapes, open_package, read_config
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, Vintage, random_network, write_package


@pytest.mark.parametrize(("vintage", "first_number"), [("keras2", 0), ("keras2", 163), ("keras3", 0), ("vars", 9)])
def test_every_keras_layout_gives_the_same_weights(tmp_path: Path, vintage: Vintage, first_number: int) -> None:
    package = open_package(write_package(tmp_path, vintage=vintage, first_number=first_number))
    for level in TINY.noise_levels:
        for member, network in enumerate(package.networks(level)):
            written = random_network(TINY, 100 * level + member)
            for ours, theirs in zip(network, written, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_config_round_trip(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    assert read_config(folder / "config.yaml") == TINY
    assert (TINY.first_frame, TINY.trained_frame) == (7, 8)
    assert kernel_shapes(TINY) == [(3, 1, 4), (3, 4, 5), (2, 5, 6), (6, 3), (6, 1)]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("windowsize: 16", "windowsize: 7", "shorter than its filters"),
        ("before_frac: 0.5", "before_frac: 1.0", "predicted frame"),
        ("smoothing: 0.5", "smoothing: soft", "wrong kind"),
        ("sampling_rate: 2.0", "rate: 2.0", "no setting sampling_rate"),
        ("model_name", "[model_name", "cannot be read"),
    ],
)
def test_a_bad_config_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = write_package(tmp_path) / "config.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadInput, match=problem):
        read_config(path)


def test_a_config_with_aliases_or_of_great_length_is_refused(tmp_path: Path) -> None:
    path = write_package(tmp_path) / "config.yaml"
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    path.write_text("\n".join(bomb))
    with pytest.raises(BadInput, match="aliases"):
        read_config(path)
    path.write_text("a: " + "x" * (1 << 20))
    with pytest.raises(BadInput, match="longer than"):
        read_config(path)
    path.write_text("[" * 1200)
    with pytest.raises(BadInput, match="cannot be read"):
        read_config(path)


def test_a_missing_level_is_named(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    for path in folder.glob("*Level_4*"):
        path.unlink()
    with pytest.raises(BadInput, match="noise levels 4"):
        open_package(folder)


@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_a_cut_member_file_is_refused(tmp_path: Path, kept: int) -> None:
    folder = write_package(tmp_path)
    path = folder / "Model_NoiseLevel_2_Ensemble_0.h5"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match="not a whole HDF5 file"):
        open_package(folder).networks(2)


def test_weights_that_are_not_finite_or_not_those_of_the_configuration_are_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    (folder / "config.yaml").write_text(replace(TINY, dense_expansion=4).to_yaml())
    with pytest.raises(BadInput, match="not the"):
        open_package(folder).networks(2)
    for value in (np.nan, np.inf):
        with h5py.File(folder / "Model_NoiseLevel_2_Ensemble_0.h5", "r+") as file:
            file["model_weights/conv1d/conv1d/kernel:0"][0, 0, 0] = value
        with pytest.raises(BadInput, match="not finite"):
            open_package(folder).networks(2)


def test_the_digest_follows_weights_and_configuration(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    before = open_package(folder).sha256()
    (folder / "notes.txt").write_text("ours")
    assert open_package(folder).sha256() == before
    with h5py.File(folder / "Model_NoiseLevel_4_Ensemble_1.h5", "r+") as file:
        file["model_weights/dense/dense/bias:0"][0] += 1
    assert open_package(folder).sha256() != before


def test_published_packages_open(shared_data: Path) -> None:
    for name, levels in [("Global_EXC_30Hz_smoothing50ms_causalkernel", 7), ("OGB_zf_pDp_7.5Hz_smoothing200ms", 6)]:
        package = open_package(shared_data / "cascade_models" / name)
        assert len(package.config.noise_levels) == levels
        parameters = sum(array.size for array in package.networks(2)[0])
        assert parameters == 35_441
