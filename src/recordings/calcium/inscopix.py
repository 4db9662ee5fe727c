"""Inscopix cell sets (``.isxd``): an image and a trace per cell, and a JSON text at the end of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from src.recordings.calcium.recording import CalciumRecording, Plane, of_planes
from src.recordings.foreign_files import explained
from src.signals import BadInput

_CELL_SET, _ACCEPTED = 1, 0


class InscopixTraces:
    """Traces of the cells ``kept`` in a file of ``shape`` (cell, pixels and frames), ``pixels`` of each before them."""

    def __init__(self, path: Path, shape: tuple[int, int], pixels: int, kept: np.ndarray) -> None:
        self.path, self.shape, self.pixels, self.kept = path, shape, pixels, kept

    def read(self, rows: np.ndarray) -> np.ndarray:
        """``(neuron, time)`` float32; NaN where a frame was dropped."""
        return np.asarray(np.memmap(self.path, "<f4", "r", shape=self.shape)[self.kept[rows], self.pixels :])


def open_inscopix(path: Path, subject: str, fs_hz: float | None) -> CalciumRecording:
    """The accepted cells of a cell set."""
    with explained(path, "is no Inscopix cell set", "export it again"):
        content, footer = _footer(path)
        timing, size = footer["timingInfo"], footer["spacingInfo"]["numPixels"]
        stated = timing["period"]["den"] / timing["period"]["num"]
        frames, image, cells = timing["numTimes"], (size["y"], size["x"]), len(footer["CellStatuses"])
    pixels = image[0] * image[1]
    if content != 4 * cells * (pixels + frames):
        raise BadInput(path, "is shorter or longer than its cells and frames need", "copy it again")
    kept = np.flatnonzero(np.asarray(footer["CellStatuses"]) == _ACCEPTED)
    shape = cells, pixels + frames
    images = np.memmap(path, "<f4", "r", shape=shape)[kept, :pixels].reshape(len(kept), *image)
    middle = [(*np.median(np.argwhere(one), axis=0), 0) if one.any() else (np.nan,) * 3 for one in images]
    positions = np.array(middle, np.float64).reshape(-1, 3)
    plane = Plane(cells, kept, positions, frames, InscopixTraces(path, shape, pixels, kept))
    notes = ("Inscopix's files state no unit: give baseline=divide if the traces are raw fluorescence",)
    curate = "accept cells in Inscopix's software, and save again"
    return of_planes([plane], [stated], fs_hz, curate, subject=subject, file=path, notes=notes, signal="dff")


def _footer(path: Path) -> tuple[int, dict[str, Any]]:
    """Bytes before the JSON text, and its content. The text ends with a zero and its length in eight bytes."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(end - 8, 0))
        first = end - 9 - int.from_bytes(file.read(8), "little")
        if first < 0:
            raise ValueError("it has no JSON text at its end")
        file.seek(first)
        footer = json.loads(file.read(end - 9 - first))
    if not isinstance(footer, dict) or footer.get("type") != _CELL_SET:
        raise ValueError("it is a file of another kind, such as a movie")
    return first, footer
