from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, gaussian_filter

from src.preprocess.cascade.output import (
    cut_noise_floor,
    floor_value,
    nearest_level,
    noise_levels,
    place_windows,
    windows_with_gaps,
)
from tests.preprocess.cascade.cascade_packages import TINY


def test_noise_level_of_white_noise_is_its_size_in_percent_per_root_hertz() -> None:
    noise = np.random.default_rng(0).standard_normal((3, 200_000)).astype(np.float32)
    sizes = np.array([[0.01], [0.05], [0.2]], dtype=np.float32)
    # The median absolute difference of two standard normal draws is 0.6745 · √2.
    expected = 100 * sizes[:, 0] * 0.6745 * np.sqrt(2) / np.sqrt(7.5)
    np.testing.assert_allclose(noise_levels(sizes * noise, 7.5), expected, rtol=0.01)


def test_noise_level_ignores_gaps_and_knows_no_trace() -> None:
    dff = np.tile(np.array([0.0, 0.1], dtype=np.float32), (2, 20))
    dff[0, 5:8], dff[1] = np.nan, np.nan
    levels = noise_levels(dff, 4.0)
    assert levels[0] == pytest.approx(5.0)
    assert np.isnan(levels[1])


def test_the_nearest_level_wins_and_the_first_of_two() -> None:
    assert nearest_level(np.array([0.1, 3.0, 3.1, 99.0, np.nan]), (2, 4, 9)).tolist() == [0, 0, 1, 2, 0]


def test_the_published_floor_of_the_2_hz_model() -> None:
    assert floor_value(TINY) == pytest.approx(0.1468, abs=1e-4)


@pytest.mark.parametrize(("smoothing_s", "rate"), [(0.5, 2.0), (0.05, 30.0), (0.2, 7.5), (0.3, 10.0)])
def test_the_floor_is_cut_as_upstream_cuts_it(smoothing_s: float, rate: float) -> None:
    config = replace(TINY, smoothing_s=smoothing_s, sampling_rate_hz=rate)
    expected = np.random.default_rng(1).normal(0, 0.1, (6, 80)).astype(np.float32)
    ours = expected.copy()
    cut_noise_floor(ours, config, 1)
    spike = np.zeros(1001)
    spike[501] = 1
    floor = gaussian_filter(spike, sigma=smoothing_s * rate).max() / np.e
    for row, trace in zip(ours, expected, strict=True):
        active = binary_dilation(trace > floor, iterations=int(smoothing_s * rate))
        np.testing.assert_array_equal(row, np.where(active, np.maximum(trace, 0), 0))


def test_where_smoothing_is_below_a_frame_an_active_trace_stays_whole() -> None:
    config = replace(TINY, smoothing_s=0.05, sampling_rate_hz=7.5)
    expected = np.full((2, 30), 0.01, dtype=np.float32)
    expected[0, 4] = 0.9
    cut_noise_floor(expected, config, 1)
    assert (expected[0] > 0).all()
    assert (expected[1] == 0).all()


def test_threshold_zero_and_none() -> None:
    values = np.array([[-1.0, 0.01, 2.0]], dtype=np.float32)
    cut_noise_floor(untouched := values.copy(), TINY, None)
    cut_noise_floor(positive := values.copy(), TINY, 0)
    assert untouched.tolist() == values.tolist()
    assert positive.tolist() == [[0.0, pytest.approx(0.01), 2.0]]


@given(frames=st.integers(16, 60), before=st.sampled_from([0.25, 0.5, 0.75, 0.9]))
def test_windows_land_on_their_frames(frames: int, before: float) -> None:
    config = replace(TINY, before_frac=before)
    windows = frames - config.windowsize + 1
    starts = np.arange(windows, dtype=np.float32)[None]
    centered = place_windows(starts, frames, config, "centered")[0]
    upstream = place_windows(starts, frames, config, "upstream")[0]
    valid = np.flatnonzero(np.isfinite(centered))
    np.testing.assert_array_equal(centered[valid], valid - int(before * 16))
    np.testing.assert_array_equal(centered[1:], upstream[:-1])
    assert len(valid) >= windows - 2
    kept = np.flatnonzero(np.isfinite(upstream))
    np.testing.assert_array_equal(upstream[kept], kept - int(before * 16 - 1))
    assert np.isnan(upstream[: int(before * 16)]).all()


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan, np.inf]), min_size=5, max_size=40))
def test_every_window_with_a_gap_is_found(trace: list[float]) -> None:
    dff = np.array([trace], dtype=np.float32)
    expected = [not np.isfinite(dff[0, i : i + 5]).all() for i in range(len(trace) - 4)]
    assert windows_with_gaps(dff, 5)[0].tolist() == expected
