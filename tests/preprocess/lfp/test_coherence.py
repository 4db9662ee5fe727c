"""Coherence against SciPy window by window, within a shank and between two."""

import numpy as np
import pytest
import scipy.signal

from src.preprocess.lfp.coherence import COHERENCE, chance_levels, independent_averages, parse_pairs, windowed_coherence
from src.preprocess.spectrogram import SpectrogramPlan
from src.signals import BadInput
from tests.preprocess.lfp.lfp_files import random_traces, transform, write_shank

N = 60_000


def coherence(tmp_path, shanks, pairs, window_s=30.0, **overrides):
    (tmp_path / "out").mkdir(exist_ok=True)
    params = transform(label="a", **overrides) | {"pairs": pairs, "coherence_window_s": window_s}
    facts = COHERENCE.run({f"sh{k}": path for k, path in shanks.items()}, params, tmp_path / "out", None)
    assert facts is not None
    with np.load(tmp_path / "out/a_coherence.npz", allow_pickle=False) as arrays:
        return facts, dict(arrays)


@pytest.fixture
def shanks(tmp_path):
    shared = random_traces(N, 1, seed=9)
    return {
        k: write_shank(tmp_path, "a", k, random_traces(N, 3, seed=k) + shared, channel_ids=np.arange(3) + 10 * k)
        for k in (0, 2)
    }


def test_equals_scipy(tmp_path, shanks):
    facts, arrays = coherence(tmp_path, shanks, [["sh0:1", "sh2:22"], ["sh2:20", "sh2:21"]])
    x, y = (np.load(shanks[k])["traces"][:, c].astype(float) for k, c in ((0, 1), (2, 2)))
    frames = facts["frames_per_window"]
    assert arrays["coherence"].shape == (2, 1025, (N - 768) // 256 // frames)
    for window in range(arrays["coherence"].shape[2]):
        stretch = slice(window * frames * 256, ((window + 1) * frames - 1) * 256 + 1024)
        freqs, want = scipy.signal.coherence(
            x[stretch], y[stretch], 500, window=("tukey", 0.25), nperseg=1024, noverlap=768, nfft=2048
        )
        np.testing.assert_allclose(arrays["coherence"][0, 1:, window], want[1:], atol=2e-4)
    np.testing.assert_allclose(arrays["freqs"], freqs, rtol=1e-6)
    assert arrays["times"][0] == pytest.approx(facts["window_s"] / 2, abs=1)
    assert arrays["pairs"].tolist() == [["sh0:1", "sh2:22"], ["sh2:20", "sh2:21"]]


def test_shared_signals_cohere_and_private_ones_stay_below_chance(tmp_path, shanks):
    alone = {k: write_shank(tmp_path / "alone", "a", k, random_traces(N, 1, seed=k + 50)) for k in (0, 1)}
    _, together = coherence(tmp_path, shanks, [["sh0:0", "sh2:20"]], window="hann")
    facts, apart = coherence(tmp_path, alone, [["sh0:0", "sh1:0"]], window="hann")
    assert np.median(together["coherence"]) == pytest.approx(0.25, abs=0.1)
    assert np.mean(apart["coherence"] < facts["level_of_chance"]) > 0.9


def test_a_window_of_no_length_is_refused(tmp_path, shanks):
    with pytest.raises(BadInput, match="coherence_window_s: 0 s hold fewer than two windows"):
        coherence(tmp_path, shanks, [["sh0:0", "sh2:20"]], window_s=0.0)


def test_multitaper_and_crop(tmp_path, shanks):
    _, arrays = coherence(tmp_path, shanks, [["sh0:0", "sh0:0"]], window=["multitaper", 2, 3], fmax_hz=100.0)
    assert arrays["freqs"][-1] <= 100
    np.testing.assert_allclose(arrays["coherence"], 1, rtol=1e-5)


def test_gaps_and_lengths(tmp_path):
    samples = random_traces(N, 2)
    samples[: N // 2, 0] = np.nan
    samples[N - 40 : N - 30, 0] = np.nan
    shanks = {0: write_shank(tmp_path, "a", 0, samples), 1: write_shank(tmp_path, "a", 1, random_traces(N - 1000, 1))}
    facts, arrays = coherence(tmp_path, shanks, [["sh0:0", "sh0:1"], ["sh0:1", "sh1:0"]])
    assert np.isnan(arrays["coherence"][0, :, 0]).all()
    assert np.isfinite(arrays["coherence"][0, :, -1]).all()
    assert "the shortest counts" in facts["warnings"][0]


def test_what_is_refused(tmp_path, shanks):
    for pairs in ([["0", "1"]], ["sh0:1"], [["sh0:1"]], [["sh0:1", "sh0:1", "sh0:2"]], [["shx:1", "sh0:1"]]):
        with pytest.raises(BadInput, match="not a pair"):
            parse_pairs(pairs)
    with pytest.raises(BadInput, match="has no channel 99"):
        coherence(tmp_path, shanks, [["sh0:99", "sh2:20"]])
    with pytest.raises(BadInput, match="shorter than one window"):
        coherence(tmp_path, shanks, [["sh0:0", "sh2:20"]], window_s=1000.0)
    other = {0: shanks[0], 1: write_shank(tmp_path, "a", 1, random_traces(N, 1), sampling_rate=250.0)}
    with pytest.raises(BadInput, match="do not share"):
        coherence(tmp_path, other, [["sh0:0", "sh1:0"]])


@pytest.mark.parametrize(
    ("window", "nperseg", "noverlap"),
    [
        ("hann", 500, 375),
        ("hann", 500, 0),
        ("hann", 500, 450),
        (("tukey", 0.25), 512, 384),
        ("boxcar", 250, 125),
        (("multitaper", 3, 5), 500, 250),
    ],
)
def test_unrelated_channels_stay_below_the_level_of_chance_in_95_of_100_windows(window, nperseg, noverlap):
    plan = SpectrogramPlan(250.0, window, nperseg, noverlap, nperseg)
    frames, n_windows = round(20 * 250 / plan.hop), 40
    x, y = np.random.default_rng(1).standard_normal((2, plan.stretch(0, frames * n_windows).stop))
    found = windowed_coherence(plan, x.__getitem__, y.__getitem__, (plan.n_freqs, frames, n_windows))
    squared, imaginary = chance_levels(independent_averages(plan, frames))
    inner = slice(3, -3)
    assert np.mean(found.squared[inner] > squared) == pytest.approx(0.05, abs=0.012)
    assert np.mean(np.abs(found.imaginary[inner]) > imaginary) == pytest.approx(0.05, abs=0.012)
    assert chance_levels(1.0) == (1.0, 1.0)


def test_a_delay_is_seen_in_the_imaginary_part_and_a_shared_reference_is_not(tmp_path):
    noise = random_traces(N + 10, 1, seed=3)
    late = np.concatenate([noise[10:], noise[:-10], noise[10:]], axis=1) + 0.1 * random_traces(N, 3, seed=4)
    _, arrays = coherence(tmp_path, {0: write_shank(tmp_path, "a", 0, late)}, [["sh0:0", "sh0:1"], ["sh0:0", "sh0:2"]])
    band = (arrays["freqs"] > 8) & (arrays["freqs"] < 16)
    delayed, shared = np.abs(arrays["imaginary_coherence"][:, band]).mean(axis=(1, 2))
    assert delayed > 0.8
    assert shared < arrays["imaginary_level_of_chance"]
    assert arrays["coherence"][:, band].min() > 0.8
