import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat

from src.preprocess.cascade.inference import open_engine
from src.preprocess.cascade.neuralib import neuralib_predict
from src.preprocess.cascade.package import open_package
from tests.preprocess.cascade.cascade_packages import TINY, write_package


def assert_same(ours: np.ndarray, reference: np.ndarray) -> None:
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(reference))
    np.testing.assert_array_equal(ours == 0, reference == 0)
    assert np.nanmax(np.abs(ours - reference)) <= 1e-6


def test_dense_equals_neuralib_which_prints_and_leaves_nothing(tmp_path: Path, capfd: Any, monkeypatch: Any) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    write_package(tmp_path, replace(TINY, smoothing_s=0.75, noise_levels=(2, 5)), vintage="ours")
    draw = np.random.default_rng(0)
    dff = draw.normal(0, 1, (6, 70)).astype(np.float32) * np.linspace(0.02, 0.1, 6, dtype=np.float32)[:, None]

    def engine(name: str, threshold: Any, align: str = "upstream") -> Any:
        return open_engine(name, "Tiny_2Hz", models_dir=tmp_path, fs_hz=2.0, threshold=threshold, align=align)

    levels = engine("dense", 0).noise_levels(dff)
    assert levels.min() < 3.5 < levels.max()
    reference = neuralib_predict(dff, open_package(tmp_path / "Tiny_2Hz"), None, 1)
    assert_same(engine("dense", 1).predict(dff), reference.astype(np.float32))
    dff[2, 30] = np.nan
    for align in ("upstream", "centered"):
        assert_same(engine("dense", 0, align).predict(dff, levels), engine("neuralib", 0, align).predict(dff, levels))
    assert capfd.readouterr().out == ""
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("Global_EXC_30Hz_smoothing50ms_causalkernel", "allen_30Hz_Experiment_552195520_excerpt.mat"),
        ("OGB_zf_pDp_7.5Hz_smoothing200ms", "zf_pDp_7.5Hz_Calcium_traces_01.mat"),
    ],
)
def test_dense_equals_neuralib_on_published_packages(shared_data: Path, model: str, file: str) -> None:
    dff = loadmat(shared_data / "calcium_populations" / file)["dF_traces"].astype(np.float32)
    dff = dff[np.isfinite(dff).all(axis=1)]
    dff = dff[np.argsort(dff.max(axis=1))[-4:], -260:]
    models = shared_data / "cascade_models"
    package = open_package(models / model)
    engine = open_engine("dense", model, models_dir=models, fs_hz=package.config.sampling_rate_hz, align="upstream")
    reference = neuralib_predict(dff, package, 3, 1).astype(np.float32)
    assert_same(engine.predict(dff, np.full(len(dff), 3.0)), reference)
    assert (reference[np.isfinite(reference)] > 0).any()
