import numpy as np
import pytest

from src.preprocess.sleep.night_normalization import (
    VIEWS,
    night_view,
    rank_night,
    shape_night,
    standardise_night,
    standardise_sleep,
)
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


def test_ranks_do_not_see_a_monotone_change():
    levels = np.concatenate([night(), night()[::-1]], axis=3)
    ranks = rank_night(levels)
    np.testing.assert_allclose(rank_night(np.exp(levels / 5)), ranks, atol=1e-5)
    np.testing.assert_allclose(ranks.std(axis=(0, 3)), 1, atol=0.02)
    order = np.argsort(levels[:, 1, 2].ravel())
    assert (np.diff(ranks[:, 1, 2].ravel()[order]) >= 0).all()


def test_the_form_of_a_spectrum_does_not_see_its_level():
    levels = night()
    louder = levels + np.linspace(-20, 20, len(levels))[:, None, None, None]
    np.testing.assert_allclose(shape_night(louder), shape_night(levels), atol=1e-3)


def test_an_unknown_view_is_refused():
    with pytest.raises(BadInput, match="absolute, night, rank, shape"):
        night_view(night(), np.ones(200, bool), ["relative"])
    with pytest.raises(BadInput, match="choose from"):
        night_view(night(), np.ones(200, bool), [])


def test_time_awake_moves_median_and_scatter_of_the_night_but_not_of_its_sleep():
    rng = np.random.default_rng(1)
    asleep = rng.normal(size=(600, 2, 5, 1))
    awake = rng.normal(np.array([-3.0, 0.0, 2.0, 2.0, 6.0])[:, None], size=(900, 2, 5, 1))
    short, long = (np.concatenate([awake[:n], asleep, awake[n : 2 * n]]) for n in (60, 450))
    a, b = standardise_sleep(short)[60:660], standardise_sleep(long)[450:1050]
    np.testing.assert_allclose(a, b, atol=0.15)
    np.testing.assert_allclose(np.median(b, axis=(0, 3)), 0, atol=0.1)
    np.testing.assert_allclose(b.std(axis=(0, 3)), 1, atol=0.1)
    assert abs(standardise_night(short)[60:660] - standardise_night(long)[450:1050]).max() > 1


@pytest.mark.parametrize("n_epochs", [1, 2, 40])
def test_sleep_that_cannot_be_told_from_wake_is_the_whole_night(n_epochs):
    levels = night(n_epochs)
    view = standardise_sleep(levels)
    np.testing.assert_allclose(np.median(view, axis=(0, 3)), 0, atol=1e-5)
    assert np.isfinite(view).all()
    assert np.isnan(standardise_sleep(np.full_like(levels, np.nan))).all()
