"""Signals brought down to a lower rate: what is below stays, what is above goes, block by block, in time."""

import numpy as np
import pytest

from src.preprocess.lfp.decimation import Decimator


def decimated(signal, fs_hz, wanted_hz, seed=0):
    decimator, rng, outputs, first = Decimator(fs_hz, wanted_hz, signal.shape[1]), np.random.default_rng(seed), [], 0
    while first < len(signal):
        count = int(rng.integers(1, 4000))
        outputs.append(decimator.push(signal[first : first + count]))
        first += count
    outputs.append(decimator.finish())
    values = np.concatenate([output for output in outputs if output.size])
    assert len(values) == decimator.n_outputs(len(signal))
    return values, np.arange(len(values)) / decimator.fs_hz


@pytest.mark.parametrize("fs_hz", [30_000.0, 24_414.0625, 20_000.0, 2500.0, 1250.0, 1000.0, 512.0])
def test_below_stays_above_goes_and_time_is_kept(fs_hz):
    time = np.arange(int(3 * fs_hz)) / fs_hz
    signal = np.stack([np.sin(2 * np.pi * 37 * time), np.cos(2 * np.pi * 180 * time), np.ones_like(time)], axis=1)
    signal = np.concatenate([signal, np.sin(2 * np.pi * 310 * time)[:, None] if fs_hz > 620 else signal[:, :1] * 0], 1)
    values, when = decimated(signal, fs_hz, 500.0)
    assert when[1] == pytest.approx(1 / 500, rel=1e-3)
    inner = slice(60, -60)
    np.testing.assert_allclose(values[inner, 0], np.sin(2 * np.pi * 37 * when[inner]), atol=2e-4)
    np.testing.assert_allclose(values[inner, 1], np.cos(2 * np.pi * 180 * when[inner]), atol=1e-3)
    np.testing.assert_allclose(values[:, 2], 1, atol=1e-5)
    assert np.abs(values[inner, 3]).max() < 2e-4


def test_blocks_do_not_show_and_short_signals_are_kept():
    signal = np.random.default_rng(0).integers(-3000, 3000, (40_000, 3)).astype(np.int16)
    one, other = (decimated(signal, 30_000.0, 500.0, seed)[0] for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert len(decimated(signal[:7], 30_000.0, 500.0)[0]) == 1
    np.testing.assert_allclose(decimated(signal[:500] * 0 + 5, 500.0, 500.0)[0], 5)


def test_missing_samples_spread_no_further_than_the_filter():
    signal = np.zeros((30_000, 2), np.float32)
    signal[15_000:18_000, 1] = np.nan
    values, _ = decimated(signal, 30_000.0, 500.0)
    assert np.isfinite(values[:, 0]).all()
    missing = np.flatnonzero(np.isnan(values[:, 1]))
    assert missing[0] >= 250 - 64
    assert missing[-1] <= 300 + 64
    assert {*range(250, 300)} <= set(missing.tolist())
