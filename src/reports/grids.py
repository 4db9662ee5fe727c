"""What a person looks at after a forecast of grids: gain by horizon, planes side by side, a short film."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from src.reports.figures import RED, saved
from src.storage.atomic import atomic_file

HEIGHT, WIDTH = 256, 128
PIXELS = HEIGHT * WIDTH
COLOURS = {
    "mean rate": "#999999",
    "persistence": "#e9a23b",
    "autoregression": "#4292c6",
    "linear population": "#41ab5d",
    "model": RED,
}
_PLANES_SHOWN = 6
_HEAT = "magma"


@dataclass(frozen=True)
class ForecastExample:
    """Some windows of one subject: what was forecast and what happened.

    Attributes
    ----------
    subject, voxels, planes
        Name, ``(voxel,)`` places of the occupied voxels, and Z.
    probability, truth
        ``(window, horizon, voxel)`` forecast probability, and activity.
    first
        ``(window,)`` first context frame.
    step_s, gap
        Seconds of a frame; frames between the context and the first frame of the horizon.
    """

    subject: str
    voxels: np.ndarray
    planes: int
    probability: np.ndarray
    truth: np.ndarray
    first: np.ndarray
    step_s: float
    gap: int

    def ahead_s(self, step: int) -> float:
        """Seconds from the last context frame to a frame of the horizon, counted from 0."""
        return (self.gap + step + 1) * self.step_s


def draw_gain(
    path: Path, *, bits: Mapping[str, np.ndarray], average_precision: Mapping[str, np.ndarray], step_s: float, gap: int
) -> Path:
    """Write log-likelihood gain and average precision against the horizon.

    Parameters
    ----------
    bits, average_precision
        ``(horizon,)`` per forecast: bits per spike over the mean rate, and average precision.
    step_s, gap
        Seconds of a frame; frames between the context and the first frame of the horizon.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    shown = (
        (axes[0], bits, "gain over the mean rate (bits per spike)"),
        (axes[1], average_precision, "average precision"),
    )
    for axis, values, label in shown:
        for name, curve in values.items():
            ahead = (gap + np.arange(1, len(curve) + 1)) * step_s
            axis.plot(ahead, curve, "o-", ms=3.5, lw=1.6, color=COLOURS.get(name, "black"), label=name)
        axis.set(xlabel="time ahead (s)", ylabel=label)
        axis.set_ylim(bottom=min(0.0, *(float(np.min(c)) for c in values.values())))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    return saved(figure, path)


def draw_planes(path: Path, example: ForecastExample) -> Path:
    """Write what was forecast and what happened, plane by plane, in the busiest frame of an example."""
    voxels, probability, truth = example.voxels, example.probability, example.truth
    step = min(2, probability.shape[1] - 1)
    window = int(truth[:, step].sum(axis=1).argmax())
    plane, row, column = voxels // PIXELS, voxels % PIXELS // WIDTH, voxels % WIDTH
    chosen = np.unique(np.linspace(0, example.planes - 1, min(example.planes, _PLANES_SHOWN)).astype(int))
    # Half as high as the true aspect would be wide: the grid has square pixels of twice as many rows as columns.
    figure = Figure(figsize=(1.5 * len(chosen) + 1.6, 5.8), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    brightest = max(float(np.quantile(probability[window, step], 0.995)), 1e-3)
    for number, z in enumerate(chosen):
        here = plane == z
        happened = truth[window, step, here]
        top, bottom = axes[:, number]
        top.scatter(column[here], row[here], s=3, c="#e4e4e4", lw=0)
        top.scatter(column[here][happened], row[here][happened], s=9, c=RED, lw=0)
        order = np.argsort(probability[window, step, here])
        heat = bottom.scatter(
            column[here][order],
            row[here][order],
            s=7,
            c=probability[window, step, here][order],
            cmap="magma_r",
            vmin=0,
            vmax=brightest,
            lw=0,
        )
        top.set_title(f"plane {z}", fontsize=8)
        for axis in (top, bottom):
            axis.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), xticks=[], yticks=[], aspect="equal")
    axes[0, 0].set_ylabel("active")
    axes[1, 0].set_ylabel(f"forecast {example.ahead_s(step):g} s before")
    figure.colorbar(heat, ax=axes[1], shrink=0.8, label="probability")
    first = int(example.first[window])
    figure.suptitle(f"{example.subject}, window from frame {first} (held out)", fontsize=9)
    return saved(figure, path)


def draw_movie(path: Path, example: ForecastExample) -> Path:
    """Write a GIF beside ``path``: what happened, and what was forecast for that frame, seen from above.

    One picture per window, all planes laid over one another.
    """
    probability, first = example.probability, example.first
    step = min(2, probability.shape[1] - 1)
    brightest = max(float(np.quantile(probability[:, step], 0.999)), 1e-3)
    pixel = example.voxels % PIXELS
    outline = _from_above(pixel, np.full(len(pixel), 0.12))
    pictures = []
    for window in range(len(probability)):
        sides = [
            np.maximum(_from_above(pixel, example.truth[window, step].astype(float)), outline),
            np.maximum(_from_above(pixel, np.clip(probability[window, step] / brightest, 0, 1)), outline),
        ]
        canvas = Image.fromarray((colormaps[_HEAT](np.concatenate(sides, axis=1))[..., :3] * 255).astype(np.uint8))
        pen = ImageDraw.Draw(canvas)
        pen.line([(canvas.width // 2, 0), (canvas.width // 2, canvas.height)], fill="gray")
        pen.text((6, 4), f"{example.subject}  {window_time(first, window, example.step_s):6.1f} s", fill="white")
        pen.text((6, canvas.height - 14), "active", fill="white")
        label = f"forecast {example.ahead_s(step):g} s before"
        pen.text((canvas.width // 2 + 6, canvas.height - 14), label, fill="white")
        pictures.append(canvas.convert("P", palette=Image.Palette.ADAPTIVE))
    target = path.with_suffix(".gif")
    with atomic_file(target) as part:
        pictures[0].save(part, format="GIF", save_all=True, append_images=pictures[1:], duration=250, loop=0)
    return target


def window_time(first: np.ndarray, window: int, step_s: float) -> float:
    """Seconds since the first window of a film."""
    return float(first[window] - first[0]) * step_s


def _from_above(pixel: np.ndarray, value: np.ndarray) -> np.ndarray:
    """``(512, 256)`` greatest value over the planes; a voxel is drawn four pixels wide."""
    flat = np.zeros(PIXELS)
    np.maximum.at(flat, pixel, value)
    image = flat.reshape(HEIGHT, WIDTH)
    spread = np.maximum(image, np.roll(image, 1, axis=0))
    spread = np.maximum(spread, np.roll(spread, 1, axis=1))
    doubled: np.ndarray = spread.repeat(2, axis=0).repeat(2, axis=1)
    return doubled
