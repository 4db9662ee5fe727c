import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

from src.models.grids.scores import ForecastScores, row


@pytest.fixture(scope="module")
def counted():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(40, 2, 50, generator=generator) < 0.1
    logits = torch.randn(40, 2, 50, generator=generator) - 2 + 2 * truth
    last = torch.rand(40, 50, generator=generator) < 0.1
    base = torch.full((50,), math.log(0.1 / 0.9))
    scores = ForecastScores(2)
    for part in (slice(0, 15), slice(15, 40)):
        scores.update(logits[part], base, truth[part], last[part])
    return scores, logits, truth, last


def test_average_precision_is_torchmetrics(counted):
    scores, logits, truth, _ = counted
    for step in range(2):
        expected = binary_average_precision(torch.sigmoid(logits[:, step]), truth[:, step].long())
        assert scores.average_precision()[step] == pytest.approx(float(expected), abs=3e-3)


def test_f1_is_torchmetrics_and_best_where_it_was_tuned(counted):
    scores, logits, truth, _ = counted
    best, threshold = scores.f1()
    for step in range(2):
        predicted = (logits[:, step] >= threshold[step]).long()
        assert best[step] == pytest.approx(float(binary_f1_score(predicted, truth[:, step].long())), abs=2e-3)
    assert (scores.f1(threshold + 0.5)[0] <= best).all()
    np.testing.assert_allclose(scores.f1(threshold)[0], best)


def test_gain_is_in_bits_per_spike(counted):
    scores, logits, truth, _ = counted
    chance = torch.sigmoid(logits)
    expected = torch.where(truth, (chance / 0.1).log2(), ((1 - chance) / 0.9).log2()).sum((0, 2)) / truth.sum((0, 2))
    np.testing.assert_allclose(scores.bits_per_spike(), expected.numpy(), rtol=1e-4)


def test_errors_are_compared_with_a_copy_of_the_last_frame(counted):
    scores, logits, truth, last = counted
    chance, copy = torch.sigmoid(logits), (truth != last[:, None]).float().mean((0, 2))
    found = scores.field_scores()
    mae, mse = ((chance - truth.float()).abs().pow(p).mean((0, 2)) for p in (1, 2))
    np.testing.assert_allclose(found["mae"], mae.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["mae_over_copy"], (1 - mae / copy).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["mse_over_copy"], (1 - mse / copy).numpy(), rtol=1e-5)


def test_the_mean_rate_gains_nothing():
    scores = ForecastScores(1)
    base = torch.tensor([-2.0, -3.0])
    scores.update(base.expand(5, 1, 2), base, torch.rand(5, 1, 2) < 0.3, torch.zeros(5, 2, dtype=torch.bool))
    assert abs(scores.bits_per_spike()[0]) < 1e-6
    names = {"bits", "average_precision", "f1", "mae", "mae_over_copy", "mse_over_copy"}
    assert set(row(scores, np.array([-2.0]))) == names


def test_without_activity_nothing_breaks():
    scores = ForecastScores(1)
    silent = torch.zeros(2, 1, 3, dtype=torch.bool)
    scores.update(silent.float(), torch.zeros(3), silent, silent[:, 0])
    assert scores.average_precision()[0] == 0
    assert scores.f1()[0][0] == 0
