import numpy as np
import pytest

from src.preprocess.sleep.night_normalization import VIEWS, night_view, relative_levels, sleep_period, standardise_night
from src.signals import BadInput


def night(n_epochs=200):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_epochs, 2, 3, 1)) * [[[2.0], [3.0], [4.0]]] + 10


def test_a_person_with_another_level_and_spread_looks_the_same():
    levels = night()
    np.testing.assert_allclose(standardise_night(levels), standardise_night(3 * levels - 20), atol=1e-4)


def test_median_is_zero_and_scatter_one_even_with_an_hour_of_artefacts():
    levels = night(1000)
    spoiled = levels.copy()
    spoiled[:120] += 1000
    clean, robust = standardise_night(levels), standardise_night(spoiled)[120:]
    np.testing.assert_allclose(np.median(clean, axis=(0, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(clean.std(axis=(0, 3)), 1, atol=0.1)
    np.testing.assert_allclose(robust.std(axis=(0, 3)), 1, atol=0.25)


def test_views_stand_side_by_side_and_unusable_epochs_are_absent():
    levels, usable = night(), np.ones(200, bool)
    usable[5] = False
    both = night_view(levels, usable, ["absolute", "night"])
    assert both.shape == (200, 2, 6, 1)
    assert np.isnan(both[5]).all()
    np.testing.assert_allclose(both[usable][:, :, :3], levels[usable], rtol=1e-6)
    np.testing.assert_allclose(both[:, :, 3:], night_view(levels, usable, "night"))


def test_a_channel_that_was_not_recorded_stays_absent():
    levels = night()
    levels[:, 1] = np.nan
    view = night_view(levels, np.ones(200, bool), list(VIEWS))
    assert view.shape == (200, 2, 3 * len(VIEWS), 1)
    assert np.isnan(view[:, 1]).all()
    assert np.isfinite(view[:, 0]).all()


def test_relative_levels_do_not_see_the_gain_and_keep_the_ratios():
    levels = night()
    relative = relative_levels(levels)
    np.testing.assert_allclose(relative_levels(levels - 14), relative, atol=1e-4)
    np.testing.assert_allclose(np.diff(relative, axis=2), np.diff(levels, axis=2), atol=1e-4)
    np.testing.assert_allclose((10 ** (relative / 10)).sum(2).mean(), 1, rtol=1e-4)


def test_low_and_high_say_how_far_a_recording_reaches():
    levels = night()
    view = night_view(levels - 14, np.ones(200, bool), ["low", "high"])
    np.testing.assert_allclose(np.percentile(view[:, :, :3], 5, axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.percentile(view[:, :, 3:], 95, axis=0), 0, atol=1e-3)
    reach = np.percentile(levels, 95, axis=0) - np.percentile(levels, 5, axis=0)
    np.testing.assert_allclose(view[:, :, :3] - view[:, :, 3:], np.broadcast_to(reach, levels.shape), atol=1e-3)


def test_levels_are_taken_relative_to_a_span():
    levels = night()
    spoiled = levels.copy()
    spoiled[:80] += 30
    usable, span = np.ones(200, bool), slice(100, 200)
    for view in ("relative", "night", "low", "high"):
        np.testing.assert_allclose(
            night_view(spoiled, usable, view, span)[span], night_view(levels[span], usable[span], view), atol=1e-4
        )


def test_an_unknown_view_is_refused():
    with pytest.raises(BadInput, match="absolute, relative, night"):
        night_view(night(), np.ones(200, bool), ["rank"])
    with pytest.raises(BadInput, match="choose from"):
        night_view(night(), np.ones(200, bool), [])


def test_the_sleep_period_is_found_among_hours_of_wake():
    asleep = np.full(3000, 0.05)
    asleep[1200:2000] = 0.95
    asleep[1500:1560] = 0.05  # awake for half an hour in the night
    asleep[300:340] = 0.95  # a nap
    asleep[1300] = np.nan
    period = sleep_period(asleep)
    assert (period.start, period.stop) == (1140, 2060)
    assert sleep_period(np.full(100, 0.1)) == slice(None)
    assert sleep_period(np.full(100, 0.9)) == slice(0, 100)
