from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from src.preprocess.cascade.inference import open_engine
from src.preprocess.cascade.oasis import OasisEngine
from src.signals import BadInput


def traces(fs_hz: float, tau_s: float) -> tuple[np.ndarray, np.ndarray]:
    """ΔF/F of two neurons whose spikes decay exponentially, without noise."""
    spikes = np.zeros((2, 120))
    spikes[0, [10, 40, 41, 90]] = [1, 2, 1, 3]
    spikes[1, [5, 60]] = 1
    decay = np.exp(-np.arange(120) / tau_s / fs_hz)
    dff = np.stack([np.convolve(row, 0.2 * decay)[:120] for row in spikes])
    return dff.astype(np.float32), spikes


def test_spikes_of_a_clean_trace_come_back() -> None:
    dff, spikes = traces(4.0, 1.25)
    inferred = OasisEngine("tau1.25s_amplitude0.2", fs_hz=4.0).predict(dff)
    np.testing.assert_allclose(inferred, spikes, atol=1e-3)


def test_noisy_traces_give_the_least_squares_solution() -> None:
    """The same as SciPy's non-negative least squares on the matrix of decays, but for the first frame's calcium."""
    dff, _ = traces(4.0, 1.25)
    noisy = (dff + 0.08 * np.random.default_rng(0).standard_normal(dff.shape) - 0.03).astype(np.float32)
    frame = np.arange(noisy.shape[1])
    decays = np.tril(np.exp(-(frame[:, None] - frame) / 5.0))
    inferred = OasisEngine("tau1.25s_amplitude0.2", fs_hz=4.0).predict(noisy)
    for row, trace in enumerate(noisy):
        np.testing.assert_allclose(inferred[row, 1:], nnls(decays, trace.astype(float))[0][1:] / 0.2, atol=1e-5)


def test_traces_do_not_know_each_other() -> None:
    dff = np.random.default_rng(0).normal(0, 0.1, (7, 90)).astype(np.float32)
    engine = OasisEngine("tau0.8s", fs_hz=4.0)
    together = engine.predict(dff)
    apart = np.concatenate([engine.predict(row[None]) for row in dff])
    np.testing.assert_array_equal(together, apart)


def test_gaps_stay_gaps_and_cut_the_trace() -> None:
    dff, _ = traces(4.0, 1.25)
    dff[0, 30:35], dff[1] = np.nan, np.nan
    engine = OasisEngine("tau1.25s_amplitude0.2", fs_hz=4.0)
    inferred = engine.predict(dff)
    assert np.isnan(inferred[0]).nonzero()[0].tolist() == list(range(30, 35))
    assert np.isnan(inferred[1]).all()
    np.testing.assert_array_equal(inferred[0, :30], engine.predict(dff[:1, :30])[0])


@pytest.mark.parametrize("model", ["Global_EXC_2Hz_smoothing500ms", "tau0s", "tau1.5", "tau1s_amplitude0", "tau-1s"])
def test_other_models_are_refused(model: str) -> None:
    with pytest.raises(BadInput, match=r"tau1\.25s"):
        open_engine("oasis", model, models_dir=Path(), fs_hz=2.0)
