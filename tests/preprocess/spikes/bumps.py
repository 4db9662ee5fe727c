"""The waveform of a made-up spike."""

import numpy as np


def bump(at, width, height, length=100):
    """``(length,)`` a Gaussian of ``height`` around sample ``at``."""
    return height * np.exp(-0.5 * ((np.arange(length) - at) / width) ** 2)
