"""How far a network's confidence can be trusted, drawn."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from src.reports.sleep_review import reliability


def reliability_picture(probabilities: NDArray[np.floating], reference: NDArray[np.integer]) -> bytes:
    """PNG: share of right labels against confidence, with how many epochs there are of each.

    Parameters
    ----------
    probabilities, reference
        ``(epoch, class)`` predicted, ``(epoch,)`` true; unscored epochs do not count.
    """
    table, ece = reliability(probabilities, reference)
    filled = table[:, 2] > 0
    figure, (curve, counts) = plt.subplots(
        2, 1, figsize=(3.4, 3.9), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    curve.plot([0, 1], [0, 1], color="0.75", lw=1)
    curve.plot(table[filled, 0], table[filled, 1], "o-", color="#2171b5", ms=4)
    curve.set_ylabel("share right")
    curve.set_ylim(0, 1)
    curve.set_title(f"expected calibration error {ece:.3f}", fontsize=9)
    bins = len(table)
    counts.bar((np.arange(bins) + 0.5) / bins, table[:, 2], width=0.9 / bins, color="#9ecae1")
    counts.set_xlabel("confidence")
    counts.set_ylabel("epochs")
    counts.set_xlim(0, 1)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    plt.close(figure)
    return stream.getvalue()
