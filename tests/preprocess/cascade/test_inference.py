from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from src.preprocess.cascade.inference import check_noise, open_engine
from src.preprocess.cascade.output import cut_noise_floor, nearest_level, noise_levels
from src.preprocess.cascade.package import open_package
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, window_by_window, with_name, write_package

QUIET = 0.03


def engine(models: Path, **options: Any) -> Any:
    settings: dict = {"models_dir": models, "fs_hz": 2.0, "threshold": None} | options
    return open_engine("dense", "Tiny_2Hz", **settings)


def traces(neurons: int, frames: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, QUIET, (neurons, frames))
    return noise.astype(np.float32) * np.linspace(0.5, 3, neurons, dtype=np.float32)[:, None]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_package(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("frames", "threshold"), [(16, None), (17, None), (41, None), (41, 0), (41, 1)])
def test_the_engine_equals_every_window_by_itself(models: Path, frames: int, threshold: Any) -> None:
    dff = traces(5, frames)
    levels = noise_levels(dff, 2.0)
    chosen = nearest_level(levels, TINY.noise_levels)
    assert set(chosen) == {0, 1}
    package = open_package(models / "Tiny_2Hz")
    rows = [
        window_by_window(dff[i : i + 1], package.networks(TINY.noise_levels[c]), TINY)[0] for i, c in enumerate(chosen)
    ]
    expected = np.stack(rows)
    cut_noise_floor(expected, TINY, threshold)
    for align, first in (("upstream", 7), ("centered", 8)):
        result = engine(models, threshold=threshold, align=align).predict(dff)
        assert result.dtype == np.float32
        for start in range(frames - 15):
            if start == 0:  # CASCADE gives up the first window
                assert np.isnan(result[:, first]).all()
            else:
                np.testing.assert_allclose(result[:, first + start], expected[:, start], atol=1e-6)
        assert np.isnan(result[:, :first]).all()
        assert np.isnan(result[:, first + frames - 15 :]).all()


def test_company_does_not_change_a_neuron(models: Path) -> None:
    dff = traces(9, 90)
    whole, levels = engine(models).predict(dff), engine(models).noise_levels(dff)
    for chosen in (np.random.default_rng(1).permutation(9), np.array([7, 2])):
        np.testing.assert_array_equal(engine(models).predict(dff[chosen], levels[chosen]), whole[chosen])


def test_gaps_are_masked_window_by_window(models: Path) -> None:
    dff = traces(3, 80)
    clean = engine(models, align="centered").predict(dff)
    dff[0, 40], dff[1] = np.nan, np.nan
    dff[2, 70] = np.inf
    result = engine(models, align="centered").predict(dff, np.array([2.0, 2.0, 4.0]))
    # The window of frame t is t - 8 … t + 7, so frame 40 is seen by the windows of frames 33 to 48.
    gap = np.isnan(result[0]) & np.isfinite(clean[0])
    assert gap.nonzero()[0].tolist() == list(range(33, 49))
    np.testing.assert_array_equal(result[0][~gap], engine(models, align="centered").predict(dff[:1], [2.0])[0][~gap])
    assert np.isnan(result[1]).all()
    assert np.isnan(result[2, 63:79]).all()
    assert np.isfinite(result[2, 9:63]).all()


def test_given_noise_levels_choose_the_networks(models: Path) -> None:
    dff = np.repeat(traces(1, 50), 2, axis=0)
    result = engine(models).predict(dff, np.array([1.0, 99.0]))
    assert not np.allclose(result[0, 9:-8], result[1, 9:-8])
    with pytest.raises(BadInput, match="give one for each of 2"):
        engine(models).predict(dff, np.array([1.0]))


def test_a_package_of_any_shape(tmp_path: Path) -> None:
    odd = replace(TINY, windowsize=21, filter_sizes=(4, 2, 3), filter_numbers=(3, 2, 5), before_frac=0.4)
    write_package(tmp_path, odd)
    dff = traces(2, 55)
    result = engine(tmp_path, align="centered").predict(dff, np.array([4.0, 4.0]))
    expected = window_by_window(dff, open_package(tmp_path / "Tiny_2Hz").networks(4), odd)
    np.testing.assert_allclose(result[:, 9 : 8 + 35], expected[:, 1:], atol=1e-6)


