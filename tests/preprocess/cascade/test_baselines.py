from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.preprocess.cascade.baselines import fit_oasis, fit_threshold
from src.preprocess.cascade.embedded import simulate_ground_truth
from src.preprocess.cascade.ground_truth import Example, prepare
from tests.preprocess.cascade.cascade_packages import TINY


@pytest.fixture(scope="module")
def training() -> list[tuple[Example, np.ndarray]]:
    examples = prepare(simulate_ground_truth(6, seed=0, duration_s=120), TINY)
    return [(example, example.dff) for example in examples]


@pytest.mark.parametrize(("fit", "least"), [(fit_oasis, 0.6), (fit_threshold, 0.4)])
def test_baselines_follow_the_spikes_and_their_number(
    training: list[tuple[Example, np.ndarray]], fit, least: float
) -> None:
    infer = fit(training, TINY)
    value = np.concatenate([infer(dff) for _, dff in training])
    truth = np.concatenate([example.target for example, _ in training])
    assert np.corrcoef(value, truth)[0, 1] > least
    assert 0.4 < value.sum() / truth.sum() < 1.6
    # The scale is the least-squares one: the rest is orthogonal to the inference.
    assert abs(value @ (truth - value)) < 1e-3 * (value @ value)


def test_a_flat_trace_has_no_spikes(training: list[tuple[Example, np.ndarray]], tmp_path: Path) -> None:
    for fit in (fit_oasis, fit_threshold):
        assert np.abs(fit(training, TINY)(np.zeros(50, dtype=np.float32))).max() == 0
