import numpy as np
import pytest

from src.datamodules.sleep_sequences import WindowDataset
from src.datamodules.sleep_spans import SpanOptions, draw_windows
from tests.datamodules.test_sleep_sequences import night

PLAIN: dict = {"jitter_db": 0.0, "tilt_db": 0.0, "jitter_scatter": 0.0, "one_channel": 0.0, "lost_channel": 0.0}


def recording(n_epochs=300):
    rng = np.random.default_rng(0)
    stages = np.r_[np.zeros(60, int), np.full(n_epochs - 60, 2)]
    levels = rng.normal(size=(n_epochs, 3, 5, 1)) + 20 * (stages == 0)[:, None, None, None]
    return levels.astype(np.float32), stages


def test_windows_are_relative_to_their_span_and_do_not_see_the_gain():
    levels, stages = recording()
    options = SpanOptions(window_epochs=20, windows=3, **PLAIN)
    for seed in range(5):
        seen, known = draw_windows(np.random.default_rng(seed), levels, stages, options)
        louder, same = draw_windows(np.random.default_rng(seed), levels + 14, stages, options)
        assert seen.shape == (3, 20, 3, 10, 1)
        assert known.shape == (3, 20)
        assert np.array_equal(known, same)
        np.testing.assert_allclose(seen, louder, atol=1e-3)


def test_spans_differ_in_length_and_wake_is_repeated_around_some():
    levels, stages = recording()
    options = SpanOptions(window_epochs=400, windows=1, share=1.0, wake_share=1.0, wake_epochs=(100, 300), **PLAIN)
    shares = []
    for seed in range(20):
        _, known = draw_windows(np.random.default_rng(seed), levels, stages, options)
        shares.append((known == 0).sum())
    assert max(shares) > 60  # more wake than the night has
    assert len(set(shares)) > 10


def test_a_window_loses_channels_or_keeps_one_in_the_first_place():
    levels, stages = recording()
    plain: dict = {**PLAIN, "windows": 8, "window_epochs": 10}
    one, _ = draw_windows(
        np.random.default_rng(0), levels, stages, SpanOptions(**{**plain, "one_channel": 1.0, "with_eog": 0.0})
    )
    assert np.isfinite(one[:, :, 0]).any()
    assert np.isnan(one[:, :, 1:]).all()
    lost, _ = draw_windows(np.random.default_rng(0), levels, stages, SpanOptions(**{**plain, "lost_channel": 1.0}))
    assert (np.isnan(lost).all(axis=(1, 3, 4)).sum(axis=1) == 1).all()


@pytest.mark.parametrize("index", [0, 2])
def test_a_dataset_draws_anew_unless_it_has_to_repeat(index):
    dataset = WindowDataset([night(n_epochs=120), night("b", 90)], 30, SpanOptions(window_epochs=30))
    first, again = dataset[index], dataset[index]
    assert first[0].shape[0] == len(first[1]) == 30
    assert not first[0].nan_to_num().equal(again[0].nan_to_num())
    dataset.anywhere = False
    assert dataset[index][0].nan_to_num().equal(dataset[index][0].nan_to_num())