def test_traces_shorter_than_a_window_are_refused(models: Path) -> None:
    with pytest.raises(BadInput, match="a window of Tiny_2Hz has 16"):
        engine(models).predict(traces(2, 15))


@pytest.mark.parametrize("rate", [1.9, 2.1, 1.84, 2.56, 1.0, 4.0])
def test_rates_within_a_factor_of_two_are_taken(models: Path, rate: float) -> None:
    record = engine(models, fs_hz=rate).describe()
    assert record.get("resampled_from_hz") == (None if 1.9 <= rate <= 2.1 else rate)


@pytest.mark.parametrize("rate", [0.9, 4.1, 30.0])
def test_a_named_model_of_quite_another_rate_is_refused(models: Path, rate: float) -> None:
    write_package(models, with_name(TINY, "Other_30Hz_x"))
    with pytest.raises(BadInput, match="more than a factor of two apart") as caught:
        engine(models, fs_hz=rate)
    assert ("Other_30Hz_x" in str(caught.value)) == (rate == 30.0)


def test_a_resampled_trace_gives_the_spikes_of_the_trace_at_the_models_rate(models: Path) -> None:
    def trace(fs_hz: float, seconds: float = 150.0) -> np.ndarray:
        time = np.arange(int(seconds * fs_hz)) / fs_hz
        return (0.5 + 0.4 * np.sin(time / 4) + 0.1 * np.sin(time / 1.7))[None].astype(np.float32)

    levels = np.array([2.0])
    expected = engine(models).predict(trace(2.0), levels)[0]
    for fs_hz in (1.84, 2.56):
        result = engine(models, fs_hz=fs_hz).predict(trace(fs_hz), levels)[0]
        there = np.interp(np.arange(len(result)) / fs_hz, np.arange(len(expected)) / 2.0, expected * 2.0)
        inside = np.isfinite(there) & np.isfinite(result)
        assert inside.sum() > 0.85 * len(result)
        np.testing.assert_allclose((result * fs_hz)[inside][8:-8], there[inside][8:-8], atol=0.02)


def test_a_gap_stays_a_gap_through_resampling(models: Path) -> None:
    dff = traces(2, 150)
    dff[0, 70:80], dff[1] = np.nan, np.nan
    result = engine(models, fs_hz=1.84).predict(dff, np.array([2.0, 2.0]))
    assert np.isnan(result[0, 70:80]).all()
    assert np.isfinite(result[0, 20:55]).all()
    assert np.isnan(result[1]).all()


def test_percent_is_refused(models: Path) -> None:
    with pytest.raises(BadInput, match="not a fraction"):
        engine(models).predict(100 * traces(5, 60))


def test_noise_is_judged_on_both_sides() -> None:
    assert check_noise(np.array([3.0, 4.0, np.nan]), (2, 3, 4), "m") == []
    assert "invented spikes" in check_noise(np.array([9.0, 8.0]), (2, 3, 4), "m")[0]
    assert "smoothed nor scaled" in check_noise(np.array([0.1, 0.2]), (2, 3, 4), "m")[0]
    assert check_noise(np.full(3, np.nan), (2, 3), "m") == []


def test_a_damaged_member_is_named_when_it_is_needed(models: Path) -> None:
    path = models / "Tiny_2Hz" / "Model_NoiseLevel_2_Ensemble_1.h5"
    with h5py.File(path, "r+") as file:
        del file["model_weights/dense_1"]
    with pytest.raises(BadInput, match="Model_NoiseLevel_2_Ensemble_1"):
        engine(models).predict(traces(1, 40), [2.0])


@pytest.mark.parametrize(
    "bad", [{"threshold": 2}, {"threshold": True}, {"align": "left"}, {"fs_hz": float("nan")}, {"fs_hz": -2.0}]
)
def test_options_are_checked(models: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        engine(models, **bad)
    with pytest.raises(BadInput, match="dense, neuralib, oasis"):
        open_engine("mlspike", "Tiny_2Hz", models_dir=models, fs_hz=2.0)


def test_the_record_states_model_digest_and_options(models: Path) -> None:
    record = engine(models, threshold=1, align="centered").describe()
    assert record["model"] == "Tiny_2Hz"
    assert record["sha256"] == open_package(models / "Tiny_2Hz").sha256()
    assert (record["engine"], record["threshold"], record["align"]) == ("dense", 1, "centered")
    assert record["units"] == "expected spikes per frame"
