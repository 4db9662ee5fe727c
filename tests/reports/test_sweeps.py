"""The figures of a sweep: drawn for every shape of result, one job or many."""

import pytest

from src.reports.sweeps import SHOWN, draw_ranking, draw_search


@pytest.mark.parametrize("count", [1, 3, SHOWN + 5])
def test_a_ranking_is_drawn(tmp_path, count):
    scores = [[0.5 + k / 100, 0.4] for k in range(count - 1)] + [[]]  # the last one failed
    curves = [(k, [0.1, 0.2][: 1 + k % 2]) for k in range(count)]
    path = draw_ranking(
        tmp_path / "x.png", metric="val/f1", labels=[f"lr={k}" for k in range(count)], scores=scores, curves=curves
    )
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_search_is_drawn(tmp_path):
    path = draw_search(
        tmp_path / "x.png",
        metric="val/f1",
        better="max",
        history=[0.1, None, 0.3, 0.2, 0.25],
        parameters={"lr": ["1e-3", "3e-4", "1e-2", "2e-3"], "width": ["32", "64", "32", "64"]},
        scores=[0.3, 0.25, 0.2, 0.1],
        importances={"lr": 0.7, "width": 0.3},
    )
    assert path.read_bytes()[:4] == b"\x89PNG"
