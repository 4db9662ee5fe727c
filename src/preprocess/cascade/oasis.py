"""Non-negative deconvolution (OASIS) as an engine of its own: no networks, no download, no TensorFlow.

The method is that of Friedrich, Zhou and Paninski 2017, PLOS Computational Biology 13:e1005423, in the
authors' implementation (``oasis-deconv``).
"""

import re
from importlib.metadata import version
from typing import Any

import numpy as np

from src.preprocess.cascade.output import check_axes, noise_levels
from src.signals import BadInput

_MODEL = re.compile(r"tau(?P<tau>\d+(\.\d+)?)s(_amplitude(?P<amplitude>\d+(\.\d+)?))?$")
DEFAULT_AMPLITUDE = 0.2
_DECAYS = 5
"""Decay times after which one frame no longer bears on another: e⁻⁵ is less than a hundredth."""


class OasisEngine:
    """OASIS with one decay time for all neurons of a recording at ``fs_hz``.

    ``model`` is ``tau<seconds>s``, with ``_amplitude<ΔF/F of one spike>`` behind it to set the units (default 0.2): the
    deconvolved ΔF/F over this amplitude is the expected number of spikes.
    """

    def __init__(self, model: str, *, fs_hz: float) -> None:
        match = _MODEL.match(model)
        if not match or float(match["tau"]) <= 0 or (match["amplitude"] and float(match["amplitude"]) <= 0):
            problem = "is no model of the engine oasis"
            raise BadInput(f"cascade_model={model}", problem, "give the decay time, such as cascade_model=tau1.25s")
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
        from oasis.functions import oasisAR1

        check_axes(dff)
        # One spike makes c[t] = decay · c[t − 1] + s[t].
        decay = np.exp(-1 / (self.tau_s * self.fs_hz))
        out = np.full(dff.shape, np.nan, dtype=np.float32)
        for row, trace in enumerate(np.asarray(dff, dtype=np.float64)):
            for piece in np.ma.clump_unmasked(np.ma.masked_invalid(trace)):
                out[row, piece] = oasisAR1(np.ascontiguousarray(trace[piece]), decay)[1] / self.amplitude
        return out

    def describe(self) -> dict[str, Any]:
        """Plain record for manifests."""
        reach = int(np.ceil(_DECAYS * self.tau_s * self.fs_hz))
        return {
            "engine": "oasis",
            "model": self.model,
            "tau_s": self.tau_s,
            "amplitude": self.amplitude,
            "implementation": f"oasis-deconv {version('oasis-deconv')}",
            "frames_before": reach,
            "frames_after": reach,
            "units": "expected spikes per frame",
        }
