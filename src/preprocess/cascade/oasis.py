"""Non-negative deconvolution (OASIS) as an engine of its own: no networks, no download, no TensorFlow.

The method is that of Friedrich, Zhou and Paninski 2017, PLOS Computational Biology 13:e1005423, in the
implementation of ``neuralib.spikes.oasis``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.cascade.output import noise_levels
from src.signals import BadInput

_MODEL = re.compile(r"tau(?P<tau>\d+(\.\d+)?)s(_amplitude(?P<amplitude>\d+(\.\d+)?))?$")
_BLOCK_SAMPLES = 1 << 20
DEFAULT_AMPLITUDE = 0.2


class OasisEngine:
    """OASIS with one decay time for all neurons.

    Parameters
    ----------
    model
        ``tau<seconds>s``, with ``_amplitude<ΔF/F of one spike>`` behind it to set the units
        (default 0.2): the deconvolved ΔF/F over this amplitude is the expected number of spikes.
    fs_hz
        Frame rate of the recording.
    """

    def __init__(self, model: str, *, fs_hz: float) -> None:
        match = _MODEL.match(model)
        if not match or float(match["tau"]) <= 0 or (match["amplitude"] and float(match["amplitude"]) <= 0):
            raise BadInput(model, "is no model of the engine oasis", "give the decay time, such as tau1.25s")
        self.model, self.fs_hz = model, fs_hz
        self.tau_s = float(match["tau"])
        self.amplitude = float(match["amplitude"] or DEFAULT_AMPLITUDE)

    def noise_levels(self, dff: np.ndarray) -> np.ndarray:
        """Noise level of every neuron, ``(neuron,)`` float64 in % per square root of Hz."""
        return noise_levels(np.asarray(dff, dtype=np.float32), self.fs_hz)

    def check(self, levels: np.ndarray) -> list[str]:
        """Warnings about the scale of ΔF/F, on which only the units of the result depend."""
        return []

    def predict(self, dff: np.ndarray, noise_levels: np.ndarray | None = None) -> np.ndarray:
        """Expected spikes per frame, ``(neuron, time)`` float32.

        Frames that are not finite cut a trace into pieces, each deconvolved by itself; they are NaN
        in the result. ``noise_levels`` plays no part.
        """
        if dff.ndim != 2:
            raise BadInput("dF/F", f"has {dff.ndim} axes", "give (neuron, time)")
        out = np.empty(dff.shape, dtype=np.float32)
        rows = max(1, _BLOCK_SAMPLES // max(1, dff.shape[1]))
        for start in range(0, len(dff), rows):
            block = np.asarray(dff[start : start + rows], dtype=np.float32)
            whole = np.isfinite(block).all(axis=1)
            result = np.full(block.shape, np.nan, dtype=np.float32)
            if whole.any():
                result[whole] = self._deconvolve(block[whole])
            for row in np.flatnonzero(~whole):
                for piece in np.ma.clump_unmasked(np.ma.masked_invalid(block[row])):
                    result[row, piece] = self._deconvolve(block[row : row + 1, piece])[0]
            out[start : start + rows] = result / self.amplitude
        return out

    def _deconvolve(self, dff: np.ndarray) -> np.ndarray:
        # Every work array of neuralib's kernel is a zeroed array of the block's shape.
        value, weight, length, spikes = (np.zeros(dff.shape, dtype=np.float32) for _ in range(4))
        starts = np.zeros(dff.shape, dtype=np.int64)
        _kernel()(dff, value, weight, starts, length, spikes, self.tau_s, self.fs_hz)
        return spikes

    def describe(self) -> dict[str, Any]:
        """Plain record for manifests."""
        return {
            "engine": "oasis",
            "model": self.model,
            "tau_s": self.tau_s,
            "amplitude": self.amplitude,
            "implementation": f"neuralib-imaging {version('neuralib-imaging')}",
            "units": "expected spikes per frame",
        }


@cache
def _kernel() -> Any:
    # neuralib.spikes imports TensorFlow for its CASCADE half; the OASIS file beside it needs numba alone.
    package = importlib.util.find_spec("neuralib")
    if package is None or not package.submodule_search_locations:
        raise BadInput("neuralib", "is not installed", "pip install 'neuralib-imaging[cascade]'")
    path = next(p for root in package.submodule_search_locations if (p := Path(root, "spikes", "oasis.py")).is_file())
    spec = importlib.util.spec_from_file_location("neuralib_spikes_oasis", path)
    if spec is None or spec.loader is None:
        raise BadInput(path, "cannot be imported", "pip install 'neuralib-imaging[cascade]'")
    module = importlib.util.module_from_spec(spec)
    # Numba's files of compiled code refer to their module by name, and are loaded again by the next process.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.oasis_matrix
