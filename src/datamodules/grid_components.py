"""What a linear model of a population is fitted from: components of its activity, products of their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from src.preprocess.calcium.grid_index import SubjectGrids

COMPONENTS = 64
_SPARE, _PASSES = 10, 2
_FRAMES_AT_ONCE = 256


def components(grids: SubjectGrids, runs: Sequence[range], rates: np.ndarray) -> np.ndarray:
    """``(voxel, COMPONENTS)`` principal components of the activity in ``runs``, each voxel in its own deviations.

    By a randomised range finder with two passes of subspace iteration (Halko, Martinsson and Tropp 2011), so that no
    matrix of voxels by voxels is made. Orthonormal; where there are fewer components the rest are zeros.
    """
    kept = min(COMPONENTS, len(rates), sum(len(run) for run in runs))
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((len(rates), min(kept + _SPARE, len(rates)))).astype(np.float32)
    for _ in range(_PASSES):
        basis = np.linalg.qr(sum(part.T @ (part @ basis) for part in _deviations(grids, runs, rates)))[0]
    seen = np.concatenate([part @ basis for part in _deviations(grids, runs, rates)])
    turned = basis @ np.linalg.svd(seen, full_matrices=False)[2].T[:, :kept]
    found = np.zeros((len(rates), COMPONENTS), np.float32)
    found[:, : turned.shape[1]] = turned
    return found


def score_products(
    grids: SubjectGrids, runs: Sequence[range], rates: np.ndarray, axes: np.ndarray, frames: int
) -> np.ndarray:
    """``(frames · component, frames · component)`` mean products of the scores in all windows of ``frames``."""
    size = frames * axes.shape[1]
    products, windows = np.zeros((size, size)), 0
    for run in runs:
        if len(run) < frames:
            continue
        scores = np.concatenate([part @ axes for part in _deviations(grids, [run], rates)]).astype(np.float64)
        starts = np.arange(len(run) - frames + 1)[:, None] + np.arange(frames)
        stacked = scores[starts].reshape(len(starts), size)
        products += stacked.T @ stacked
        windows += len(starts)
    return (products / max(windows, 1)).astype(np.float32)


def deviation(rates: np.ndarray) -> np.ndarray:
    """Standard deviation of an activity that is 0 or 1."""
    return np.sqrt(np.maximum(rates * (1 - rates), 1e-6))


def _deviations(grids: SubjectGrids, runs: Sequence[range], rates: np.ndarray) -> Iterator[np.ndarray]:
    # In pieces: the whole of a brain's recording does not fit into memory as numbers.
    scale = deviation(rates)
    for run in runs:
        for first in range(run.start, run.stop, _FRAMES_AT_ONCE):
            active = grids.raster(first, min(first + _FRAMES_AT_ONCE, run.stop))
            yield ((active - rates) / scale).astype(np.float32)
