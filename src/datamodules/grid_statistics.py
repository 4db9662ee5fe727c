"""What linear forecasts are fitted from: rates, lagged covariances, components of the activity and their scores."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from src.datamodules.splits import Part
from src.preprocess.calcium.grid_index import SubjectGrids
from src.preprocess.calcium.grid_windows import WindowFrames

COMPONENTS = 64
_VOXELS_AT_ONCE = 4096
_SPARE, _PASSES = 10, 2
_FRAMES_AT_ONCE = 256


def training_statistics(
    subjects: Sequence[SubjectGrids], stretches: Sequence[Mapping[Part, list[range]]], frames: WindowFrames
) -> dict[str, np.ndarray]:
    """All that is fitted on the training frames; the products of validation frames choose between fits.

    ``offsets (subject + 1,)`` cuts ``voxels``, ``rates (voxel,)`` and ``autocovariance (part, voxel, lag)``, of
    training and validation frames, into subjects. ``components (voxel, component)`` of the training frames and
    ``score_products (part, subject, …)`` are those of :func:`components` and :func:`score_products`.
    """
    # Lags between two context frames, and between a context frame and one to forecast.
    lags = sorted({*range(frames.context), *range(frames.gap + 1, frames.length)})
    rates, fitted, checked, axes, products = [], [], [], [], []
    for grids, parts in zip(subjects, stretches, strict=True):
        rate, covariance = moments(grids, parts["train"], lags)
        rates.append(rate)
        fitted.append(covariance)
        checked.append(moments(grids, parts["val"], lags, rates=rate)[1])
        axes.append(components(grids, parts["train"], rate))
        products.append([score_products(grids, parts[part], rate, axes[-1], frames) for part in ("train", "val")])
    return {
        "subjects": np.array([s.subject for s in subjects]),
        "planes": np.array([s.planes for s in subjects]),
        "offsets": np.concatenate([[0], np.cumsum([len(s.voxels) for s in subjects])]),
        "voxels": np.concatenate([s.voxels for s in subjects]),
        "rates": np.concatenate(rates),
        "autocovariance": np.stack([np.concatenate(fitted), np.concatenate(checked)]),
        "components": np.concatenate(axes),
        "score_products": np.stack(products, axis=1),
        "frames": np.array(frames),
    }


def moments(
    grids: SubjectGrids, runs: Sequence[range], lags: Sequence[int], *, rates: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rates ``(voxel,)`` and lagged covariances ``(voxel, lag)`` about them, over pairs inside a stretch.

    Lags that are not asked for are zero.
    """
    count, frames, size = len(grids.voxels), sum(len(run) for run in runs), max(lags) + 1
    products, pairs = np.zeros((count, size)), np.zeros(size)
    total = np.zeros(count)
    for run in runs:
        raster = grids.raster(run.start, run.stop)
        for first in range(0, count, _VOXELS_AT_ONCE):
            block = slice(first, first + _VOXELS_AT_ONCE)
            active = np.ascontiguousarray(raster[:, block])
            total[block] += active.sum(axis=0)
            for lag in (k for k in lags if k < len(run)):
                products[block, lag] += (active[: len(run) - lag] & active[lag:]).sum(axis=0)
        pairs += np.maximum(len(run) - np.arange(size), 0)
    # A voxel that never fired in training may still fire: half a spike keeps its log-odds finite.
    fitted = (total + 0.5 * (total == 0)) / frames if rates is None else rates
    own = total / frames
    lagged = np.zeros((count, size))
    chosen = [k for k in lags if pairs[k] > 0]
    lagged[:, chosen] = products[:, chosen] / pairs[chosen] - (fitted * (2 * own - fitted))[:, None]
    return fitted.astype(np.float32), lagged.astype(np.float32)


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
    grids: SubjectGrids, runs: Sequence[range], rates: np.ndarray, axes: np.ndarray, frames: WindowFrames
) -> np.ndarray:
    """``(frame · component, frame · component)`` mean products of the scores in all windows.

    The frames are those of the context and those to forecast, without the gap between them.
    """
    used = np.r_[: frames.context, frames.target : frames.length]
    size = len(used) * axes.shape[1]
    products, windows = np.zeros((size, size)), 0
    for run in runs:
        if len(run) < frames.length:
            continue
        scores = np.concatenate([part @ axes for part in _deviations(grids, [run], rates)]).astype(np.float64)
        starts = np.arange(len(run) - frames.length + 1)[:, None] + used
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
