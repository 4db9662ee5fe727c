"""Binary spikes drawn from expected spike counts, the same for any number of workers or batch size.

Every neuron owns a stretch of one Philox counter space: its draws depend on (seed, subject, number of
the cell) and on nothing that ran before.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np

Sampling = Literal["bernoulli", "poisson"]


def stream(seed: int, subject: str, purpose: str) -> np.random.Generator:
    """A generator of its own for every seed, subject and purpose."""
    digest = hashlib.sha256(f"{seed}/{subject}/{purpose}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], "<u8")))


class SpikeSampler:
    """Draws the spikes of one subject.

    Parameters
    ----------
    seed
        Seed of the run.
    subject
        Name of the subject; two subjects never share draws.
    sampling
        ``bernoulli``: a frame has a spike with probability min(λ, 1), as the original pipeline does;
        ``poisson``: with 1 − exp(−λ), the chance of at least one spike when the count is Poisson.
        λ is CASCADE's output, the expected number of spikes in the frame.
    """

    def __init__(self, seed: int, subject: str, sampling: Sampling = "bernoulli") -> None:
        if sampling not in ("bernoulli", "poisson"):
            raise ValueError(f"sampling {sampling!r} is neither bernoulli nor poisson")
        self.sampling = sampling
        self._generator = stream(seed, subject, "spikes")
        self._philox = self._generator.bit_generator
        self._state: Any = self._philox.state

    def uniform(self, cell_id: int, frames: int) -> np.ndarray:
        """The cell's draws: ``(time,)`` float32 in [0, 1), multiples of 2⁻²⁴."""
        # The highest of the four counter words names the cell, so no stretch can run into the next.
        self._state["state"]["counter"] = np.array([0, 0, 0, cell_id], np.uint64)
        self._state["buffer_pos"], self._state["has_uint32"] = 4, 0
        self._philox.state = self._state
        return self._generator.random(frames, dtype=np.float32)

    def sample(self, expected_spikes: np.ndarray, cell_ids: np.ndarray) -> np.ndarray:
        """Binary spikes ``(neuron, time)`` bool; frames whose expectation is NaN never spike.

        Parameters
        ----------
        expected_spikes
            ``(neuron, time)`` expected spikes per frame.
        cell_ids
            ``(neuron,)`` numbers of the cells.
        """
        rate = np.asarray(expected_spikes, dtype=np.float32)
        chance = rate if self.sampling == "bernoulli" else -np.expm1(-rate)
        spikes = np.zeros(rate.shape, dtype=bool)
        for row in np.flatnonzero((chance > 0).any(axis=1)):
            np.less(self.uniform(int(cell_ids[row]), rate.shape[1]), chance[row], out=spikes[row])
        return spikes
