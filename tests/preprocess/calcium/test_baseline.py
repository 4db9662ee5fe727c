"""The baseline against ``numpy.percentile``, frame by frame."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.calcium.baseline import CELL_STATES, Baseline, sliding_percentile, window_frames


def frame_by_frame(traces: np.ndarray, window: int, percentile: float) -> np.ndarray:
    half, frames = window // 2, traces.shape[1]
    stretches = (traces[:, max(0, t - half) : t + half + 1] for t in range(frames))
    return np.stack([np.percentile(part, percentile, axis=1) for part in stretches], axis=1)


@given(
    seed=st.integers(0, 2**32 - 1),
    neurons=st.integers(1, 40),
    frames=st.integers(1, 160),
    half=st.integers(0, 40),
    percentile=st.one_of(st.sampled_from([0.0, 8.0, 50.0, 100.0]), st.floats(0, 100)),
    ties=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_it_equals_numpy_bit_for_bit(seed, neurons, frames, half, percentile, ties):
    traces = 10 * np.random.default_rng(seed).standard_normal((neurons, frames)).astype(np.float32)
    traces = np.round(traces) if ties else traces
    ours = sliding_percentile(traces, 2 * half + 1, percentile)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, frame_by_frame(traces, 2 * half + 1, percentile))


def test_missing_frames_are_left_out_of_every_window():
    rng = np.random.default_rng(1)
    traces = rng.standard_normal((6, 200)).astype(np.float32)
    traces[rng.random(traces.shape) < 0.2] = np.nan
    traces[2, 40:80] = np.nan
    traces[4] = np.nan
    half = 10
    ours = sliding_percentile(traces, 2 * half + 1, 8)
    for row in range(6):
        for t in range(200):
            part = traces[row, max(0, t - half) : t + half + 1]
            part = part[np.isfinite(part)]
            expected = np.percentile(part, 8) if len(part) else np.nan
            np.testing.assert_allclose(ours[row, t], expected, rtol=1e-6)


def test_the_window_is_the_originals_at_two_hertz():
    assert window_frames(30, 2.0) == 61
    assert window_frames(30, 1.97) == 59
    assert window_frames(0.1, 2.0) == 1


def test_modes_state_what_they_compute_and_which_neurons_they_leave_out():
    traces = 100 + np.random.default_rng(3).standard_normal((6, 90)).astype(np.float32)
    traces[1], traces[2], traces[3] = np.nan, 7, traces[3] - 100
    traces[5, 4] = np.nan
    base = sliding_percentile(traces, 61, 8)
    dff, state = Baseline("divide", 61).dff(traces)
    assert [CELL_STATES[s] for s in state] == ["used", "no finite frame", "constant", "F0 ≤ 0", "used", "used"]
    np.testing.assert_array_equal(dff[[0, 4, 5]], ((traces - base) / base)[[0, 4, 5]])
    assert np.isnan(dff[1:4]).all()
    dff, state = Baseline("subtract", 61, scale=0.01).dff(traces)
    assert state.tolist() == [0, 1, 2, 0, 0, 0]
    np.testing.assert_array_equal(dff[[0, 3]], ((traces - base) * np.float32(0.01))[[0, 3]])
    np.testing.assert_array_equal(Baseline("none", 1).dff(traces)[0][[0, 3, 5]], traces[[0, 3, 5]])
